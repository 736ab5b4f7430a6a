"""The graph of a run: declared, planned, run and drawn. It knows nothing of tickets.

`graph.py` declares, `execute.py` decides and drives, `plan.py` says what would run, `prefect_runner.py` is the one
file that knows Prefect's engine, `draw.py` draws.
"""
