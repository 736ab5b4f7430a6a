"""What a run works with: its settings and results, the run before it, the champion, its sources, and who is notified.

`graph_context.py` has what a pipeline's graph depends on; `run_context.py` what a run in progress knows.
"""
