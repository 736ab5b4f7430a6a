"""`tunegate deploy`: pipelines.yaml's schedules and triggers onto the Prefect server."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from flows.commands.output import out, print_json, print_rows
from flows.deployments import register, wanted
from flows.workspace.prefect_login import login_file
from flows.workspace.servers import client_environment, ensure_prefect
from flows.workspace.settings import load_settings
from schemas.load import load_file


def deploy(*, pool: str | None, config: Path, as_json: bool) -> int:
    """Register what is declared and remove what is not any more.

    Raises:
        ConfigError: TG0159, no pipeline runs by itself.
        ServiceError: TG0701, there is no such work pool.
    """
    loaded = load_file(config)
    wanted(loaded)  # before any server is started
    server = ensure_prefect(load_settings(config).home)
    os.environ.update(client_environment(server))
    done, removed = register(loaded, config, pool=pool)
    rows = [{**asdict(each), "events": ", ".join(each.events)} for each in done]
    if as_json:
        print_json({"deployments": [asdict(each) for each in done], "removed": removed, "pool": pool})
        return 0
    print_rows(rows, ("pipeline", "stage", "pool", "schedule", "events", "deployment_id"))
    if removed:
        out().print(f"removed: {', '.join(removed)}", markup=False)
    pools = sorted({each.pool for each in done if each.pool})
    workers = ", ".join(f"`prefect worker start --pool {each}`" for each in pools)
    told = "; ".join(
        filter(None, (f"{workers} runs what has a pool" if pools else "",
                      "`tunegate serve` runs the others" if any(not each.pool for each in done) else ""))
    )  # fmt: skip
    if pools and server is not None:
        login = login_file(load_settings(config).home / "prefect")
        told += f", with PREFECT_API_URL={server.url}/api and what {login} holds as PREFECT_API_AUTH_STRING"
    out().print(told, markup=False, soft_wrap=True)
    return 0
