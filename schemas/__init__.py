"""Specs, table contracts, references and errors. Imports no other package of this project."""
