"""Loops over arrays in machine code: written in Python, compiled once by numba, loaded without it."""
