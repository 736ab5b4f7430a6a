"""Scheduled and triggered runs: when one is due, whether it is worth running, and approval of its candidate."""
