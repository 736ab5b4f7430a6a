"""What a run leaves for readers besides the ledger: its tables, the picture of its graph, and what its steps took."""
