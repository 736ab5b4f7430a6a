"""Reads only: reports, comparisons, costs, advice and metrics from what is recorded."""
