"""A run from the command line: find or start a Prefect server, run the flow, print the verdict."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flows.build import STAGES
from flows.champion.mlflow_sync import reconcile, synchronise
from flows.cli.exit_codes import TERMINATED
from flows.cli.options import login
from flows.cli.output import print_json, talk, warn
from flows.context.as_of import check_as_of
from flows.ledger.opened import open_ledger
from flows.run.console import Notes, Screen, print_decision, print_verdict
from flows.workspace.servers import Server, client_environment, ensure_prefect
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError, DataError, ServiceError
from schemas.load import load_file

if TYPE_CHECKING:
    from flows.pipeline import Stage
    from schemas.ticks import Cause


TOO_MANY_OR_FEW = ("TG0220", "TG0221")
"""Errors about the number of rows: too many are quarantined, or too few are left."""


@dataclass(frozen=True)
class RunRequest:
    """What is to be run.

    Attributes:
        again: Run even if nothing changed.
        until: The last stage.
        wait_s: How long to wait for another run of the pipeline.
        require_mlflow: Exit code 7 instead of 0 when MLflow is not up to date.
        cause: Run only if it is worth it, as a tick of this cause; null runs in any case.
        new_ledger: The ledger is lost: begin a new one.
        accept_ledger: Continue with a ledger that was restored.
        reason: Why the ledger is another.
        as_of: Only tickets created by the end of this day, UTC; moves no alias.
        given: `PATH=VALUE`, settings of this run alone.
        server: Start a Prefect server if none is there; without one the run uses PREFECT_API_URL, or no Prefect.
    """

    pipeline: str
    config: Path
    again: bool = False
    until: str = "release"
    wait_s: float = 0.0
    require_mlflow: bool = False
    cause: Cause | None = None
    new_ledger: bool = False
    accept_ledger: bool = False
    reason: str = ""
    as_of: str | None = None
    given: tuple[str, ...] = ()
    as_json: bool = False
    server: bool = True


def run_pipeline(request: RunRequest) -> int:
    """Run the pipeline and return the exit code of its verdict.

    Raises:
        ConfigError: TG0103, no such stage, or no such day; TG0139, another ledger is accepted without a reason.
        StorageError: TG0580 the ledger was altered, TG0581 there is none to accept, or one where a new one was asked
            for.
    """
    config = request.config
    if request.until not in STAGES:
        raise ConfigError(f"--until {request.until!r} is no stage; allowed: {', '.join(STAGES)}", code="TG0103")
    as_of = None if request.as_of is None else check_as_of(request.as_of)
    loaded = load_file(config, settings=request.given, only=request.pipeline)
    spec, settings = loaded.get(request.pipeline), load_settings(config)
    if request.given and any(spec.place.pool_of(stage) for stage in STAGES):
        raise ConfigError(
            "a stage that runs on a work pool reads pipelines.yaml itself, so it cannot have other settings",
            code="TG0139", where="--set", hint="change the file, or run without `place`",
        )  # fmt: skip
    console, begun = talk(), time.monotonic()
    if request.new_ledger or request.accept_ledger:
        _accept_ledger(settings, new=request.new_ledger, reason=request.reason)
    in_prefect = request.server or bool(os.environ.get("PREFECT_API_URL"))
    server, silent = _prefect(settings.home) if in_prefect else (None, None)
    in_prefect = in_prefect and silent is None
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(server))
    from flows.cli.text.faults import print_faults
    from flows.graph.execute import RunEndedError
    from flows.pipeline import Request, run_here
    from flows.run.live_curves import LiveCurves
    from flows.schedule.ticks import Tick
    from flows.views.report import report_folder

    screen = Screen(console)
    notes = Notes(screen)
    logging.getLogger("tunegate").addHandler(notes)
    where = "without Prefect" if not in_prefect else server.url if server else os.environ["PREFECT_API_URL"]
    console.print(f"[bold]{request.pipeline}[/bold]", f"[dim]{where}[/dim]")
    if request.given:
        screen.noted(f"settings of this run alone: {', '.join(request.given)}")
    if silent is not None:
        screen.noted(f"{silent.code}: {silent.message} ({silent.where}); the run continues without Prefect")
    try:
        outcome, decision = run_here(
            spec,
            settings,
            root=config.resolve().parent,
            request=Request(
                request.again,
                cast("Stage", request.until),
                tick=None if request.cause is None else Tick(request.cause),
                wait_s=request.wait_s,
                as_of=as_of,
                given=request.given,
            ),
            listeners=lambda context: (screen, LiveCurves(context)),
            in_prefect=in_prefect,
        )
    except DataError as error:
        if error.code in TOO_MANY_OR_FEW:
            print_faults(settings, request.pipeline)
        raise
    except RunEndedError as ended:
        console.print(f"[bold]CANCELLED[/bold] {ended}", highlight=False)
        return TERMINATED
    finally:
        screen.close()
        logging.getLogger("tunegate").removeHandler(notes)
    if decision is not None:
        print_decision(console, decision)
    champion = f"champion: version {outcome.champion}" if outcome.champion else "champion: none"
    details = [
        f"{champion}   run: {outcome.run_id}   {time.monotonic() - begun:.0f} s",
        f"tunegate show {outcome.run_id}",
    ]
    page = report_folder(settings.home, outcome.run_id) / "report.html"
    details += [str(page)] if page.is_file() else []
    # Above, every rule that is not met has given its reason already.
    is_printed = decision is not None and decision.verdict == outcome.verdict
    sentence = outcome.reason.split(";")[0] if is_printed else outcome.reason
    print_verdict(console, outcome.verdict, sentence, details=details)
    if request.require_mlflow:
        synchronise(open_ledger(settings), settings)
    pending = len(open_ledger(settings).pending_projections())
    code = outcome.exit_code or (7 if pending and request.require_mlflow else 0)
    if request.as_json:
        print_json(
            {**outcome.model_dump(), "as_of": as_of, "set": request.given, "exit_code": code, "mlflow_pending": pending}
        )
    return code


def _prefect(home: Path) -> tuple[Server | None, ServiceError | None]:
    """The local server, if it is that one, and why Prefect is silent: what decides a run needs none."""
    try:
        return ensure_prefect(home), None
    except ServiceError as error:
        return None, error


def _accept_ledger(settings: Settings, *, new: bool, reason: str) -> None:
    """Enter who accepts another ledger than before, and why; MLflow follows it, if it answers."""
    ledger = open_ledger(settings)
    row = ledger.accept("new" if new else "restored", reason=reason, actor=login())
    done = "a new ledger begins" if new else "the ledger that lies here is accepted"
    talk().print(f"{done}: {row.reason} ({row.actor})", markup=False)
    late = reconcile(ledger, settings).late
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
