"""A listening socket and its server, as `tunegate model endpoint` uses them.

Whoever opens connections and says nothing takes none from the others: a connection has seconds to send a request's
headers, there is a limit of open ones, and of those that wait the oldest makes room.
"""

import asyncio
import resource
import socket
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.errors import ConfigError

MAX_PORT = 65_535
MAX_CONNECTIONS = 512
"""At most half of the files that this process may open: a model and the ledger need theirs."""
HEADERS_TIMEOUT_S = 10.0
ACCEPT_ERROR_EVERY_S = 60.0


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
    quiet = uvicorn.Config(
        app, http=_Connection, log_config=None, log_level="warning", access_log=False, server_header=False,
        lifespan="off", timeout_graceful_shutdown=10, h11_max_incomplete_event_size=65536, backlog=128,
    )  # fmt: skip
    _Server(quiet).run(sockets=[listener])


def max_connections() -> int:
    """How many may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))


class _Connection(H11Protocol):
    """One connection. uvicorn bounds the pause between requests, not the time that a request's headers take."""

    waits_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()
        if len(self.connections) > max_connections():
            waiting = [each for each in self.connections if isinstance(each, _Connection) and each.waits]
            min(waiting, key=lambda each: each.waits_since).close_now()  # this one is among them

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait_for_headers()

    @property
    def waits(self) -> bool:
        """Is no request being answered?"""
        return self.cycle is None or self.cycle.response_complete

    def close_now(self) -> None:
        """Drop the connection; it no longer counts."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait_for_headers(self) -> None:
        self.waits_since = since = time.monotonic()

        def give_up() -> None:
            if self.waits and self.waits_since == since:
                self.close_now()

        self.loop.call_later(HEADERS_TIMEOUT_S, give_up)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        await super().startup(sockets)


class AcceptErrors:
    """asyncio reports each connection that it cannot accept, with a traceback: thousands in a second."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "accept" in str(context.get("message", "")):
            if time.monotonic() < self._quiet_until:
                return
            self._quiet_until = time.monotonic() + ACCEPT_ERROR_EVERY_S
        loop.default_exception_handler(context)
