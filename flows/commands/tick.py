"""`tunegate tick`: what the schedule does at its times, now."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from flows.commands.output import print_json, talk
from flows.commands.run import run
from flows.run.console import print_verdict
from flows.schedule.ticks import Tick, turned_away, waits_s
from flows.workspace.settings import load_settings
from schemas.load import load_file
from schemas.ticks import Cause


def tick(*, pipeline: str, cause: str, config: Path, as_json: bool) -> int:
    """Decide whether a run is worth it; run, or say when one is expected to be."""
    made = cast("Cause", cause)
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    skipped = turned_away(spec, settings, Tick(made))
    if skipped is None:
        return run(
            pipeline=pipeline, config=config, again=False, until="release", wait_s=waits_s(spec),
            require_mlflow=False, as_json=as_json, tick=made,
        )  # fmt: skip
    print_verdict(talk(), "SKIP", skipped.reason, details=[f"tunegate history {pipeline}"])
    if as_json:
        print_json({**skipped.model_dump(), "exit_code": 0, "mlflow_pending": 0})
    return 0
