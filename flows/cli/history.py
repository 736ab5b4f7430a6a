"""`tunegate model champion` and `model history`: all decisions about a champion, those of persons and of ticks."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextTable, warn
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import EventRow
from flows.ledger.ticks import Mark, TickRow
from flows.views.champion_files import missing_files
from flows.workspace.settings import Settings, load_settings
from schemas.artifacts import ChampionRef, CheckedRef
from schemas.counted import counted
from schemas.load import load_file
from schemas.pipeline import RegisterSpec

CHAMPION_COLUMNS = ("at", "action", "from_version", "to_version", "verdict", "actor", "reason")
HISTORY_COLUMNS = ("at", "action", "from_version", "to_version", "verdict", "actor", "run_id", "bundle", "reason")


@command(example="tunegate model champion support-replies")
def champion(pipeline: Pipeline, config: Config = CONFIG) -> Result:
    """Show the champion and how it came to be."""
    _, ledger, name = registry_of(pipeline, config)
    current = ledger.current(name)
    events = [asdict(event) for event in ledger.history(name)]
    marks = {mark.version: mark.summary for mark in ledger.marked(name)}

    def text() -> Iterator[Any]:
        if current is None:
            yield f"{name} has no champion"
            return
        if isinstance(current, CheckedRef):
            kind = f"{counted(current.results.n_items, 'result')} of {current.results.name}, of {current.model.of}"
        else:
            kind = f"{current.trained.method}, {current.trained.n_trainable:,} trained parameters"
        yield f"{name} v{current.version} since {current.promoted_at}: {kind}, run {current.run_id}"
        yield f"{current.files.root}\n"
        if isinstance(current, ChampionRef) and current.certificate is not None:
            yield f"route or review: {current.certificate.sentence}\n"
        if current.version in marks:
            yield f"{marks[current.version]}; a retrain is ordered\n"
        yield TextTable(events, CHAMPION_COLUMNS)

    shown = current and current.model_dump(mode="json")
    return Result({"name": name, "champion": shown, "history": events, "marked": marks}, text())


@command(example="tunegate model history support-replies --verify")
def history(
    pipeline: Pipeline,
    verify: Annotated[bool, typer.Option("--verify", help="Only check the ledger.")] = False,
    config: Config = CONFIG,
) -> Result:
    """Show every decision about the champion, and check the ledger.

    Who, why, which digests, forced or not, oldest first. Every row of the ledger is compared with its journal, and the
    champion's files are checked, before anything is shown.
    """
    _, ledger, name = registry_of(pipeline, config)
    ledger.check()
    missing = missing_files(ledger, name)
    events, head = ledger.history(name), ledger.last_hash()
    ticks, marked, accepted = ledger.ticks(pipeline), ledger.marked(name), ledger.acceptances()

    def text() -> Iterator[Any]:
        if not verify:
            yield TextTable(
                [{**event_json(event), "bundle": event.bundle_digest[:12]} for event in events], HISTORY_COLUMNS
            )
            yield from (f"v{event.to_version} at {event.at}: {event.note}" for event in events if event.note)
            for row in accepted:
                how = "a new ledger was begun" if row.kind == "new" else "a restored ledger was accepted"
                yield f"{how} at {row.at} by {row.actor}: {row.reason}"
            if ticks:
                yield ""
                yield TextTable([_tick_row(row) for row in ticks])
            yield from (f"\n{mark.summary}; it does not become champion again" for mark in marked)
        if missing:
            warn(f"the champion's files are not there: {missing}")
        yield f"{counted(len(events), 'event')}; the ledger is as it was written, and its last hash is {head}"

    data: dict[str, Any] = {"name": name, "whole": True, "n_events": len(events), "head": head}
    data["accepted"] = [asdict(row) for row in accepted]
    if not verify:
        data["events"] = [event_json(event) for event in events]
        data["candidates"] = [
            {"version": row.ref.version, "verdict": row.verdict, "run_id": row.ref.run_id, "reason": row.reason}
            for row in ledger.versions(name)
        ]
        data["marked"] = [asdict(mark) for mark in marked]
        data["ticks"] = [tick_json(row) for row in ticks]
    return Result(data, text())


def registry_of(pipeline: str, config: Path) -> tuple[Settings, Ledger, str]:
    """The settings, the ledger, and the name under which the pipeline registers its models.

    A name of results from files (`tunegate gate check NAME`) is itself, and needs no pipelines.yaml.
    """
    settings = load_settings(config)
    ledger = open_ledger(settings)
    return settings, ledger, register_of(pipeline, config, ledger).name


def register_of(pipeline: str, config: Path, ledger: Ledger) -> RegisterSpec:
    """How the pipeline registers its models; for a name of results from files, the defaults."""
    if ledger.is_checked(pipeline):
        return RegisterSpec(name=pipeline)
    return load_file(config).get(pipeline).registry


def event_json(event: EventRow) -> dict[str, Any]:
    """As `--json` prints it."""
    return {**asdict(event), "forced": event.action == "force"}


def tick_json(row: TickRow) -> dict[str, Any]:
    """Return the tick with all its figures."""
    head = {"run_id": row.run_id, "at": row.at, "cause": row.cause, "scheduled_for": row.scheduled_for}
    return {**head, **row.decision.model_dump(mode="json")}


def _tick_row(row: TickRow) -> dict[str, Any]:
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
        lines += [f"  {warning}" for warning in row.decision.warnings]
    if mark is not None:
        lines.append(
            f"snapshot {mark.snapshot_id}: {counted(mark.n_tickets, 'ticket')} up to {mark.watermark or 'no time'}"
        )
    return lines
