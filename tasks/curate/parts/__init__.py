"""Steps of curation cut into independent parts, for a `Spread`. Imports no ray."""
