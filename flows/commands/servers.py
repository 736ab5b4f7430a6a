"""`tunegate up`, `down` and `serve`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flows.commands.output import out, print_json, talk
from flows.servers import client_environment, ensure_mlflow, ensure_prefect, stop_all
from flows.settings import load_settings
from schemas.errors import ConfigError
from schemas.load import PipelineFile, load_file

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment


def up(*, config: Path, as_json: bool) -> int:
    """Start what is not running yet; an external Prefect (PREFECT_API_URL) is left alone."""
    home = load_settings(config).home
    servers = [server for server in (ensure_prefect(home), ensure_mlflow(home)) if server is not None]
    if as_json:
        print_json([asdict(server) for server in servers])
    for server in servers if not as_json else []:
        out().print(f"{server.kind:<8} {server.url}   log: {server.log}", markup=False)
    return 0


def down(*, config: Path, as_json: bool) -> int:
    """Stop the servers of this home folder."""
    stopped = stop_all(load_settings(config).home)
    if as_json:
        print_json([asdict(server) for server in stopped])
    else:
        names = ", ".join(server.kind for server in stopped) or "nothing was running"
        out().print(f"stopped: {names}")
    return 0


def serve(*, config: Path) -> int:
    """Serve each pipeline that has a schedule as a Prefect deployment of this process, until interrupted.

    Raises:
        ConfigError: no pipeline declares a schedule.
    """
    loaded = load_file(config)
    if all(spec.schedule is None for spec in loaded.pipelines.values()):
        raise ConfigError(
            "no pipeline has a schedule", code="TG0143", where=str(config), hint="add `schedule: {cron: ...}` to one"
        )
    server = ensure_prefect(load_settings(config).home)
    os.environ.update(client_environment(server))
    import prefect

    for name, spec in loaded.pipelines.items():
        if spec.schedule is not None:
            talk().print(f"{name}: {spec.schedule.cron} ({spec.schedule.timezone})", markup=False)
    prefect.serve(*deployments(loaded, config), pause_on_shutdown=False, print_starting_message=False)
    return 0


def deployments(loaded: PipelineFile, config: Path) -> list[RunnerDeployment]:
    """One Prefect deployment for each pipeline with a schedule, in the order of the file; nothing is registered.

    A run finds the flow by its module: the folder that `serve` was started in need not be the program's.
    """
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.pipeline import run_pipeline

    found = []
    for name, spec in loaded.pipelines.items():
        if spec.schedule is None:
            continue
        made = run_pipeline.to_deployment(
            name=name,
            schedule=Cron(spec.schedule.cron, timezone=spec.schedule.timezone),
            parameters={"pipeline": name, "config": str(config.resolve())},
            description=spec.description,
            concurrency_limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        found.append(cast("RunnerDeployment", made))  # only a coroutine when called from one
    return found
