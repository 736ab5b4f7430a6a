"""What a run would do, before it: its steps, size and pace, the power of its gate, its calls, memory and budget."""
