"""One request to the endpoint and the model that answers it, in OpenAI's format: one object, or a stream's chunks.

Neither the request's nor the answer's text is ever logged. Called by `tasks/release/endpoint.py`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from schemas.openai_api import CompletionRequest
from tasks.release.live import LiveModel, Piece

Form = Literal["chat", "text"]
"""`/v1/chat/completions` or `/v1/completions`."""
log = logging.getLogger("tunegate.endpoint")


def as_completion(
    form: Form, head: Mapping[str, Any], text: str, finish_reason: str | None, n_prompt: int, n_tokens: int
) -> dict[str, Any]:
    """The answer as one object."""
    content: dict[str, Any] = {"text": text}
    if form == "chat":
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
    choice = {"index": 0, **content, "finish_reason": finish_reason, "logprobs": None}
    kind = "chat.completion" if form == "chat" else "text_completion"
    return {**head, "object": kind, "choices": [choice], "usage": usage(n_prompt, n_tokens)}


def first_chunks(form: Form, head: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The start of a stream: in a chat, the role."""
    if form == "chat":
        yield _chunk(form, head, {"delta": {"role": "assistant", "content": ""}}, None)


def as_chunks(form: Form, head: Mapping[str, Any], piece: Piece) -> Iterator[dict[str, Any]]:
    """The chunks of a piece; an answer's last chunk has its finish reason."""
    if form == "text":
        yield _chunk(form, head, {"text": piece.text}, piece.finish_reason)
        return
    if piece.text:
        yield _chunk(form, head, {"delta": {"content": piece.text}}, None)
    if piece.finish_reason is not None:
        yield _chunk(form, head, {"delta": {}}, piece.finish_reason)


def as_usage_chunk(form: Form, head: Mapping[str, Any], n_prompt: int, n_tokens: int) -> dict[str, Any]:
    """The final chunk that `stream_options.include_usage` requests."""
    return {**head, "object": _kind(form), "choices": [], "usage": usage(n_prompt, n_tokens)}


def usage(n_prompt: int, n_tokens: int) -> dict[str, int]:
    """The token counts."""
    return {"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens}


def _chunk(
    form: Form, head: Mapping[str, Any], content: Mapping[str, Any], finish_reason: str | None
) -> dict[str, Any]:
    choice = {"index": 0, **content, "finish_reason": finish_reason, "logprobs": None}
    return {**head, "object": _kind(form), "choices": [choice]}


def _kind(form: Form) -> str:
    return "chat.completion.chunk" if form == "chat" else "text_completion"


class Answering:
    """One request and the model that answers it."""

    def __init__(self, request: CompletionRequest, model: LiveModel, prompt: list[int], limit: int, form: Form) -> None:
        self.request, self.model, self.prompt, self.limit, self.form = request, model, prompt, limit, form
        prefix = "chatcmpl" if form == "chat" else "cmpl"
        self.head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": f"version-{model.offer.version}-{model.offer.bundle.digest[:12]}",
        }
        self.started = time.monotonic()

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        pieces = list(self.model.answer(self.prompt, max_new_tokens=self.limit, stop=self.request.stops))
        last = pieces[-1]
        self._log(last.n_tokens)
        text = "".join(piece.text for piece in pieces)
        return as_completion(self.form, self.head, text, last.finish_reason, len(self.prompt), last.n_tokens)

    def events(self) -> Iterator[dict[str, Any]]:
        """The answer in chunks; joined, their text is that of `whole`."""
        yield from first_chunks(self.form, self.head)
        n_tokens = 0
        for piece in self.model.answer(self.prompt, max_new_tokens=self.limit, stop=self.request.stops):
            n_tokens = piece.n_tokens
            yield from as_chunks(self.form, self.head, piece)
        if self.request.wants_usage:
            yield as_usage_chunk(self.form, self.head, len(self.prompt), n_tokens)
        self._log(n_tokens)

    def _log(self, n_tokens: int) -> None:
        seconds = time.monotonic() - self.started
        log.info(
            "%s %s: %d tokens in, %d out, %.2f s",
            self.form, self.head["system_fingerprint"], len(self.prompt), n_tokens, seconds,
        )  # fmt: skip
