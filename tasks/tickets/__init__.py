"""What several rooms do with a ticket: the order in which it is taken, its prompt, its faults, and how it is shown."""
