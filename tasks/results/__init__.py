"""Per-item results that were made elsewhere: files of evaluation tools, and rows of one's own."""
