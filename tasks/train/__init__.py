"""Fine-tuning: the training process, its checkpoints and its memory. Uses torch."""
