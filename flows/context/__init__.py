"""What a run works with: its settings and results, the previous run, the champion, its sources and its listeners.

`graph_context.py` has what a pipeline's graph depends on; `run_context.py` the state of a run in progress.
"""
