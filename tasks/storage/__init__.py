"""Files that are complete or absent, and DuckDB: what every room writes and reads with."""
