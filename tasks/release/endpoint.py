"""An OpenAI-compatible HTTP endpoint over `tasks/release/live.py`: models, chat, plain completions, streaming; and
`/v1/feedback`, where what agents did with the answers comes back.

Refuses what it does not do and what a web page of another origin sends, in OpenAI's form of an error. No text of a
request or an answer is ever logged or quoted in an error. Why not transformers' own server:
docs/decisions/0024-our-own-endpoint.md. Called by `tunegate model endpoint`.

Source: OpenAI's API reference; the chunks of a stream are server-sent events that end with `[DONE]`.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import ValidationError

from schemas.errors import ConfigError, DataError, LockedError, TunegateError
from schemas.openai_api import ChatRequest, CompletionRequest, TextRequest
from tasks.prompts import Message
from tasks.release.answering import Answering, Form
from tasks.release.endpoint_metrics import EndpointMetrics
from tasks.release.live import LiveModel, LiveModels, Offer
from tasks.release.refusals import (
    Refused,
    as_error,
    as_refused,
    malformed,
    refuse_foreign_page,
    refuse_other_types,
    unknown_model,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("tunegate.endpoint")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")

Redact = Callable[[list[Message]], list[Message]]

R = TypeVar("R", bound=CompletionRequest)
RETRY_AFTER_S = 2


@dataclass(frozen=True)
class Limits:
    """What one request may cost."""

    max_tokens: int
    """Most new tokens of an answer."""
    max_bytes: int = 262_144
    """Of a request's body."""
    max_parallel: int = 16
    """Requests that are answered at the same time."""


