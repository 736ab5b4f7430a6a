"""One request to the endpoint and the model that answers it, in one object or in the chunks of a stream.

No text of either is ever logged. Called by `tasks/release/endpoint.py`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from typing import Any

from schemas.openai_api import CompletionRequest
from tasks.release.live import LiveModel
from tasks.release.openai_answers import Form, as_chunks, as_completion, as_usage_chunk, first_chunks

log = logging.getLogger("tunegate.endpoint")


class Answering:
    """One request and the model that answers it."""

    def __init__(self, asked: CompletionRequest, model: LiveModel, prompt: list[int], limit: int, form: Form) -> None:
        self.asked, self.model, self.prompt, self.limit, self.form = asked, model, prompt, limit, form
        prefix = "chatcmpl" if form == "chat" else "cmpl"
        self.head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
            "system_fingerprint": f"version-{model.offer.version}-{model.offer.bundle.digest[:12]}",
        }
        self.started = time.monotonic()

    def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        pieces = list(self.model.answer(self.prompt, max_new_tokens=self.limit, stop=self.asked.stops))
        last = pieces[-1]
        self._log(last.n_tokens)
        text = "".join(piece.text for piece in pieces)
        return as_completion(self.form, self.head, text, last.finish_reason, len(self.prompt), last.n_tokens)

    def events(self) -> Iterator[dict[str, Any]]:
        """The answer in chunks; together they are the text of `whole`."""
        yield from first_chunks(self.form, self.head)
        n_tokens = 0
        for piece in self.model.answer(self.prompt, max_new_tokens=self.limit, stop=self.asked.stops):
            n_tokens = piece.n_tokens
            yield from as_chunks(self.form, self.head, piece)
        if self.asked.wants_usage:
            yield as_usage_chunk(self.form, self.head, len(self.prompt), n_tokens)
        self._log(n_tokens)

    def _log(self, n_tokens: int) -> None:
        seconds = time.monotonic() - self.started
        log.info(
            "%s %s: %d tokens in, %d out, %.2f s",
            self.form, self.head["system_fingerprint"], len(self.prompt), n_tokens, seconds,
        )  # fmt: skip
