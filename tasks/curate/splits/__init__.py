"""Who is held out: owners of tickets, their places, the previous split's decisions, and the strata of the result."""
