"""Removing a customer from files: keyed hashes, an index of who is stored where, tables without their rows."""
