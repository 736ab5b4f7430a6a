"""One run: open and close it, plan it, place a stage on another machine, show it on the console, reproduce it.

`open_run.py` opens a run of one pipeline, in one or several processes.
"""
