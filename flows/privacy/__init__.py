"""Forget a customer: find what holds their tickets, remove it, and certify that."""
