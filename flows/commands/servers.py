"""`tunegate up`, `down` and `serve`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from flows.commands.output import out, print_json, talk
from flows.deployments import deployments, prepare, wanted
from flows.workspace.prefect_login import login_url
from flows.workspace.servers import client_environment, ensure_mlflow, ensure_prefect, stop_all
from flows.workspace.settings import load_settings
from schemas.load import load_file


def up(*, config: Path, as_json: bool) -> int:
    """Start what is not running yet; an external Prefect (PREFECT_API_URL) is left alone.

    The address of Prefect's pages logs a browser in: it is for the person who reads it. JSON, which programs keep, has
    the plain one.
    """
    home = load_settings(config).home
    servers = [server for server in (ensure_prefect(home), ensure_mlflow(home)) if server is not None]
    if as_json:
        print_json({"servers": [asdict(server) for server in servers]})
    for server in servers if not as_json else []:
        url = login_url(server.url, home / "prefect") if server.kind == "prefect" else server.url
        out().print(f"{server.kind:<8} {url}   log: {server.log}", markup=False, soft_wrap=True)
    return 0


def down(*, config: Path, as_json: bool) -> int:
    """Stop the servers of this home folder."""
    stopped = stop_all(load_settings(config).home)
    if as_json:
        print_json({"stopped": [asdict(server) for server in stopped]})
    else:
        names = ", ".join(server.kind for server in stopped) or "nothing was running"
        out().print(f"stopped: {names}")
    return 0


def serve(*, config: Path, as_json: bool) -> int:
    """Serve each pipeline that has a schedule or triggers as a Prefect deployment of this process, until interrupted.

    With `as_json` one object says what is served, before the first tick.

    Raises:
        ConfigError: TG0159, no pipeline runs by itself.
    """
    loaded = load_file(config)
    told_all: dict[str, list[str]] = {}
    for name, spec in wanted(loaded).items():
        told = [f"{spec.schedule.cron} ({spec.schedule.timezone})"] if spec.schedule is not None else []
        told += [f"event {trigger.event}" for trigger in spec.triggers]
        told_all[name] = told
        talk().print(f"{name}: {', '.join(told)}", markup=False)
    server = ensure_prefect(load_settings(config).home)
    os.environ.update(client_environment(server))
    import prefect

    prepare(loaded)
    if as_json:
        print_json({"serving": told_all})
        sys.stdout.flush()  # whoever reads it waits for this line
    prefect.serve(*deployments(loaded, config), pause_on_shutdown=False, print_starting_message=False)
    return 0
