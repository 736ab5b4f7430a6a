"""The curation card: its numbers, their drift since the last one, and its page."""
