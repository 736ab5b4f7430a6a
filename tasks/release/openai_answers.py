"""Answers in OpenAI's words: whole completions, and the chunks of a stream. Called by tasks/release/endpoint.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tasks.release.live import Piece

Form = Literal["chat", "text"]
"""`/v1/chat/completions` or `/v1/completions`."""


def as_completion(
    form: Form, head: Mapping[str, Any], text: str, finish_reason: str | None, n_prompt: int, n_tokens: int
) -> dict[str, Any]:
    """The answer in one object."""
    said: dict[str, Any] = {"text": text}
    if form == "chat":
        said = {"message": {"role": "assistant", "content": text, "refusal": None}}
    choice = {"index": 0, **said, "finish_reason": finish_reason, "logprobs": None}
    kind = "chat.completion" if form == "chat" else "text_completion"
    return {**head, "object": kind, "choices": [choice], "usage": usage(n_prompt, n_tokens)}


def first_chunks(form: Form, head: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a stream begins with: in a chat, whose turn it is."""
    if form == "chat":
        yield _chunk(form, head, {"delta": {"role": "assistant", "content": ""}}, None)


def as_chunks(form: Form, head: Mapping[str, Any], piece: Piece) -> Iterator[dict[str, Any]]:
    """The chunks of a piece; the last of an answer says how it ended."""
    if form == "text":
        yield _chunk(form, head, {"text": piece.text}, piece.finish_reason)
        return
    if piece.text:
        yield _chunk(form, head, {"delta": {"content": piece.text}}, None)
    if piece.finish_reason is not None:
        yield _chunk(form, head, {"delta": {}}, piece.finish_reason)


def as_usage_chunk(form: Form, head: Mapping[str, Any], n_prompt: int, n_tokens: int) -> dict[str, Any]:
    """The chunk after the last that `stream_options.include_usage` asks for."""
    return {**head, "object": _kind(form), "choices": [], "usage": usage(n_prompt, n_tokens)}


def usage(n_prompt: int, n_tokens: int) -> dict[str, int]:
    """Numbers of tokens."""
    return {"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens}


def _chunk(form: Form, head: Mapping[str, Any], said: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, **said, "finish_reason": finish_reason, "logprobs": None}
    return {**head, "object": _kind(form), "choices": [choice]}


def _kind(form: Form) -> str:
    return "chat.completion.chunk" if form == "chat" else "text_completion"
