"""Files, tables and conversations of any shape become ticket rows; every row is kept or quarantined with its place."""
