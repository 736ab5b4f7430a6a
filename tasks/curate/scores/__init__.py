"""What the quality scores are counted from: characters, words, and replies that answer nothing."""
