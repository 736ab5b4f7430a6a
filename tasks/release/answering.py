"""One request to the endpoint and the model that answers it, in OpenAI's format: one object, or a stream's chunks.

Neither the request's nor the answer's text is ever logged.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from schemas.openai_api import CompletionRequest
from tasks.release.live import UNFINISHED, AnswerPiece, LiveModel, LivePrompt, TextLog, TokenChoice

Form = Literal["chat", "text"]
"""`/v1/chat/completions` or `/v1/completions`."""
OnRouting = Callable[[str, str, Literal["route", "review"]], None]
"""Gets name and version of a model and what happens with its answer."""
LEAST_LOG = -9999.0
"""OpenAI's number for a token that cannot come, since JSON has no infinity."""
log = logging.getLogger("tunegate.endpoint")


class Answering:
    """One request and the model that answers it."""

    def __init__(
        self,
        request: CompletionRequest,
        model: LiveModel,
        prompt: LivePrompt,
        *,
        limit: int,
        form: Form,
        on_routing: OnRouting,
    ) -> None:
        self.request, self.model, self.prompt, self.limit, self.form = request, model, prompt, limit, form
        self._on_routing = on_routing
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
        pieces = list(self._pieces())
        last = pieces[-1]
        self._log(last.n_tokens)
        text = "".join(piece.text for piece in pieces)
        kind, choice = "text_completion", _choice({"text": text}, last.finish_reason)
        if self.form == "chat":
            kind = "chat.completion"
            message = {"role": "assistant", "content": text, "refusal": None}
            logprobs = self._logprobs([choice for piece in pieces for choice in piece.choices])
            choice = _choice({"message": message}, last.finish_reason, logprobs)
        answer = {**self.head, "object": kind, "choices": [choice], "usage": self._usage(last.n_tokens)}
        return {**answer, **_routing(last)}

    def events(self) -> Iterator[dict[str, Any]]:
        """The answer in chunks; joined, their text is that of `whole`.

        The one with the finish reason also has the object `tunegate`.
        """
        if self.form == "chat":
            yield self._chunk(_choice({"delta": {"role": "assistant", "content": ""}}))
        n_tokens = 0
        for piece in self._pieces():
            n_tokens = piece.n_tokens
            if self.form == "text":
                yield {**self._chunk(_choice({"text": piece.text}, piece.finish_reason)), **_routing(piece)}
                continue
            if piece.text or piece.choices:
                yield self._chunk(_choice({"delta": {"content": piece.text}}, None, self._logprobs(piece.choices)))
            if piece.finish_reason is not None:
                yield {**self._chunk(_choice({"delta": {}}, piece.finish_reason)), **_routing(piece)}
        if self.request.wants_usage:
            yield {**self._chunk(), "usage": self._usage(n_tokens)}
        self._log(n_tokens)

    def _pieces(self) -> Iterator[AnswerPiece]:
        request = self.request
        for piece in self.model.answer(self.prompt, max_new_tokens=self.limit, stop=request.stops, n_top=request.n_top):
            if piece.routing is not None:
                self._on_routing(self.model.serving.name, self.model.offer.version, piece.routing.action)
            yield piece

    def _logprobs(self, choices: Sequence[TokenChoice]) -> dict[str, Any] | None:
        """OpenAI's `logprobs`; None if they were not wanted."""
        if self.request.n_top is None:
            return None
        found = [{**_log(each.chosen), "top_logprobs": [_log(top) for top in each.top]} for each in choices]
        return {"content": found, "refusal": None}

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.form == "chat" else "text_completion"
        return {**self.head, "object": kind, "choices": [*choices]}

    def _usage(self, n_tokens: int) -> dict[str, int]:
        n_prompt = len(self.prompt.ids)
        return {"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens}

    def _log(self, n_tokens: int) -> None:
        seconds = time.monotonic() - self.started
        log.info(
            "%s %s: %d tokens in, %d out, %.2f s",
            self.form, self.head["system_fingerprint"], len(self.prompt.ids), n_tokens, seconds,
        )  # fmt: skip


def _choice(
    content: Mapping[str, Any], finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": 0, **content, "finish_reason": finish_reason, "logprobs": logprobs}


def _log(token: TextLog) -> dict[str, Any]:
    """A token in OpenAI's form; one that is a part of a character has no bytes of its own to show."""
    shown = None if UNFINISHED in token.text else list(token.text.encode())
    return {"token": token.text, "logprob": max(token.log, LEAST_LOG), "bytes": shown}


def _routing(piece: AnswerPiece) -> dict[str, Any]:
    return {} if piece.routing is None else {"tunegate": piece.routing.to_json()}
