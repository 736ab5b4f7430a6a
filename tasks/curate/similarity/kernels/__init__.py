"""Loops over arrays of hashes and bytes, compiled by `tasks/compute/kernels.py`; no file here imports from another."""
