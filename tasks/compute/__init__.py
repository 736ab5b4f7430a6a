"""Processors and processes: threads, child processes, memory limits, compiled loops, and parts spread over machines."""
