"""Who is held out: owners of tickets, their places, what the split before decided, and the strata of the result."""
