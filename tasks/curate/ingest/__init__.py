"""What lies behind a connection, or in a file that others write, is brought here before a run reads it."""
