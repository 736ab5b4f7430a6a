"""A listening socket and its server, as `tunegate model endpoint` uses them.

Whoever opens connections and sends nothing, or a body byte by byte, takes none from the others: headers and bodies have
seconds, the number of open connections is limited, also for each caller, and of those that wait the oldest makes room.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import h11
import orjson
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.errors import ConfigError
from tasks.release.refusals import Refused, as_error

MAX_PORT = 65_535
MAX_CONNECTIONS = 512
"""At most half of the files that this process may open: a model and the ledger need theirs."""
ACCEPT_ERROR_EVERY_S = 60.0
RETRY_AFTER_S = 2


@dataclass(frozen=True)
class Patience:
    """How long a connection may wait for the rest of a request before it is closed."""

    headers_s: float = 10.0
    """For a request's headers, and for a body that nothing reads."""
    body_s: float = 60.0
    """For a whole body."""
    progress_s: float = 10.0
    """In each such span a body must bring `progress_bytes` or end."""
    progress_bytes: int = 1_024


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        ConfigError: TG0193, it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not 0 <= port <= MAX_PORT:
        raise _refused(host, port, f"a port is a number from 0 to {MAX_PORT}")
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise _refused(host, port, error.strerror or str(error)) from None
    # asyncio would set it only where the protocol's number is given. Without it the body of an answer, which is written
    # after its headers, waits 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _refused(host: str, port: int, why: str) -> ConfigError:
    return ConfigError(
        f"cannot listen on {host} port {port}: {why}",
        code="TG0193",
        where="--port",
        hint="take another --port; 0 takes any that is free",
    )


def run_server(app: Starlette, listener: socket.socket, patience: Patience | None = None) -> None:
    """Serve until interrupted; no request is logged.

    A request finds its connection in `scope["state"]["connection"]` (`tasks.release.endpoint.Connection`).
    """
    connections = partial(_TimedConnection, pool=_Pool(patience or Patience(), max_connections()))
    quiet = uvicorn.Config(
        app, http=connections, log_config=None, log_level="warning", access_log=False,  # type: ignore[arg-type]
        server_header=False, lifespan="off", timeout_graceful_shutdown=10, h11_max_incomplete_event_size=65536,
        backlog=128,
    )  # fmt: skip
    _Server(quiet).run(sockets=[listener])


def max_connections() -> int:
    """How many may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))


class _Pool:
    """The open connections, by whose they are: an address, or a caller once its token is known."""

    def __init__(self, patience: Patience, limit: int) -> None:
        self.patience, self.limit = patience, limit
        self.share = max(1, limit // 4)
        """Most connections of one owner."""
        self.shortest_s = min(patience.headers_s, patience.body_s, patience.progress_s)
        self._of: defaultdict[Hashable, set[_TimedConnection]] = defaultdict(set)
        self._n_open = 0

    def add(self, connection: _TimedConnection, owner: Hashable) -> None:
        """Count a connection; if there are too many, one that waits makes room."""
        connection.owner = owner
        self._of[owner].add(connection)
        self._n_open += 1
        if len(self._of[owner]) > self.share:
            _make_room(self._of[owner], connection)
        elif self._n_open > self.limit:
            _make_room({each for owned in self._of.values() for each in owned}, connection)

    def remove(self, connection: _TimedConnection) -> None:
        """Count a connection no longer."""
        owned = self._of.get(connection.owner, set())
        if connection in owned:
            owned.remove(connection)
            self._n_open -= 1
            if not owned:
                del self._of[connection.owner]


def _make_room(connections: set[_TimedConnection], newest: _TimedConnection) -> None:
    """Close the one that has waited longest; the newest if no other waits."""
    waiting = [each for each in connections if each.waits and each is not newest]
    oldest = min(waiting, key=lambda each: each.waits_since, default=newest)
    if oldest is newest or oldest.in_body:
        oldest.refuse(
            Refused(503, "too many connections; try again", code="too_many_connections", retry_after_s=RETRY_AFTER_S)
        )
    else:
        oldest.close_now()


class _TimedConnection(H11Protocol):
    """One connection. uvicorn bounds the pause between requests, not the time that a request takes to arrive."""

    def __init__(self, *arguments: Any, pool: _Pool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app_state = {**self.app_state, "connection": self}
        self.owner: Hashable = None
        self.ended: Refused | None = None
        """Why the server closed it within a request."""
        self.waits_since = time.monotonic()
        self._pool = pool
        self._n_bytes = self._n_seen = 0
        self._progress_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._pool.shortest_s, self._watch)
        self._pool.add(self, self.client[0] if self.client else "unknown")

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._n_bytes += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a request's headers are complete
            self.waits_since = time.monotonic()
            self._expect_progress()

    def on_response_complete(self) -> None:
        self.waits_since = time.monotonic()
        super().on_response_complete()

    @property
    def waits(self) -> bool:
        """Is no request being answered?"""
        return self.cycle is None or self.cycle.response_complete or self.in_body

    @property
    def in_body(self) -> bool:
        """Are a request's headers here, but not all of its body?"""
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_started

    def belongs_to(self, owner: Hashable) -> None:
        """Count the connection as one of this caller's; if that is one too many, another that waits is closed."""
        if owner != self.owner and self.ended is None:
            self._pool.remove(self)
            self._pool.add(self, owner)

    def close_now(self) -> None:
        """Drop the connection; it no longer counts."""
        self._leave()
        self.transport.abort()

    def refuse(self, refused: Refused) -> None:
        """Answer with an error in place of the application, which sees a disconnect, and close."""
        self.ended = refused
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        if refused.retry_after_s is not None:
            headers.append(("Retry-After", str(refused.retry_after_s)))
        body = orjson.dumps(as_error(refused))
        headers.append(("Content-Length", str(len(body))))
        try:
            head = self.conn.send(h11.Response(status_code=refused.status, headers=headers)) or b""
            self.transport.write(head + (self.conn.send(h11.Data(data=body)) or b""))
        except h11.LocalProtocolError:  # HEAD, whose answer has no body
            pass
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._leave()
        if self.transport.get_write_buffer_size():  # the client does not read either
            self.transport.abort()
        else:
            self.transport.close()

    def _leave(self) -> None:
        self.connections.discard(self)
        self._pool.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect_progress(self) -> None:
        self._n_seen, self._progress_due = self._n_bytes, time.monotonic() + self._pool.patience.progress_s

    def _watch(self) -> None:
        """Close the connection if what it waits for is overdue; else look again when it will be."""
        patience, now = self._pool.patience, time.monotonic()
        due = now + self._pool.shortest_s
        if self.in_body:
            enough = self._n_bytes - self._n_seen >= patience.progress_bytes
            if now >= self._progress_due and enough:
                self._expect_progress()
            due = min(self.waits_since + patience.body_s, self._progress_due)
            if now >= due:
                rule = (
                    f"a body must bring {patience.progress_bytes:,} bytes in each {patience.progress_s:g} s "
                    f"and be complete after {patience.body_s:g} s"
                )
                self.refuse(Refused(408, f"the body came too slowly: {rule}", code="body_timeout"))
                return
        elif self.waits:
            due = self.waits_since + patience.headers_s
            if now >= due:
                self.close_now()
                return
        # Not later than a limit that may begin meanwhile.
        self._timer = self.loop.call_later(min(due - now, self._pool.shortest_s), self._watch)


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
