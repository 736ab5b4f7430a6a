"""Planted regressions through a whole run: what spoils a candidate, and which part of the gate must say so."""
