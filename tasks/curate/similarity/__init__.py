"""Which texts are alike: words, shingles, the exact join, and what one text holds of another."""
