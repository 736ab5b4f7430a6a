"""Help articles of `evaluate.corpus`: read, cut into passages, searched. `build` has the steps, `search` the index."""
