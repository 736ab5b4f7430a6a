"""`tunegate ops up` and `ops down`: the servers of Prefect and MLflow."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config
from flows.cli.output import Result
from flows.workspace.disk import private_folder
from flows.workspace.login import login_file, login_url
from flows.workspace.servers import ensure_mlflow, ensure_users_prefect, running, stop_all, users_homes
from flows.workspace.settings import load_settings


@command(example="tunegate ops up")
def up(config: Config = CONFIG) -> Result:
    """Start the Prefect and MLflow servers, on loopback only.

    Prefect shows the runs of all your projects and ends after an hour without use. What runs already is left alone, as
    is an external Prefect (PREFECT_API_URL). The printed address of Prefect's pages logs a browser in; JSON, which
    programs keep, has the plain one. MLflow's pages ask for a user and a password: the printed file has them.
    """
    settings = load_settings(config)
    private_folder(settings.home)  # where it cannot be, no server is started
    started = (ensure_users_prefect(settings), ensure_mlflow(settings.home))
    servers = [server for server in started if server is not None]

    def text() -> Iterator[str]:
        for server in servers:
            folder = Path(server.log).parent
            where = login_url(server.url, folder) if server.kind == "prefect" else server.url
            where += f"   user:password in {login_file(folder)}" if server.kind == "mlflow" else ""
            yield f"{server.kind:<8} {where}   log: {server.log}"

    return Result({"servers": [asdict(server) for server in servers]}, text())


@command(example="tunegate ops down")
def down(
    config: Config = CONFIG,
    everything: Annotated[
        bool, typer.Option("--all", help="Also your Prefect server, which all your projects use.")
    ] = False,
) -> Result:
    """Stop this project's servers.

    Your Prefect server, which other projects may be using, is left to its end after an hour without use.
    """
    settings = load_settings(config)
    common = users_homes(settings.state)
    stopped = [server for home in (settings.home, *(common if everything else ())) for server in stop_all(home)]
    left = running(*common)
    text = [
        f"stopped: {', '.join(server.kind for server in stopped) or 'nothing was running'}",
        *(
            f"left running: your Prefect server {server.url}, for all your projects; it ends after "
            f"{settings.server_idle_s / 60:g} minutes without use, or by `tunegate ops down --all`"
            for server in left
        ),
    ]
    return Result(
        {"stopped": [asdict(server) for server in stopped], "left": [asdict(server) for server in left]}, text
    )
