"""Read-only views of what is recorded: reports, comparisons, costs, advice and metrics."""
