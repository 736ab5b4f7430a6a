"""A customer is forgotten: what holds their tickets, what becomes of it, and the proof."""
