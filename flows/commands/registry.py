"""`tunegate promote`, `approve`, `rollback`, `reconcile` and `history`: what a person decides about champions.

The ledger moves first, MLflow follows. When MLflow does not answer, the decision stands, a warning says `sync pending`
and the exit code stays 0: `tunegate reconcile` catches up.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.champion.approvals import answer
from flows.champion.mlflow_sync import reconcile as reconcile_all
from flows.champion.mlflow_sync import synchronise
from flows.commands.accept import login
from flows.commands.output import out, print_json, print_rows, talk
from flows.ledger.journal import FIRST_HASH
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.ledger.rows import ENTRIES, MOVES, EventRow
from flows.views.champion_files import missing_files
from flows.views.tick_report import TICK_COLUMNS, tick_json, tick_row
from flows.workspace.servers import client_environment, running
from flows.workspace.settings import Settings, load_settings
from schemas.errors import GateError, TunegateError
from schemas.load import load_file
from tasks.files import verify
from tasks.release.bundle import check_evaluated


def promote(
    *, pipeline: str, version: str, force: bool, reason: str, by: str | None, expect: str | None, config: Path,
    as_json: bool,
) -> int:  # fmt: skip
    """Make a candidate champion past the gate; the history says that it was forced, by whom and why.

    Raises:
        GateError: TG0621, `--force` is missing: without it the gate promotes; TG0620, another version than `expect` is
            champion.
        StorageError: the candidate's files are not those that were evaluated.
    """
    settings, ledger, name = _of(pipeline, config)
    if not force:
        raise GateError(
            "a promotion by hand skips the gate, and nothing was said to skip it",
            code="TG0621",
            where=pipeline,
            hint="--force --reason '...' does and is kept in the history; `tunegate approve RUN` lets in what waits",
        )
    current = ledger.champion(name)
    row = ledger.candidate(name, version) if version.isdecimal() else None
    if row is not None:
        check_evaluated(row.ref.bundle, row.ref.trained)
    expected = expect or (current.version if current else None)
    event = ledger.force(name, expected=expected, version=version, reason=reason, actor=by or login())
    late = synchronise(ledger, settings)
    verdict = f"; the gate had said {event.verdict}" if event.verdict not in ("", "PROMOTE") else ""
    return _tell(event, f"champion of {name} is v{event.to_version}, {event.action} by {event.actor}{verdict}",
                 late, as_json=as_json)  # fmt: skip


def approve(*, run_id: str, by: str, reject: bool, reason: str, expect: str | None, config: Path, as_json: bool) -> int:
    """Answer a candidate that waits: in the ledger, in MLflow, and in Prefect if its run is suspended there."""
    settings = load_settings(config)
    ledger = open_ledger(settings)
    row = ledger.run(run_id)
    done = answer(ledger, settings, row.run_id, approve=not reject, by=by.strip(), reason=reason, expected=expect)
    _end_in_prefect(row.prefect_run_id, settings, approve=not reject, by=by, reason=reason)
    event = done.event
    told = (
        f"v{event.to_version} of {event.name} was rejected by {event.actor}; the champion stays"
        if event.action == "reject"
        else f"champion of {event.name} is v{event.to_version}, {event.action} by {event.actor}"
    )
    return _tell(event, told, done.late, as_json=as_json)


def rollback(
    *, pipeline: str, reason: str, to: str | None, by: str | None, expect: str | None, config: Path, as_json: bool
) -> int:
    """Put an earlier champion back, in the ledger first, then in MLflow; no gate is asked, and a cooldown begins."""
    settings, ledger, name = _of(pipeline, config)
    _check_bundle(ledger, name, to)
    days = load_file(config).get(pipeline).registry.cooldown_days
    back = ledger.rollback(name, reason=reason, to=to, actor=by or login(), cooldown_days=days, expected=expect)
    event = next(event for event in reversed(ledger.history(name)) if event.action in MOVES)
    rest = f"; nobody is promoted without a person until {event.until}" if event.until else ""
    late = synchronise(ledger, settings)
    return _tell(event, f"champion of {name} is v{back.version} again{rest}", late, as_json=as_json)


def reconcile(*, config: Path, as_json: bool) -> int:
    """Bring MLflow up to date, aliases that others moved included; exit code 7 when it does not answer."""
    settings = load_settings(config)
    open_ledger(settings).check()
    told = reconcile_all(open_ledger(settings), settings)
    if told.late is not None:
        raise told.late
    if as_json:
        print_json({"told": told.n_told, "repaired": list(told.repaired)})
        return 0
    out().print(f"MLflow is up to date ({told.n_told} changes told)")
    for alias in told.repaired:
        talk().print(f"warning {alias} was elsewhere in MLflow: somebody moved it past the ledger", markup=False)
    return 0


def history(*, pipeline: str, verify_only: bool, config: Path, as_json: bool) -> int:
    """Every event of the name, oldest first; the ledger is checked before anything is shown, the champion's files too.

    Raises:
        StorageError: TG0580, the chain is broken; the first broken link is named. TG0580, another row was altered;
            TG0581, it is another ledger than before; TG0549, the champion's files are not those of its event.
    """
    _, ledger, name = _of(pipeline, config)
    whole = ledger.history()
    ledger.check()
    gone = missing_files(ledger, name)
    ticks = ledger.ticks(pipeline)
    head = whole[-1].hash if whole else FIRST_HASH
    events = [event for event in whole if event.name == name]
    if as_json:
        candidates = [
            {"version": row.ref.version, "verdict": row.verdict, "run_id": row.ref.run_id, "reason": row.reason}
            for row in ledger.candidates(name)
        ]
        marks = [asdict(mark) for mark in ledger.marked(name)]
        told = {"events": [_event(event) for event in events], "candidates": candidates, "marked": marks}
        shown = {**told, "ticks": [tick_json(row) for row in ticks]} if not verify_only else {}
        taken = [asdict(row) for row in ledger.acceptances()]
        print_json({"name": name, "whole": True, "n_events": len(whole), "head": head, "accepted": taken, **shown})
        return 0
    if not verify_only:
        rows = [{**_event(event), "bundle": event.bundle_digest[:12]} for event in events]
        print_rows(
            rows, ("at", "action", "from_version", "to_version", "verdict", "actor", "run_id", "bundle", "reason")
        )
        for event in events:
            if event.note:
                out().print(f"v{event.to_version} at {event.at}: {event.note}", markup=False, soft_wrap=True)
        for row in ledger.acceptances():
            how = "a new ledger was begun" if row.kind == "new" else "a ledger that was put back was accepted"
            out().print(f"{how} at {row.at} by {row.actor}: {row.reason}", markup=False, soft_wrap=True)
        if ticks:
            out().print()
            print_rows([tick_row(row) for row in ticks], TICK_COLUMNS)
        for mark in ledger.marked(name):
            out().print(f"\n{mark.told}; it does not become champion again", markup=False, soft_wrap=True)
    if gone:
        talk().print(f"warning the champion's files are not there: {gone}", markup=False, soft_wrap=True)
    out().print(f"{len(whole)} events, each with its hash; the last is {head}")
    return 0


def _of(pipeline: str, config: Path) -> tuple[Settings, Ledger, str]:
    settings = load_settings(config)
    return settings, open_ledger(settings), load_file(config).get(pipeline).registry.name


def _event(event: EventRow) -> dict[str, Any]:
    return {**asdict(event), "forced": event.action == "force"}


def _tell(event: EventRow, sentence: str, late: TunegateError | None, *, as_json: bool) -> int:
    if late is not None:
        talk().print(f"warning MLflow sync pending: {late.message}; `tunegate reconcile` later", markup=False)
    if as_json:
        champion = event.to_version if event.action in MOVES else event.from_version
        print_json(
            {"name": event.name, "champion": champion, "event": _event(event), "mlflow_pending": late is not None}
        )
    else:
        out().print(sentence, markup=False)
    return 0


def _check_bundle(ledger: Ledger, name: str, to: str | None) -> None:
    """Refuse to go back to a damaged bundle. Whether the version may be gone back to is the ledger's to say.

    Raises:
        StorageError: a file of the earlier champion's bundle is missing or altered.
    """
    entered = {event.to_version for event in ledger.history(name) if event.action in ENTRIES}
    target = to if to is not None else ledger.previous(name)
    row = ledger.candidate(name, target) if target is not None and target in entered else None
    if row is not None:
        verify(row.ref.bundle.root)


def _end_in_prefect(flow_run: str | None, settings: Settings, *, approve: bool, by: str, reason: str) -> None:
    """Let the suspended flow run go on, so that its page asks nobody any more; it finds the answer in the ledger."""
    server = next((server for server in running(settings.home) if server.kind == "prefect"), None)
    if flow_run is None or (server is None and settings.prefect_api_url is None):
        return
    import os
    from uuid import UUID

    os.environ.update(client_environment(server if settings.prefect_api_url is None else None))
    from prefect.exceptions import NotPausedError
    from prefect.flow_runs import resume_flow_run

    try:
        resume_flow_run(UUID(flow_run), run_input={"approve": approve, "by": by, "reason": reason})
    except NotPausedError:
        return
    except Exception as error:  # the answer stands, whatever Prefect says to it
        told = f"{type(error).__name__}; resume or cancel it there"
        talk().print(f"note the run in Prefect stays suspended: {told}", markup=False)
