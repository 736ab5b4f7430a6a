"""Asks a model behind an OpenAI-compatible address. The one way by which ticket text may leave the process.

It follows no redirect, uses no proxy for this machine, sends to no other machine under `privacy: local`, takes its key
from the environment alone, and quotes neither key nor text in an error.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schemas.endpoint import EndpointSpec
from schemas.errors import GateError
from tasks.files import sha256_json, write_json
from tasks.prompts import Message

MAX_BYTES = 4_000_000
"""Of one answer's JSON."""
WAITS_S = (1.0, 4.0, 16.0)
"""Seconds before it is asked again."""
_AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which another try may succeed."""

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Reply:
    """What the endpoint said."""

    text: str
    finished: bool
    """It ended by itself, not by the limit of tokens."""
    n_prompt_tokens: int
    """0 where the server does not count."""
    n_new_tokens: int


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


class Endpoint:
    """One endpoint, its key read when it is opened.

    Raises:
        GateError: TG0616, the variable of the key is not set, or `privacy: local`,
            and the name leads to another machine.
    """

    def __init__(
        self, spec: EndpointSpec, environ: Mapping[str, str] = os.environ, *, sleep: Sleep = time.sleep
    ) -> None:
        self._sleep = sleep
        self._spec = spec
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if spec.api_key_env is not None:
            key = environ.get(spec.api_key_env, "")
            if not key:
                raise GateError(
                    f"the variable {spec.api_key_env} is not set", code="TG0616", where="evaluate.endpoint.api_key_env"
                )
            self._headers["Authorization"] = f"Bearer {key}"
        if spec.privacy == "local":
            _check_local(spec.base_url)
        proxies = urllib.request.ProxyHandler({} if spec.privacy == "local" else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect())

    def ask(self, messages: Sequence[Message], *, max_new_tokens: int) -> Reply:
        """The greedy answer to a conversation.

        Where it cannot be reached, is too slow or overloaded, it is asked again after `WAITS_S`.

        Raises:
            GateError: TG0616, it did not answer in any try, or it refuses the request or its answer has another
                form.
        """
        asked = {
            "model": self._spec.model,
            "messages": [{"role": turn["role"], "content": turn["content"]} for turn in messages],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        request = urllib.request.Request(  # noqa: S310 - the spec allows http and https alone
            f"{self._spec.base_url}/chat/completions", data=json.dumps(asked).encode(), headers=self._headers
        )
        told = ""
        for wait_s in (*WAITS_S, None):
            try:
                with self._opener.open(request, timeout=self._spec.timeout_s) as answer:
                    return self._read(answer.read(MAX_BYTES + 1))
            except urllib.error.HTTPError as error:
                error.close()
                told = f"status {error.code}"
                if error.code not in _AGAIN and error.code < 500:
                    raise self._refused(told) from None
            except (OSError, http.client.HTTPException) as error:
                told = type(error).__name__
            if wait_s is not None:
                self._sleep(wait_s)
        raise GateError(
            f"the endpoint does not answer in {len(WAITS_S) + 1} tries ({told})", code="TG0616",
            where=self._spec.base_url, hint="run again when it does: answers that were given are kept",
        )  # fmt: skip

    def ask_once(self, messages: Sequence[Message], *, max_new_tokens: int, kept: Path) -> Reply:
        """As `ask`, and kept in the folder: what was paid for is not asked again after an interruption."""
        spoken = self._spec.model_dump(mode="json", include={"base_url", "model"})
        path = kept / f"reply-{sha256_json([spoken, list(messages), max_new_tokens])}.json"
        try:
            return Reply(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            reply = self.ask(messages, max_new_tokens=max_new_tokens)
        write_json(path, asdict(reply))
        return reply

    def _read(self, body: bytes) -> Reply:
        try:
            told: Any = json.loads(body) if len(body) <= MAX_BYTES else None
            choice = told["choices"][0]
            text, usage = choice["message"]["content"], told.get("usage") or {}
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise self._refused("an answer of another form")
        return Reply(text, choice.get("finish_reason") == "stop", *counts)

    def _refused(self, told: str) -> GateError:
        return GateError(f"the endpoint gives no answer ({told})", code="TG0616", where=self._spec.base_url)


def _check_local(base_url: str) -> None:
    """Every address behind the name is one of this machine."""
    parts = urlsplit(base_url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    if not found or not all(ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found):
        raise GateError(
            "privacy is local, and the endpoint's name does not lead to this machine alone", code="TG0616",
            where=base_url, hint="take 127.0.0.1, or declare privacy: external",
        )  # fmt: skip
