"""The work: one job per file, plain functions on files, no orchestration. Imports schemas only."""
