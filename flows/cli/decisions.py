"""What a person decides about champions, and the history of all decisions, those of ticks too.

The ledger moves first, MLflow and Prefect follow. When MLflow does not answer, the decision is kept, a warning says
`sync pending` and the exit code stays 0: `tunegate ops reconcile` catches up.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.cli.output import note, out, print_json, print_rows, warn
from flows.ledger.journal import FIRST_HASH
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import ENTRIES, MOVES, EventRow
from flows.ledger.ticks import Mark, TickRow
from flows.views.champion_files import missing_files
from flows.workspace.servers import client_environment, running
from flows.workspace.settings import Settings, load_settings
from schemas.counted import counted
from schemas.errors import TunegateError
from schemas.load import load_file
from tasks.storage.files import verify

HISTORY_COLUMNS = ("at", "action", "from_version", "to_version", "verdict", "actor", "run_id", "bundle", "reason")


def registry_of(pipeline: str, config: Path) -> tuple[Settings, Ledger, str]:
    """The settings, the ledger, and the name under which the pipeline registers its models."""
    settings = load_settings(config)
    return settings, open_ledger(settings), load_file(config).get(pipeline).registry.name


def event_json(event: EventRow) -> dict[str, Any]:
    """As `--json` prints it."""
    return {**asdict(event), "forced": event.action == "force"}


def report_decision(event: EventRow, sentence: str, late: TunegateError | None, *, as_json: bool) -> int:
    """Print what was decided, and on stderr why MLflow does not show it yet; returns exit code 0."""
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    if as_json:
        champion = event.to_version if event.action in MOVES else event.from_version
        print_json(
            {"name": event.name, "champion": champion, "event": event_json(event), "mlflow_pending": late is not None}
        )
    else:
        out().print(sentence, markup=False)
    return 0


def check_bundle(ledger: Ledger, name: str, to: str | None) -> None:
    """Refuse to go back to a damaged bundle. Whether the version may be gone back to is the ledger's to say.

    Raises:
        StorageError: a file of the earlier champion's bundle is missing or altered.
    """
    entered = {event.to_version for event in ledger.history(name) if event.action in ENTRIES}
    target = to if to is not None else ledger.previous(name)
    row = ledger.candidate(name, target) if target is not None and target in entered else None
    if row is not None:
        verify(row.ref.bundle.root)


def resume_in_prefect(flow_run: str | None, settings: Settings, *, approve: bool, by: str, reason: str) -> None:
    """Resume the suspended flow run, so that its page does not ask any more; it finds the answer in the ledger."""
    server = next((server for server in running(settings.home) if server.kind == "prefect"), None)
    if flow_run is None or (server is None and settings.prefect_api_url is None):
        return
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(server if settings.prefect_api_url is None else None))
    from prefect.exceptions import NotPausedError
    from prefect.flow_runs import resume_flow_run

    try:
        resume_flow_run(UUID(flow_run), run_input={"approve": approve, "by": by, "reason": reason})
    except NotPausedError:
        return
    except Exception as error:  # the answer is in the ledger, whatever Prefect says to it
        note(f"the run in Prefect stays suspended: {type(error).__name__}; resume or cancel it there")


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
    out().print(f"{counted(found.n_events, 'event')}, each with its hash; the last is {found.head}")


def _print_events(found: History) -> None:
    rows = [{**event_json(event), "bundle": event.bundle_digest[:12]} for event in found.events]
    print_rows(rows, HISTORY_COLUMNS)
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


def tick_json(row: TickRow) -> dict[str, Any]:
    """Return the tick with all its figures."""
    head = {"run_id": row.run_id, "at": row.at, "cause": row.cause, "scheduled_for": row.scheduled_for}
    return {**head, **row.decision.model_dump(mode="json")}


def tick_row(row: TickRow) -> dict[str, Any]:
    decision, found = row.decision, row.decision.arrivals
    drifted = [shift.kind for shift in decision.shifts if shift.drifted]
    return {
        "at": row.at,
        "cause": row.cause,
        "decision": "RUN" if decision.run else "SKIP",
        "code": decision.code,
        "new": found.n_new if found else "",
        "edited": found.n_edited if found else "",
        "needed": "" if decision.n_needed is None else decision.n_needed,
        "held_out": found.n_held_out if found else "",
        "fresh": found.n_fresh_held_out if found else "",
        "drift": ", ".join(drifted) or ("none" if decision.shifts else ""),
        "run_id": row.run_id,
    }


def tick_lines(row: TickRow | None, mark: Mark | None) -> list[str]:
    """Return what started the run and which tickets it used; nothing for a run without a tick."""
    lines = []
    if row is not None:
        lines.append(f"tick ({row.cause}): {'RUN' if row.decision.run else 'SKIP'}, {row.decision.reason}")
        lines += [
            f"  {shift.kind}: distance {shift.distance:.3f}, limit {shift.limit:g}, chance {shift.p_chance:.4f}"
            for shift in row.decision.shifts
        ]
    if mark is not None:
        lines.append(
            f"snapshot {mark.snapshot_id}: {counted(mark.n_tickets, 'ticket')} up to {mark.watermark or 'no time'}"
        )
    return lines
