"""Kinds of Acme's own for tunegate."""