def build_endpoint(
    models: LiveModels,
    *,
    limits: Limits,
    redact: Redact,
    token: str | None = None,
    hosts: Sequence[str] = LOOPBACK,
    told: Callable[[], bytes] | None = None,
    take_feedback: Callable[[list[bytes]], dict[str, Any]] | None = None,
) -> Starlette:
    """The application.

    Args:
        models: What answers.
        limits: Bounds of a request.
        redact: Applied to what is said before the model reads it, as the tickets it learned from were.
        token: What `Authorization: Bearer` must carry; None asks for nothing.
        hosts: Names under which it may be called; a page in a browser could otherwise reach it under its own name.
        told: Metrics of elsewhere that `/metrics` shows as well.
        take_feedback: Keeps lines of feedback and says what became of them; None leaves the route out.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    desk, metrics = _Desk(models, limits, redact, token), EndpointMetrics(told)
    feedback = [] if take_feedback is None else [feedback_route(take_feedback, desk.read_body)]
    return Starlette(
        routes=[
            *feedback,
            Route("/health", desk.health),
            metrics.route(desk.admit),
            Route("/v1/models", desk.list_models),
            Route("/v1/models/{name}", desk.show_model),
            Route("/v1/chat/completions", desk.chat, methods=["POST"]),
            Route("/v1/completions", desk.complete, methods=["POST"]),
        ],
        middleware=[
            Middleware(metrics.around),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(_OwnPages),
        ],
        exception_handlers={Refused: _refused, TunegateError: _refused, Exception: _refused},
    )


class _OwnPages:
    """Every route, `/health` too, is for programs and pages of this origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers

        if scope["type"] == "http":
            try:
                refuse_foreign_page(Headers(scope=scope))
            except Refused as refused:
                await _json(as_error(refused), refused.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Desk:
    """The routes."""

    def __init__(self, models: LiveModels, limits: Limits, redact: Redact, token: str | None) -> None:
        self.models, self.limits, self.redact, self.token = models, limits, redact, token
        self.n_busy = 0

    async def health(self, _request: Request) -> Response:
        """Up, and is there a champion?"""
        from starlette.concurrency import run_in_threadpool

        offers = await run_in_threadpool(self.models.offers)
        return _json({"status": "ok", "models": sorted(offers)})

    async def list_models(self, request: Request) -> Response:
        """Every name that may be asked for this moment."""
        from starlette.concurrency import run_in_threadpool

        self.admit(request)
        offers = await run_in_threadpool(self.models.offers)
        return _json({"object": "list", "data": [_model(name, offer) for name, offer in offers.items()]})

    async def show_model(self, request: Request) -> Response:
        """One of them."""
        from starlette.concurrency import run_in_threadpool

        self.admit(request)
        name = request.path_params["name"]
        offers = await run_in_threadpool(self.models.offers)
        if name not in offers:
            raise unknown_model(offers)
        return _json(_model(name, offers[name]))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        asked = await self._read(request, ChatRequest)

        def prompt_of(model: LiveModel) -> list[int]:
            if model.serving.trained.format != "instruction":
                raise Refused(
                    400, "this model was trained on plain texts: use /v1/completions", code="not_a_chat_model",
                    param="model",
                )  # fmt: skip
            return model.prompt_of(self._redacted(asked.turns()))

        return await self._answer(asked, prompt_of, "chat")

    async def complete(self, request: Request) -> Response:
        """Go on with a text."""
        asked = await self._read(request, TextRequest)

        def prompt_of(model: LiveModel) -> list[int]:
            return model.prompt_of_text(self.redact([{"role": "user", "content": asked.text}])[0]["content"])

        return await self._answer(asked, prompt_of, "text")

    def _redacted(self, turns: list[Message]) -> list[Message]:
        """System turns stay: they are the caller's instructions, not a customer's words."""
        n_kept = int(turns[0]["role"] == "system")
        return [*turns[:n_kept], *self.redact(turns[n_kept:])]

    def admit(self, request: Request) -> None:
        """Refuse whoever does not bring the token."""
        if self.token is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise Refused(401, "the token is missing or wrong", code="invalid_api_key")

    async def read_body(self, request: Request) -> bytes:
        """What an admitted caller sends; refused when it is not JSON, and as soon as it is too much."""
        self.admit(request)
        refuse_other_types(request.headers)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.limits.max_bytes:
                raise Refused(413, f"a request may have {self.limits.max_bytes:,} bytes", code="request_too_large")
        return bytes(body)

    async def _read(self, request: Request, kind: type[R]) -> R:
        try:
            return kind.model_validate(orjson.loads(await self.read_body(request)))
        except orjson.JSONDecodeError:
            raise Refused(400, "the request is not JSON", code="invalid_json") from None
        except ValidationError as error:
            raise malformed(error) from None

    async def _answer(
        self, asked: CompletionRequest, prompt_of: Callable[[LiveModel], list[int]], form: Form
    ) -> Response:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import StreamingResponse

        if self.n_busy >= self.limits.max_parallel:
            raise Refused(503, "too many requests at once; try again", code="overloaded")
        self.n_busy += 1
        try:
            answering = await run_in_threadpool(self._prepare, asked, prompt_of, form)
            if asked.stream:
                unbuffered = {"X-Accel-Buffering": "no"}  # heard by a proxy such as nginx
                return StreamingResponse(self._stream(answering), media_type="text/event-stream", headers=unbuffered)
            return _json(await run_in_threadpool(answering.whole))
        finally:
            self.n_busy -= 1

    def _prepare(self, asked: CompletionRequest, prompt_of: Callable[[LiveModel], list[int]], form: Form) -> Answering:
        model = self.models.find(asked.model)
        if model is None:
            raise unknown_model(self.models.offers())
        try:
            prompt = prompt_of(model)
        except DataError as error:
            raise Refused(400, error.message, code="invalid_prompt", param="messages") from None
        wanted = asked.limit if asked.limit is not None else model.serving.decoding.max_new_tokens
        limit = min(self.limits.max_tokens, wanted) if asked.limit is None else wanted
        if limit > self.limits.max_tokens:
            raise Refused(
                400, f"max_tokens is {limit}; allowed are 1 to {self.limits.max_tokens}", code="max_tokens_too_large",
                param="max_tokens",
            )  # fmt: skip
        if not prompt or limit > model.room_after(prompt):
            raise Refused(
                400,
                f"the prompt has {len(prompt)} tokens and {limit} are to follow; the model's context has "
                f"{model.serving.base.context_length}",
                code="context_length_exceeded",
                param="messages",
            )
        return Answering(asked, model, prompt, limit, form)

    async def _stream(self, answering: Answering) -> AsyncIterator[bytes]:
        from starlette.concurrency import iterate_in_threadpool

        self.n_busy += 1  # counted here: a stream that nobody reads never begins
        try:
            async for event in iterate_in_threadpool(answering.events()):
                yield b"data: " + orjson.dumps(event) + b"\n\n"
        except Exception as error:  # the status is sent: all that is left is to say so
            yield b"data: " + orjson.dumps(as_error(as_refused(error))) + b"\n\n"
            return
        finally:
            self.n_busy -= 1
        yield b"data: [DONE]\n\n"


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
    response = _json(as_error(refused), refused.status)
    if refused.retry_after_s is not None:
        response.headers["Retry-After"] = str(refused.retry_after_s)
    return response


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(orjson.dumps(value), status, media_type="application/json")


def feedback_route(
    take: Callable[[list[bytes]], dict[str, Any]], read_body: Callable[[Request], Awaitable[bytes]]
) -> Route:
    """`POST /v1/feedback`: one JSON object, or one a line, as in a file of feedback.

    An answer of 200 says that every line that was not refused is on the disk; sent again it changes nothing, so a
    caller that got no answer sends it again. No text of a line is reported or logged.

    Args:
        take: Keeps the lines; returns how many are new, known and refused.
        read_body: The body of a caller that may send one.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.routing import Route

    one_at_a_time = threading.Lock()  # the database has one writer

    def keep(lines: list[bytes]) -> dict[str, Any]:
        with one_at_a_time:
            return take(lines)

    async def post(request: Request) -> Response:
        lines = lines_of(await read_body(request))
        try:
            told = await run_in_threadpool(keep, lines)
        except LockedError as error:
            raise Refused(503, error.message, code=error.code, retry_after_s=RETRY_AFTER_S) from None
        except ConfigError as error:
            raise Refused(400, error.message, code=error.code) from None
        return _json(told)

    return Route("/v1/feedback", post, methods=["POST"])


def lines_of(body: bytes) -> list[bytes]:
    """The objects of a body, one of which may go over several lines.

    Raises:
        Refused: it holds none.

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
        raise Refused(400, "the body is empty; a line is a JSON object", code="invalid_request")
    return lines
