"""Scheduled and triggered runs: when one is due, whether it is worth doing, and who approves what it made."""
