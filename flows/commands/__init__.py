"""What each `tunegate` command does; `flows/cli.py` parses the arguments and imports these when needed."""
