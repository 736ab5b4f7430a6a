"""Reading prompts and appending tokens: the fast way for Llama-shaped models, and any model's own forward."""
