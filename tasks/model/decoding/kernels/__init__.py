"""Loops over bfloat16 numbers of one decoding step, compiled by `tasks/kernels/`."""
