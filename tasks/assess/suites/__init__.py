"""Suites of general questions with answers that a pattern can check; one folder each."""
