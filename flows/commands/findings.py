"""One line of `tunegate doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: str
    """`ok`, `warn` or `bad`."""
    told: str
    fix: str = ""
