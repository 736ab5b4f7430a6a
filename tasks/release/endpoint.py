"""An OpenAI-compatible HTTP endpoint: models, chat, completions, streaming, and `/v1/feedback` on the answers.

It serves the models of `tasks/release/live.py`. It refuses unsupported requests, and requests from web pages of other
origins, with errors in OpenAI's format. Each caller has a rate and a share of what is answered at once. No text of a
request or an answer is ever logged or quoted in an error. Why not transformers' own server:
docs/decisions/serving-and-export.md.

Source: OpenAI's API reference; the chunks of a stream are server-sent events that end with `[DONE]`.
"""

import asyncio
import hmac
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.errors import ConfigError, DataError, LockedError, TunegateError
from schemas.openai_api import ChatRequest, CompletionRequest, TextRequest
from tasks.release.answering import Answering, Form
from tasks.release.endpoint_metrics import EndpointMetrics
from tasks.release.live import LiveModel, LiveModels, LivePrompt, Offer
from tasks.release.rates import Rate
from tasks.release.refusals import Refused, as_error, as_refused, malformed, refuse_foreign_page, refuse_other_types
from tasks.tickets.prompts import Message

log = logging.getLogger("tunegate.endpoint")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")

Redact = Callable[[list[Message]], list[Message]]
TakeFeedback = Callable[[list[bytes]], dict[str, Any]]

R = TypeVar("R", bound=CompletionRequest)
RETRY_AFTER_S = 2
HEALTH_KEPT_S = 1.0
"""How long an answer of `/health` is given again: it needs no token and has no rate, and reads the ledger."""


@dataclass(frozen=True)
class Limits:
    """Limits on requests."""

    max_tokens: int
    """Maximum new tokens of an answer."""
    max_bytes: int = 262_144
    """Maximum size of a request's body."""
    max_parallel: int = 16
    """Maximum number of requests to answer at the same time."""
    max_per_s: float = 100
    """Maximum requests of one token per second, on average; two seconds' worth may come at once."""
    max_unknown_per_s: float = 10
    """The same for one remote address without a valid token."""
    max_all_unknown_per_s: float = 100
    """The same for all addresses together."""

    def share(self, n_tenants: int) -> int:
        """How many requests of one tenant are answered at the same time.

        >>> [Limits(max_tokens=1).share(n) for n in (1, 2, 16)]
        [16, 8, 2]
        """
        return min(self.max_parallel, max(2, self.max_parallel // n_tenants))


@dataclass(frozen=True)
class Access:
    """Who may use the endpoint."""

    token: str | None = None
    """The required `Authorization: Bearer` token; None requires none."""
    hosts: Sequence[str] = LOOPBACK
    """Allowed host names; otherwise a web page could reach the endpoint under its own name."""


class Connection(Protocol):
    """The connection of a request, which some servers add as `scope["state"]["connection"]`."""

    ended: Refused | None
    """Why the server closed it within the request; None where the client did."""

    def belongs_to(self, owner: Hashable) -> None:
        """Learn whose it is, so that one caller does not use up all connections."""


@dataclass(frozen=True)
class Tenant:
    """Whom a token lets in, and what to."""

    models: LiveModels
    redact: Redact
    """Applied to messages before the model reads them, as to the tickets it was trained on."""
    token: str | None = None
    """None lets everyone in; allowed only for a single tenant."""
    take_feedback: TakeFeedback | None = None
    """Stores lines of feedback and returns what became of them; None for no feedback."""


def build_endpoint(
    tenants: Sequence[Tenant], *, limits: Limits, access: Access, extra_metrics: Callable[[], bytes] | None = None
) -> Starlette:
    """Build the application. A tenant's token reaches its models, redaction and feedback, and sees no other name.

    A single tenant's token also reaches `/metrics`. With several tenants, these are about all of them, so they need the
    token of `access`, which reaches no model; without one they are refused.

    Args:
        tenants: Each let in by a token of its own; a single one may have none.
        extra_metrics: More metrics for `/metrics`, in the same format.

    Raises:
        ValueError: one of several tenants has no token, or two have the same.
    """
    tokens = [tenant.token for tenant in tenants] + ([access.token] if access.token else [])
    if len(tenants) > 1 and (None in tokens or len(set(tokens)) < len(tokens)):
        raise ValueError("every tenant needs a token of its own")
    metrics = EndpointMetrics(extra_metrics)
    routes = _Routes(tuple(tenants), limits, metrics)
    callers: dict[Hashable, str | None] = {tenant: tenant.token for tenant in tenants}
    if access.token is not None:
        callers[_OPERATOR] = access.token

    def admit_operator(request: Request) -> None:
        if request.scope["state"]["caller"] is not _OPERATOR:
            raise Refused(401, "metrics need the operator's token", code="invalid_api_key")

    takes = any(tenant.take_feedback is not None for tenant in tenants)
    feedback = [Route("/v1/feedback", routes.feedback, methods=["POST"])] if takes else []
    return Starlette(
        routes=[
            *feedback,
            Route("/health", routes.health),
            metrics.route(routes.admit if len(tenants) == 1 else admit_operator),
            Route("/v1/models", routes.list_models),
            Route("/v1/models/{name}", routes.show_model),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/completions", routes.complete, methods=["POST"]),
        ],
        middleware=[
            Middleware(metrics.around),
            Middleware(_Callers, callers, limits),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts)),
            Middleware(_SameOrigin),
        ],
        exception_handlers={
            Refused: _refused, TunegateError: _refused, ClientDisconnect: _gone, Exception: _refused
        },
    )  # fmt: skip


