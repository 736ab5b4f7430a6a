"""Loops over arrays of hashes and bytes, compiled by `tasks/kernels.py`; no file here imports from another."""
