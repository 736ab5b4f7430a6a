"""Parts of the scores: character classes, the language model, and replies that answer nothing."""
