"""`tunegate ops serve` and `ops deploy`: Prefect's deployments of scheduled and triggered pipelines.

Prefect reads its settings when it is first imported, so it is imported when the server's address is set.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Json
from flows.cli.output import Result, TextTable, render, talk
from flows.run.faults import check_libraries
from flows.schedule.automatic import automatic_pipelines
from flows.workspace.login import login_file
from flows.workspace.servers import client_environment, ensure_prefect
from flows.workspace.settings import load_settings
from schemas.load import load_file


@command(example="tunegate ops serve")
def serve(config: Config = CONFIG, as_json: Json = False) -> int:
    """Run pipelines by their `schedule`: at its times and on its events.

    Each is a Prefect deployment of this process, until interrupted. With --json, one object says what is served before
    the first tick.
    """
    loaded = load_file(config)
    served: dict[str, list[str]] = {}
    for name, spec in automatic_pipelines(loaded).items():
        check_libraries(spec)
        served[name] = [f"{spec.schedule.cron} ({spec.schedule.timezone})"] if spec.schedule.cron else []
        served[name] += [f"event {trigger.event}" for trigger in spec.schedule.triggers]
        talk().print(f"{name}: {', '.join(served[name])}", markup=False)
    server = ensure_prefect(load_settings(config).home)
    os.environ.update(client_environment(server))
    import prefect

    from flows.deployments import deployments, prepare

    prepare()
    render(Result({"serving": served}), as_json=as_json)
    prefect.serve(*deployments(loaded, config), pause_on_shutdown=False, print_starting_message=False)
    return 0


@command(example="tunegate ops deploy --pool gpus")
def deploy(
    pool: Annotated[
        str | None, typer.Option(help="Work pool whose workers run them; `tunegate ops serve` if not given.")
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Bring Prefect's deployments in line with pipelines.yaml.

    Automations, too; what is not declared any more is removed. May be repeated.
    """
    loaded = load_file(config)
    automatic_pipelines(loaded)  # refuses a file without schedules before any server is started
    home = load_settings(config).home
    server = ensure_prefect(home)
    os.environ.update(client_environment(server))
    from flows.deployments import register

    done, removed = register(loaded, config, pool=pool)

    def text() -> Iterator[Any]:
        rows = [{**asdict(each), "events": ", ".join(each.events)} for each in done]
        yield TextTable(rows, ("pipeline", "stage", "pool", "schedule", "events", "deployment_id"))
        if removed:
            yield f"removed: {', '.join(removed)}"
        pools = sorted({each.pool for each in done if each.pool})
        workers = ", ".join(f"`prefect worker start --pool {each}`" for each in pools)
        runners = [f"{workers} runs what has a pool"] if pools else []
        runners += ["`tunegate ops serve` runs the others"] if any(not each.pool for each in done) else []
        sentence = "; ".join(runners)
        if pools and server is not None:
            login = login_file(home / "prefect")
            sentence += f", with PREFECT_API_URL={server.url}/api and what {login} holds as PREFECT_API_AUTH_STRING"
        yield sentence

    return Result({"deployments": [asdict(each) for each in done], "removed": removed, "pool": pool}, text())
