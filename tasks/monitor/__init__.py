"""When to retrain: new tickets, drift, what agents did with suggestions, and the decision of a tick."""
