"""Turns files, tables and conversations of any shape into ticket rows; each is kept or quarantined with its place."""
