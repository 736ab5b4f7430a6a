"""Run the proposed curation steps on the sampled tickets, by the functions that a run calls.

So what `init` counts is what the steps do. A step that takes more than a fifth is not proposed, or with fewer settings;
its count and places become a comment. Only counts, codes and line numbers leave this module, never a text.
"""

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
                tried, made = _try(form, left, _folder(folders))
                found.append(tried)
                if tried.is_proposed:
                    left = made
                    break
        return Tried(tuple(found), read_rows(left.tickets))


def merge_copies(tickets: pa.Table) -> pa.Table:
    """The tickets without exact and near duplicates, as the usual step `dedup` leaves them."""
    return try_steps(tickets, TableSpec(required=("ticket_id", "body")), [[Declared({"uses": "dedup"}, "")]]).tickets


def _folder(folders: Iterator[Path]) -> Path:
    folder = next(folders)
    folder.mkdir()
    return folder


def _try(form: Declared, left: TicketTable, out: Path) -> tuple[TriedStep, TicketTable]:
    # Pseudonyms need a key that the user makes after `init`; they change no count.
    settings = {name: value for name, value in form.step.items() if name != "pseudonymise"}
    step = CURATION_STEPS[settings["uses"]].model_validate(settings)
    kind = kind_of(step)
    made: TicketTable = kind.run(out, **kind.arguments_of((step,), {"tickets": lambda: left}, root=out))
    n_in, n_out = left.rows.n_out, made.rows.n_out
    fits = step.uses not in _CHOOSES or n_in - n_out <= MOST_TAKEN * n_in
    notes = [each for each in (form.note, _what_is_taken(made, n_in)) if each]
    return TriedStep(form.step, "; ".join(notes), fits, n_in, n_out), made


def _what_is_taken(made: TicketTable, n_in: int) -> str:
    """Counts by code, with the first lines; empty if nothing is taken."""
    removed = read_rows(made.removed).select(["code", "source_line"]).to_pydict()
    counts = ", ".join(f"{code} {n:,}" for code, n in Counter(removed["code"]).most_common())
    lines = ", ".join(map(str, sorted(removed["source_line"])[:_N_EXAMPLES]))
    return f"takes {n_in - made.rows.n_out:,} of {n_in:,} sampled: {counts} (lines {lines})" if counts else ""
