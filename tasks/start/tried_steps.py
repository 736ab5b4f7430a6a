"""Run the proposed curation steps on the sampled tickets, by the functions that a run calls.

So what `init` counts is what the steps do. A step that takes more than a fifth is not proposed, or with fewer settings;
its count and places become a comment. Only counts, codes and line numbers leave this module, never a text. Called by
`tasks/start/tickets.py`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import tasks.curate.steps  # noqa: F401  registers the kinds of steps
from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import TableSpec
from schemas.curation_steps import CURATION_STEPS
from tasks.curate.rows import read_rows, write_removed, write_tickets
from tasks.curate.step import kind_of
from tasks.curate.validate import list_invalid

MOST_TAKEN = 0.2
"""Share of the tickets above which a step that chooses by content is not proposed."""
_CHOOSES = frozenset({"language", "length", "quality"})
"""Steps that a pipeline can do without. The others remove what cannot be learned, or keep one of several."""
_N_EXAMPLES = 3


@dataclass(frozen=True)
class Declared:
    """A curation step as in pipelines.yaml."""

    step: dict[str, Any]
    note: str
    """The counts that support it."""


@dataclass(frozen=True)
class TriedStep:
    """What a step did with the sample."""

    step: dict[str, Any]
    note: str
    is_proposed: bool
    """False for one that takes too much: it is written as a comment."""
    n_in: int
    n_out: int

    @property
    def name(self) -> str:
        """Its name in the funnel; of a rule its own."""
        return str(self.step.get("name", self.step["uses"]))

    @property
    def n_taken(self) -> int:
        """Tickets that it takes out."""
        return self.n_in - self.n_out


@dataclass(frozen=True)
class Tried:
    """All steps, in order, and the tickets that they leave."""

    steps: tuple[TriedStep, ...]
    tickets: pa.Table


def try_steps(tickets: pa.Table, table: TableSpec, declared: Sequence[Sequence[Declared]]) -> Tried:
    """Run the steps one after the other on these tickets.

    Args:
        tickets: Of `schemas.tables.TICKETS`, before validation.
        table: What a valid ticket is.
        declared: Each step in one or several forms; the first that does not take too much is proposed.
    """
    with tempfile.TemporaryDirectory(prefix="tunegate-init-") as aside:
        folders = (Path(aside) / f"{number}" for number in range(1_000))
        first = _folder(folders)
        write_tickets(tickets, first)
        write_removed([], first)
        given = TicketTable(root=first, rows=RowCounts(n_in=len(tickets), n_out=len(tickets)))
        left = list_invalid(given, table, _folder(folders))
        found: list[TriedStep] = []
        for forms in declared:
            for form in forms:
                made = _run(form, left, _folder(folders))
                taken = left.rows.n_out - made.rows.n_out
                chooses = form.step["uses"] in _CHOOSES and taken > MOST_TAKEN * left.rows.n_out
                found.append(
                    TriedStep(form.step, _note(form, left, made), not chooses, left.rows.n_out, made.rows.n_out)
                )
                if not chooses:
                    left = made
                    break
        return Tried(tuple(found), read_rows(left.tickets))


def _folder(folders: Iterator[Path]) -> Path:
    folder = next(folders)
    folder.mkdir()
    return folder


def _run(form: Declared, left: TicketTable, out: Path) -> TicketTable:
    # Pseudonyms need a key that the user makes after `init`; they change no count.
    settings = {name: value for name, value in form.step.items() if name != "pseudonymise"}
    step = CURATION_STEPS[settings["uses"]].model_validate(settings)
    kind = kind_of(step)
    return kind.run(out, **kind.arguments_of((step,), {"tickets": lambda: left}, root=out))


def _note(form: Declared, left: TicketTable, made: TicketTable) -> str:
    taken = left.rows.n_out - made.rows.n_out
    if not taken:
        return form.note
    removed = read_rows(made.removed).select(["code", "source_line"]).to_pylist()
    codes = Counter(row["code"] for row in removed)
    counts = ", ".join(f"{code} {n:,}" for code, n in codes.most_common())
    lines = ", ".join(
        str(row["source_line"]) for row in sorted(removed, key=lambda row: row["source_line"])[:_N_EXAMPLES]
    )
    took = f"takes {taken:,} of {left.rows.n_out:,} sampled: {counts} (lines {lines})"
    return f"{form.note}; {took}" if form.note else took
