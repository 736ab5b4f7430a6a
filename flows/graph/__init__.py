"""The graph of a run: declare, plan, run and draw it. Knows nothing about tickets.

`graph.py` declares it, `execute.py` decides and runs, `plan.py` predicts what would run, `prefect_runner.py` runs
its nodes as Prefect's tasks, `draw.py` draws.
"""
