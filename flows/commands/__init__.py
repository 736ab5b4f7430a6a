"""What each `tunegate` command does; `flows/cli.py` parses the arguments and imports these when needed."""

import tasks.kinds  # noqa: F401  a command reads pipelines.yaml, which may name all of them
