"""`python -m flows.cli`, for where the `tunegate` script is not installed."""

from flows.cli import main

if __name__ == "__main__":
    main()
