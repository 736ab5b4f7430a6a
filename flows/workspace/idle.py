"""Serve an ASGI application on loopback, and end the server after a given time without use.

    python -m flows.workspace.idle prefect.server.api.server:create_app --port 23456 --idle-s 3600

A request counts as use, and so does an open connection such as the one over which a run sends its events. The server
itself decides, in the loop that also answers requests: it cannot end between a client's request and the answer, and
whoever finds it alive has just used it.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.importer import import_from_string

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[..., Any], Callable[..., Any]], Awaitable[None]]
LOOPBACK = "127.0.0.1"
LOOKS = 20
"""How often the server looks, in one idle time, whether it is over."""


class EndsWhenIdle:
    """An application that ends its server after `idle_s` seconds without use; None for never."""

    def __init__(self, application: Application, *, idle_s: float | None) -> None:
        self._application = application
        self._limit_s = idle_s
        self._n_open = 0
        self._last = time.monotonic()
        self.server: uvicorn.Server | None = None
        """What serves this application; ended by `should_exit`."""

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":  # as long as the server itself
            watching = asyncio.create_task(self._watch())
            try:
                await self._application(scope, receive, send)
            finally:
                watching.cancel()
            return
        self._n_open += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._n_open -= 1
            self._last = time.monotonic()

    async def _watch(self) -> None:
        server, limit_s = self.server, self._limit_s
        if server is None or limit_s is None:
            return
        while time.monotonic() - self._last < limit_s:
            await asyncio.sleep(limit_s / LOOKS)
            if self._n_open or not server.started:
                self._last = time.monotonic()
        server.should_exit = True


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m flows.workspace.idle", description=__doc__.splitlines()[0])
    parser.add_argument("factory", help="MODULE:FUNCTION that makes the application")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle-s", type=float, help="end after so many seconds without use")
    options = parser.parse_args()
    served = EndsWhenIdle(import_from_string(options.factory)(), idle_s=options.idle_s)
    config = uvicorn.Config(served, host=LOOPBACK, port=options.port, access_log=False, timeout_graceful_shutdown=10)
    served.server = uvicorn.Server(config)
    served.server.run()


if __name__ == "__main__":
    main()
