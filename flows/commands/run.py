"""`tunegate run`: makes sure of a Prefect server, then runs the flow and tells the verdict."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flows.build import STAGES
from flows.commands.accept import accept_by_hand
from flows.commands.output import print_json, talk
from flows.ledger.opened import open_ledger
from flows.run.console import Notes, Screen, print_decision, print_verdict
from flows.workspace.servers import Server, client_environment, ensure_prefect
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError, ServiceError
from schemas.load import load_file

TERMINATED = 143
"""As after SIGTERM: the run was ended from outside."""

if TYPE_CHECKING:
    from flows.pipeline import Stage
    from schemas.ticks import Cause


def run(
    *,
    pipeline: str,
    config: Path,
    again: bool,
    until: str,
    wait_s: float,
    require_mlflow: bool,
    as_json: bool,
    tick: Cause | None = None,
    new_ledger: bool = False,
    accept_ledger: bool = False,
    reason: str = "",
) -> int:
    """Run the pipeline, with `tick` only if it is worth it; returns the exit code of its verdict."""
    if until not in STAGES:
        raise ConfigError(f"--until {until!r} is no stage; allowed: {', '.join(STAGES)}", code="TG0103")
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    console, begun = talk(), time.monotonic()
    if new_ledger or accept_ledger:
        accept_by_hand(settings, new=new_ledger, reason=reason)
    server, silent = _prefect(settings.home)
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(server))
    from flows.champion.mlflow_sync import synchronise
    from flows.graph.execute import RunEndedError
    from flows.pipeline import Request, run_here
    from flows.run.live_curves import LiveCurves
    from flows.schedule.ticks import Tick
    from flows.views.report import report_folder

    screen = Screen(console)
    notes = Notes(screen)
    logging.getLogger("tunegate").addHandler(notes)
    where = "without Prefect" if silent else server.url if server else os.environ["PREFECT_API_URL"]
    console.print(f"[bold]{pipeline}[/bold]", f"[dim]{where}[/dim]")
    if silent is not None:
        screen.noted(f"{silent.code}: {silent.message} ({silent.where}); the run goes on without Prefect")
    try:
        outcome, decision = run_here(
            spec,
            settings,
            root=config.resolve().parent,
            request=Request(again, cast("Stage", until), None if tick is None else Tick(tick)),
            wait_s=wait_s,
            listeners=lambda context: (screen, LiveCurves(context)),
            in_prefect=silent is None,
        )
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
    # Above, every rule that is not met has told its reason already.
    is_told = decision is not None and decision.verdict == outcome.verdict
    sentence = outcome.reason.split(";")[0] if is_told else outcome.reason
    print_verdict(console, outcome.verdict, sentence, details=details)
    if require_mlflow:
        synchronise(open_ledger(settings), settings)
    pending = len(open_ledger(settings).pending_projections())
    code = outcome.exit_code or (7 if pending and require_mlflow else 0)
    if as_json:
        print_json({**outcome.model_dump(), "exit_code": code, "mlflow_pending": pending})
    return code


def _prefect(home: Path) -> tuple[Server | None, ServiceError | None]:
    """The local server, if it is that one, and why Prefect is silent: what decides a run needs none."""
    try:
        return ensure_prefect(home), None
    except ServiceError as error:
        return None, error
