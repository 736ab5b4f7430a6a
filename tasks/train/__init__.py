"""How a model is tuned: the training process, its checkpoints and its memory. Uses torch."""
