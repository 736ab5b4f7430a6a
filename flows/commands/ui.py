"""`tunegate ui`: pipelines, runs, champions and removed tickets as pages on this machine, read-only."""

from __future__ import annotations

import secrets
from pathlib import Path

from flows.commands.listening import listen, run_server
from flows.commands.output import print_json, talk
from flows.pages import WorkspaceFacts
from schemas.load import load_file

HOST = "127.0.0.1"


def ui(*, port: int, config: Path, as_json: bool) -> int:
    """Show the pages until interrupted.

    Raises:
        ConfigError: TG0193, it cannot listen there; TG01, pipelines.yaml is faulty.
    """
    load_file(config)
    from tasks.release.pages.server import build_pages

    token = secrets.token_urlsafe(24)
    app = build_pages(WorkspaceFacts(config), token=token)
    with listen(HOST, port) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}/?token={token}"
        if as_json:
            print_json({"url": url})
        else:
            talk().print(f"{url}   (Ctrl-C ends it)", markup=False, soft_wrap=True)
        run_server(app, listener)
    return 0
