"""Every event of a registered model's name, for people and as JSON; the ledger is checked before anything is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.cli.decisions import event_json, registry_of
from flows.cli.output import out, print_rows, warn
from flows.ledger.journal import FIRST_HASH
from flows.ledger.ledger import Ledger
from flows.ledger.rows import EventRow
from flows.ledger.ticks import TickRow
from flows.views.champion_files import missing_files
from flows.views.tick_report import tick_json, tick_row

COLUMNS = ("at", "action", "from_version", "to_version", "verdict", "actor", "run_id", "bundle", "reason")


@dataclass(frozen=True)
class History:
    """What the ledger knows of a name."""

    name: str
    ledger: Ledger
    events: Sequence[EventRow]
    ticks: Sequence[TickRow]
    n_events: int
    """Of all names: the chain of hashes is one."""
    head: str
    """Hash of the last event."""
    missing: str | None
    """Which of the champion's files are gone."""


def read_history(pipeline: str, config: Path) -> History:
    """Check the ledger and the champion's files, then read the events of the pipeline's name, oldest first.

    Raises:
        StorageError: TG0580, the chain is broken; the first broken link is named. TG0580, another row was altered;
            TG0581, it is another ledger than before; TG0549, the champion's files are not those of its event.
    """
    _, ledger, name = registry_of(pipeline, config)
    whole = ledger.history()
    ledger.check()
    return History(
        name=name,
        ledger=ledger,
        missing=missing_files(ledger, name),
        ticks=ledger.ticks(pipeline),
        events=[event for event in whole if event.name == name],
        n_events=len(whole),
        head=whole[-1].hash if whole else FIRST_HASH,
    )


def history_json(found: History, *, verify_only: bool) -> dict[str, Any]:
    """As `tunegate model history --json` prints it; with `verify_only` without the events."""
    ledger, name = found.ledger, found.name
    shown: dict[str, Any] = {}
    if not verify_only:
        shown = {
            "events": [event_json(event) for event in found.events],
            "candidates": [
                {"version": row.ref.version, "verdict": row.verdict, "run_id": row.ref.run_id, "reason": row.reason}
                for row in ledger.candidates(name)
            ],
            "marked": [asdict(mark) for mark in ledger.marked(name)],
            "ticks": [tick_json(row) for row in found.ticks],
        }
    accepted = [asdict(row) for row in ledger.acceptances()]
    return {
        "name": name, "whole": True, "n_events": found.n_events, "head": found.head, "accepted": accepted, **shown,
    }  # fmt: skip


def print_history(found: History, *, verify_only: bool) -> None:
    """The events, the ticks and the marks; with `verify_only` how many there are."""
    if not verify_only:
        _print_events(found)
    if found.missing:
        warn(f"the champion's files are not there: {found.missing}")
    out().print(f"{found.n_events} events, each with its hash; the last is {found.head}")


def _print_events(found: History) -> None:
    rows = [{**event_json(event), "bundle": event.bundle_digest[:12]} for event in found.events]
    print_rows(rows, COLUMNS)
    for event in found.events:
        if event.note:
            out().print(f"v{event.to_version} at {event.at}: {event.note}", markup=False, soft_wrap=True)
    for row in found.ledger.acceptances():
        how = "a new ledger was begun" if row.kind == "new" else "a restored ledger was accepted"
        out().print(f"{how} at {row.at} by {row.actor}: {row.reason}", markup=False, soft_wrap=True)
    if found.ticks:
        out().print()
        print_rows([tick_row(row) for row in found.ticks])
    for mark in found.ledger.marked(found.name):
        out().print(f"\n{mark.summary}; it does not become champion again", markup=False, soft_wrap=True)
