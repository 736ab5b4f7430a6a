"""A first pipelines.yaml: proposed from a file of tickets, or translated from another trainer's settings."""