_OPERATOR = "operator"


class _Callers:
    """Finds out whose a request is (`scope["state"]["caller"]`, None without a valid token), and limits its rate.

    `/health` always answers.
    """

    def __init__(self, app: ASGIApp, callers: Mapping[Hashable, str | None], limits: Limits) -> None:
        self._app, self._callers = app, callers
        self._known, self._unknown = Rate(limits.max_per_s), Rate(limits.max_unknown_per_s)
        self._all_unknown = Rate(limits.max_all_unknown_per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            state = scope.setdefault("state", {})
            caller = state["caller"] = self._find(Headers(scope=scope))
            now, address = time.monotonic(), (scope.get("client") or ("unknown",))[0]
            if caller is None:
                wait_s = self._unknown.wait_s(address, now) or self._all_unknown.wait_s(None, now)
            else:
                wait_s = self._known.wait_s(caller, now)
                if "connection" in state:
                    state["connection"].belongs_to(caller)
            if wait_s:
                whose = "this address" if caller is None else "this token"
                refused = Refused(
                    429, f"too many requests from {whose}; try again in {wait_s:.1f} s", code="rate_limit_exceeded",
                    retry_after_s=math.ceil(wait_s),
                )  # fmt: skip
                await _error(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _find(self, headers: Headers) -> Hashable:
        found = [each for each, token in self._callers.items() if token is None or _has_token(headers, token)]
        return found[0] if found else None


class _SameOrigin:
    """Restricts every route, including `/health`, to programs and to pages of this origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                refuse_foreign_page(Headers(scope=scope))
            except Refused as refused:
                await _error(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Routes:
    """The routes."""

    def __init__(self, tenants: tuple[Tenant, ...], limits: Limits, metrics: EndpointMetrics) -> None:
        self.tenants, self.limits, self.metrics = tenants, limits, metrics
        self.busy: Counter[Tenant] = Counter()
        self._storing, self._looking = asyncio.Lock(), asyncio.Lock()
        self._health, self._looked_at = _json({"status": "ok"}), -math.inf

    async def health(self, request: Request) -> Response:
        """Report that the endpoint is up; for a single tenant also which models it offered within the last second."""
        if len(self.tenants) > 1:
            return self._health
        async with self._looking:  # however many ask, one thread looks
            if time.monotonic() - self._looked_at > HEALTH_KEPT_S:
                try:
                    offers = await run_in_threadpool(self.tenants[0].models.offers)
                    self._health = _json({"status": "ok", "models": sorted(offers)})
                except Exception as error:
                    self._health = await _refused(request, error)
                self._looked_at = time.monotonic()
            return self._health

    async def list_models(self, request: Request) -> Response:
        """List every model name that is available now."""
        tenant = self.admit(request)
        offers = await run_in_threadpool(tenant.models.offers)
        return _json({"object": "list", "data": [_model(name, offer) for name, offer in offers.items()]})

    async def show_model(self, request: Request) -> Response:
        """Describe one model."""
        tenant = self.admit(request)
        name = request.path_params["name"]
        offers = await run_in_threadpool(tenant.models.offers)
        if name not in offers:
            raise self._unknown(offers)
        return _json(_model(name, offers[name]))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        tenant, chat = self.admit(request), await self._read(request, ChatRequest)

        def prompt_of(model: LiveModel) -> LivePrompt:
            if model.serving.trained.format != "instruction":
                raise Refused(
                    400, "this model was trained on plain text: use /v1/completions", code="not_a_chat_model",
                    param="model",
                )  # fmt: skip
            return model.prompt_of(_redacted(tenant, chat.turns()))

        return await self._answer(tenant, chat, prompt_of, "chat")

    async def complete(self, request: Request) -> Response:
        """Continue a text."""
        tenant, completion = self.admit(request), await self._read(request, TextRequest)

        def prompt_of(model: LiveModel) -> LivePrompt:
            return model.prompt_of_text(tenant.redact([{"role": "user", "content": completion.text}])[0]["content"])

        return await self._answer(tenant, completion, prompt_of, "text")

    async def feedback(self, request: Request) -> Response:
        """Store feedback: one JSON object, or one per line, as in a feedback file.

        Status 200 means that every line that was not refused is on disk. Sending a line again changes nothing, so a
        client that got no response should send it again. No text of a line is reported or logged.
        """
        take = self.admit(request).take_feedback
        if take is None:
            raise Refused(404, "feedback is not taken for these models", code="not_found")
        lines = lines_of(await self._read_body(request))

        try:
            async with self._storing:  # the database has one writer; those that wait hold no thread
                return _json(await run_in_threadpool(take, lines))
        except LockedError as error:
            raise Refused(503, error.message, code=error.code, retry_after_s=RETRY_AFTER_S) from None
        except ConfigError as error:
            raise Refused(400, error.message, code=error.code) from None

    def admit(self, request: Request) -> Tenant:
        """Return the tenant whose token the request has; refuse a request without one."""
        caller = request.scope["state"]["caller"]
        if not isinstance(caller, Tenant):
            raise Refused(401, "the token is missing or wrong", code="invalid_api_key")
        return caller

    def _unknown(self, offers: Mapping[str, Offer]) -> Refused:
        """Refuse a name; among several tenants whether or not another one has it."""
        known = ", ".join(offers)
        if len(self.tenants) == 1:
            message = f"no such model; available: {known or 'none yet'}"
            return Refused(404, message, code="model_not_found", param="model")
        message = f"this token reaches only: {known or 'nothing yet'}"
        return Refused(403, message, code="model_not_allowed", param="model")

    async def _read_body(self, request: Request) -> bytes:
        """Read the body of an admitted request; refuse it if it is not JSON, or as soon as it is too large."""
        self.admit(request)
        refuse_other_types(request.headers)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.limits.max_bytes:
                raise Refused(
                    413, f"a request may have at most {self.limits.max_bytes:,} bytes", code="request_too_large"
                )
        return bytes(body)

    async def _read(self, request: Request, kind: type[R]) -> R:
        try:
            return kind.model_validate(orjson.loads(await self._read_body(request)))
        except orjson.JSONDecodeError:
            raise Refused(400, "the request is not JSON", code="invalid_json") from None
        except ValidationError as error:
            raise malformed(error) from None

    async def _answer(
        self, tenant: Tenant, request: CompletionRequest, prompt_of: Callable[[LiveModel], LivePrompt], form: Form
    ) -> Response:
        if self.busy.total() >= self.limits.max_parallel:
            raise Refused(503, "too many requests at once; try again", code="overloaded", retry_after_s=RETRY_AFTER_S)
        if self.busy[tenant] >= self.limits.share(len(self.tenants)):
            raise Refused(
                429, "too many requests of this token at once; try again", code="too_many_requests",
                retry_after_s=RETRY_AFTER_S,
            )  # fmt: skip
        with self._busy_for(tenant):
            answering = await run_in_threadpool(self._prepare, tenant, request, prompt_of, form)
            if request.stream:
                unbuffered = {"X-Accel-Buffering": "no"}  # for a proxy such as nginx
                events = self._stream(tenant, answering)
                return StreamingResponse(events, media_type="text/event-stream", headers=unbuffered)
            return _json(await run_in_threadpool(answering.whole))

    @contextmanager
    def _busy_for(self, tenant: Tenant) -> Iterator[None]:
        self.busy[tenant] += 1
        try:
            yield
        finally:
            self.busy[tenant] -= 1

    def _prepare(
        self, tenant: Tenant, request: CompletionRequest, prompt_of: Callable[[LiveModel], LivePrompt], form: Form
    ) -> Answering:
        model = tenant.models.find(request.model)
        if model is None:
            raise self._unknown(tenant.models.offers())
        try:
            prompt = prompt_of(model)
        except DataError as error:
            raise Refused(400, error.message, code="invalid_prompt", param="messages") from None
        limit = request.limit
        if limit is None:
            limit = min(self.limits.max_tokens, model.serving.decoding.max_new_tokens)
        if limit > self.limits.max_tokens:
            raise Refused(
                400, f"max_tokens is {limit}; allowed are 1 to {self.limits.max_tokens}", code="max_tokens_too_large",
                param="max_tokens",
            )  # fmt: skip
        if not prompt.ids or len(prompt.ids) + limit > model.serving.base.context_length:
            raise Refused(
                400,
                f"the prompt's {len(prompt.ids)} tokens and {limit} new ones exceed the model's context of "
                f"{model.serving.base.context_length} tokens",
                code="context_length_exceeded",
                param="messages",
            )
        return Answering(request, model, prompt, limit=limit, form=form, on_routing=self.metrics.count_answer)

    async def _stream(self, tenant: Tenant, answering: Answering) -> AsyncIterator[bytes]:
        try:
            with self._busy_for(tenant):  # counted here, since a stream that is never read never starts
                async for event in iterate_in_threadpool(answering.events()):
                    yield b"data: " + orjson.dumps(event) + b"\n\n"
        except Exception as error:  # the status is already sent, so the stream reports the error
            yield b"data: " + orjson.dumps(as_error(as_refused(error))) + b"\n\n"
            return
        yield b"data: [DONE]\n\n"


def _has_token(headers: Headers, token: str) -> bool:
    given = headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), token.encode())


def _redacted(tenant: Tenant, turns: list[Message]) -> list[Message]:
    """Redact all turns but the system's, which has the caller's instructions, not a customer's words."""
    n_kept = int(turns[0]["role"] == "system")
    return [*turns[:n_kept], *tenant.redact(turns[n_kept:])]


def _model(name: str, offer: Offer) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "tunegate",
        "version": offer.version,
        "verdict": offer.verdict,
        "sha256": offer.bundle.digest,
    }


async def _refused(_request: Request, error: Exception) -> Response:
    refused = as_refused(error)
    if refused.status >= 500:
        log.warning("%s %s", refused.code, refused.message)
    return _error(refused)


async def _gone(request: Request, _disconnect: Exception) -> Response:
    """Log that no whole request came: one line. The response only counts in the metrics, since the client is gone."""
    connection: Connection | None = request.scope["state"].get("connection")
    ended = None if connection is None else connection.ended
    refused = ended or Refused(499, "the client left before its request was complete", code="client_closed_request")
    address = request.client.host if request.client else "unknown"
    log.info("%s %s: %d %s", address, request.scope["path"], refused.status, refused.message)
    return _error(refused)


def _error(refused: Refused) -> Response:
    response = _json(as_error(refused), refused.status)
    if refused.retry_after_s is not None:
        response.headers["Retry-After"] = str(refused.retry_after_s)
    return response


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def lines_of(body: bytes) -> list[bytes]:
    """The JSON objects of a body: one per line, or a single one over several lines.

    Raises:
        Refused: the body is empty.

    >>> lines_of(b'{"a": 1}\\n{"a": 2}\\n'), lines_of(b'{\\n "a": 1\\n}')
    ([b'{"a": 1}', b'{"a": 2}'], [b'{"a":1}'])
    """
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        lines = [line for line in body.splitlines() if line.strip()]
    else:
        lines = [orjson.dumps(whole)]
    if not lines:
        raise Refused(400, "the body is empty; send one JSON object per line", code="invalid_request")
    return lines
