"""The parts of a message: greeting, signature and quoted reply."""
