"""What a tick found and decided; the ledger keeps both, with the numbers."""

from typing import Literal

from schemas.spec import Frozen

Cause = Literal["schedule", "event", "person"]
"""What caused the tick: the clock, an event, or `tunegate ops tick`."""
Code = Literal[
    "missed", "superseded", "overlap", "unchanged", "cooldown", "held_out", "fresh", "few", "tried", "first", "enough",
    "drift", "waited", "forgotten",
]  # fmt: skip
"""`missed` to `tried` are SKIP; `first`, `enough`, `drift` (fewer are enough), `waited` and `forgotten` (the champion
learned from a customer who was forgotten since) are RUN."""


class Arrivals(Frozen):
    """Curated tickets, compared with those that the last candidate which met its rules knew."""

    snapshot_id: str
    """The state of the tickets, as in `warehouse.duckdb`."""
    n_curated: int
    n_new: int
    """Tickets that it did not know; a newer duplicate of a known one is not new. All, if there was none."""
    n_edited: int
    """Known tickets with other words or labels."""
    n_held_out: int
    n_fresh_held_out: int
    """Held-out tickets that were not held out at the last verdict."""
    n_changed: int | None = None
    """New, edited and gone tickets since the last verdict, if that was HOLD or BLOCK; else null."""


class Shift(Frozen):
    """One kind of change between the new tickets and the known ones."""

    kind: Literal["routing", "length", "vocabulary"]
    distance: float
    """0-1."""
    limit: float
    p_chance: float
    """Probability of a change this large by chance."""
    drifted: bool


class Decision(Frozen):
    """What the tick decided."""

    run: bool
    code: Code
    reason: str
    expected: str | None = None
    """Of a SKIP: when a tick is expected to run, UTC, ISO 8601; null if unknown."""
    arrivals: Arrivals | None = None
    """Null if it was decided before reading the tickets."""
    shifts: tuple[Shift, ...] = ()
    n_needed: int | None = None
    """New tickets that were needed."""
    n_held_out_needed: int | None = None
