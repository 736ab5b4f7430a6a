"""What a model is and says: base models, chat format, adapters, generation. Uses torch."""
