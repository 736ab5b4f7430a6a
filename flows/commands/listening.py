"""A listening socket and the server behind it, as `tunegate endpoint` and `tunegate ui` use them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from schemas.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette

MAX_PORT = 65_535


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        ConfigError: TG0193, it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port <= MAX_PORT:
        raise _refused(host, port, f"a port is a number from 0 to {MAX_PORT}")
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise _refused(host, port, error.strerror or str(error)) from None


def _refused(host: str, port: int, why: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host} port {port}: {why}",
        code="TG0193",
        where="--port",
        hint="take another --port; 0 takes any that is free",
    )


def run_server(app: Starlette, listener: socket.socket) -> None:
    """Serve until interrupted; no request is logged."""
    import uvicorn

    quiet = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False, lifespan="off",
        timeout_graceful_shutdown=10, h11_max_incomplete_event_size=65536,
    )  # fmt: skip
    uvicorn.Server(quiet).run(sockets=[listener])
