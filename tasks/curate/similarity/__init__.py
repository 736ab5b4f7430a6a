"""Similar texts: words, shingles, the exact join, and how much of one text another contains."""
