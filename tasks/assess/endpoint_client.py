"""Client of an OpenAI-compatible endpoint: the only way for ticket text to leave the process.

It follows no redirects, uses no proxy for this machine, sends to no other machine under `privacy: local`, reads its key
only from the environment, and quotes neither key nor text in an error.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.errors import GateError
from schemas.evaluation import EndpointSpec
from tasks.http_client import requested
from tasks.storage.files import sha256_json, write_json
from tasks.tickets.prompts import Message

if TYPE_CHECKING:
    from httpx import Response

MAX_BYTES = 4_000_000
"""Maximum size of one answer's JSON."""
WAITS_S = (1.0, 4.0, 16.0)
"""Seconds before each retry."""
_RETRY = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which a retry may succeed."""

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Reply:
    """An answer of the endpoint."""

    text: str
    finished: bool
    """It ended by itself, not at the token limit."""
    n_prompt_tokens: int
    """0 when the server does not count them."""
    n_new_tokens: int


class Endpoint:
    """One endpoint; reads its key when created.

    Raises:
        GateError: TG0616, the key's variable is not set, or under `privacy: local` the name resolves to another
            machine.
    """

    def __init__(
        self, spec: EndpointSpec, environ: Mapping[str, str] = os.environ, *, sleep: Sleep = time.sleep
    ) -> None:
        self._sleep = sleep
        self._spec = spec
        self._headers = {"Accept": "application/json"}
        if spec.api_key_env is not None:
            check_key(spec, environ)
            self._headers["Authorization"] = f"Bearer {environ[spec.api_key_env]}"
        if spec.privacy == "local":
            check_local(spec.base_url)

    def ask(self, messages: Sequence[Message], *, max_new_tokens: int) -> Reply:
        """The greedy answer to a conversation.

        Retries after `WAITS_S` when the endpoint is unreachable, too slow or overloaded.

        Raises:
            GateError: TG0616, every try failed, the endpoint refuses the request, or its answer is malformed.
        """
        body = {
            "model": self._spec.model,
            "messages": [{"role": turn["role"], "content": turn["content"]} for turn in messages],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        from httpx import TransportError

        failure = ""
        for wait_s in (*WAITS_S, None):
            try:
                with requested(
                    "POST", f"{self._spec.base_url}/chat/completions", json=body, headers=self._headers,
                    timeout_s=self._spec.timeout_s, direct=self._spec.privacy == "local",
                ) as answer:  # fmt: skip
                    if answer.is_success:
                        return self._read(_body_of(answer))
                    failure = f"status {answer.status_code}"
                    if answer.status_code not in _RETRY and answer.status_code < 500:
                        raise self._no_answer(failure)
            except TransportError as error:
                failure = type(error).__name__
            if wait_s is not None:
                self._sleep(wait_s)
        raise GateError(
            f"the endpoint did not answer in {len(WAITS_S) + 1} tries ({failure})", code="TG0616",
            where=self._spec.base_url, hint="run again later: the answers so far are kept",
        )  # fmt: skip

    def ask_once(self, messages: Sequence[Message], *, max_new_tokens: int, kept: Path) -> Reply:
        """As `ask`, but cached in the folder `kept`: after an interruption, no answer is paid for twice."""
        model = self._spec.model_dump(mode="json", include={"base_url", "model"})
        path = kept / f"reply-{sha256_json([model, list(messages), max_new_tokens])}.json"
        try:
            return Reply(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            reply = self.ask(messages, max_new_tokens=max_new_tokens)
        write_json(path, asdict(reply))
        return reply

    def _read(self, body: bytes) -> Reply:
        try:
            answer: Any = json.loads(body)
            choice = answer["choices"][0]
            text, usage = choice["message"]["content"], answer.get("usage") or {}
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise self._no_answer("a malformed answer")
        return Reply(text, choice.get("finish_reason") == "stop", *counts)

    def _no_answer(self, failure: str) -> GateError:
        return GateError(f"the endpoint gives no answer ({failure})", code="TG0616", where=self._spec.base_url)


def _body_of(answer: "Response") -> bytes:
    """The body; empty if it is longer than `MAX_BYTES`."""
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_BYTES:
            return b""
    return body


def check_key(spec: EndpointSpec, environ: Mapping[str, str], *, where: str = "evaluate.endpoint") -> None:
    """Check that the variable with the endpoint's key is set, if it needs one.

    Raises:
        GateError: TG0616, it is not.
    """
    name = spec.api_key_env
    if name is not None and not environ.get(name):
        raise GateError(
            f"the variable {name} is not set", code="TG0616", where=f"{where}.api_key_env", hint=f"export {name}=..."
        )


def check_local(base_url: str) -> None:
    """Check that the name resolves only to addresses of this machine.

    Raises:
        GateError: TG0616, it does not.
    """
    parts = urlsplit(base_url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    if not found or not all(ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found):
        raise GateError(
            "privacy is local, but the endpoint's name does not resolve to this machine alone", code="TG0616",
            where=base_url, hint="use 127.0.0.1, or declare privacy: external",
        )  # fmt: skip
