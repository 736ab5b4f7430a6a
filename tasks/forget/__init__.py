"""What the removal of a customer means for files: keyed hashes, who is held where, tables without their rows."""
