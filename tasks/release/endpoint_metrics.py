"""Prometheus metrics of the endpoint: requests by route and status, their duration, and routed answers.

It sees paths, statuses, times and actions, never a body. The caller can add metrics of the ledger.
"""

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTES = ("/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/feedback")
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class EndpointMetrics:
    """Counts for the lifetime of the process; `extra` returns more metrics in the same format."""

    def __init__(self, extra: Callable[[], bytes] | None = None) -> None:
        self.extra = extra
        self.registry = CollectorRegistry()
        names = ("route", "status")
        self.requests = Counter("tunegate_requests", "Requests by route and status", names, registry=self.registry)
        self.seconds = Histogram(
            "tunegate_request_seconds", "From a request's head to the end of its answer, seconds", ("route",),
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.answers = Counter(
            "tunegate_answers", "Answers of versions with a certificate by action", ("name", "version", "action"),
            registry=self.registry,
        )  # fmt: skip

    def count_answer(self, name: str, version: str, action: Literal["route", "review"]) -> None:
        """Count an answer of a version with a certificate; nothing in these labels is the caller's choice."""
        for each in ("route", "review"):  # both series exist from the first answer on: a share of 0 is no gap
            self.answers.labels(name, version, each).inc(each == action)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Wrap the application and count its requests."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status, started = 500, time.monotonic()

            async def note_status(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, note_status)
            finally:
                route = _route(scope["path"])
                self.requests.labels(route, str(status)).inc()
                self.seconds.labels(route).observe(time.monotonic() - started)

        return counted

    def route(self, admit: Callable[[Request], object]) -> Route:
        """`/metrics`, for requests that `admit` does not refuse."""

        async def show(request: Request) -> Response:
            admit(request)
            return Response(await run_in_threadpool(self.text), media_type="text/plain; version=0.0.4; charset=utf-8")

        return Route("/metrics", show)

    def text(self) -> bytes:
        """All metrics in the text format 0.0.4."""
        return bytes(generate_latest(self.registry)) + (self.extra() if self.extra else b"")


def _route(path: str) -> str:
    """The route without parts that a caller can choose, since every value of a label is kept forever.

    >>> _route("/v1/models/version-3"), _route("/.env")
    ('/v1/models', 'other')
    """
    return next((route for route in ROUTES if path == route or path.startswith(f"{route}/")), "other")
