"""One run: opened and closed, planned, placed on another machine, shown on the console, repeated.

`open_run.py` opens a run of one pipeline, in one process or in many.
"""
