"""Models: base models, chat format, adapters, generation. Uses torch."""
