"""What the nodes of the graph change outside it: published tables, the index of customers, notes, pages.

Each effect is called in every run, so all of them may be repeated.
"""
