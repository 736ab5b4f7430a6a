"""Is it time to train? New tickets, drift, what agents did with suggestions, and the decision of a tick."""
