"""Loops over arrays of hashes and bytes, compiled by `tasks/kernels/`."""
