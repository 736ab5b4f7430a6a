"""The training forward for Llama-shaped decoders on a CPU: exact, with fewer passes over memory. Uses torch."""
