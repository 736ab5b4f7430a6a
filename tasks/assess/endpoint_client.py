"""Client of an OpenAI-compatible endpoint: the only way for ticket text to leave the process.

It follows no redirects, uses no proxy for this machine, sends to no other machine under `privacy: local`, reads its key
only from the environment, quotes neither key nor text in an error, and sends nothing that its budget might not cover.
"""

import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.counted import counted
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
LONGEST_WAIT_S = 60.0
"""Longest that `Retry-After` is obeyed; a limit that lasts longer ends the run, which another one continues."""
MOST_COUNTED = 10**9
"""Tokens of one answer that no server counts."""
TURN_TOKENS = 16
"""Tokens that a chat template may add to each turn, and to the answer's."""
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
    seconds: float = 0.0
    """From the request to the answer, in the try that succeeded."""
    has_text: bool = True
    """False if the server gave none, such as after its filter: it answered, and there is nothing to read."""


@dataclass
class Spent:
    """What answers have used up so far, at least as much as the server may charge."""

    tokens: int = 0
    usd: float = 0.0

    def add(self, spec: EndpointSpec, n_in: int, n_out: int) -> None:
        self.tokens += n_in + n_out
        if spec.prices is not None:
            self.usd += spec.prices.usd(n_in, n_out)


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
        self.spent = Spent()
        self._headers = {"Accept": "application/json"}
        if spec.api_key_env is not None:
            check_key(spec, environ)
            self._headers["Authorization"] = f"Bearer {environ[spec.api_key_env]}"
        if spec.privacy == "local":
            check_local(spec.base_url)

    def ask(self, messages: Sequence[Message], *, max_new_tokens: int) -> Reply:
        """The greedy answer to a conversation.

        Retries after `WAITS_S`, or when `Retry-After` says, when the endpoint is unreachable, too slow or overloaded.

        Raises:
            GateError: TG0616, every try failed, the endpoint refuses the request, or its answer is malformed; TG0627,
                the budget may not cover the answer.
        """
        most = most_tokens(messages)
        body = {
            "model": self._spec.model,
            "messages": [{"role": turn["role"], "content": turn["content"]} for turn in messages],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        from httpx import ConnectError, ConnectTimeout, TransportError

        failure, n_tries = "", 0
        for wait_s in (*WAITS_S, None):
            self._check_budget(most, max_new_tokens)
            n_tries += 1
            asked, began = 0.0, time.perf_counter()
            try:
                with requested(
                    "POST", f"{self._spec.base_url}/chat/completions", json=body, headers=self._headers,
                    timeout_s=self._spec.timeout_s, direct=self._spec.privacy == "local",
                ) as answer:  # fmt: skip
                    if answer.is_success:
                        reply = replace(self._read(_body_of(answer)), seconds=time.perf_counter() - began)
                        self._count(reply, most, max_new_tokens)
                        return reply
                    asked, failure = _retry_after(answer), f"status {answer.status_code}"
                    if answer.status_code not in _RETRY and answer.status_code < 500:
                        raise self._no_answer(failure)
            except TransportError as error:
                failure = type(error).__name__
                if not isinstance(error, ConnectError | ConnectTimeout):
                    self.spent.add(self._spec, most, max_new_tokens)  # it may have answered, and charged for it
            if asked > LONGEST_WAIT_S:
                failure += f", and asks for {asked:.0f} seconds of patience"
                break
            if wait_s is not None:
                self._sleep(max(wait_s, asked))
        raise GateError(
            f"the endpoint did not answer in {counted(n_tries, 'try', 'tries')} ({failure})", code="TG0616",
            where=self._spec.base_url, hint="run again later: the answers so far are kept",
        )  # fmt: skip

    def ask_once(self, messages: Sequence[Message], *, max_new_tokens: int, kept: Path) -> Reply:
        """As `ask`, but kept in the folder `kept` by what was asked: no answer is paid for twice, in whichever run.

        What kept answers have cost counts against the budget, so that to run again is no way around it.
        """
        model = self._spec.model_dump(mode="json", include={"base_url", "model"})
        path = kept / f"reply-{sha256_json([model, list(messages), max_new_tokens])}.json"
        try:
            reply = Reply(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            reply = self.ask(messages, max_new_tokens=max_new_tokens)
            write_json(path, asdict(reply))
        else:
            self._count(reply, most_tokens(messages), max_new_tokens)
        return reply

    def _count(self, reply: Reply, most: int, max_new_tokens: int) -> None:
        # A server that counts nothing is charged for as much as it may have used.
        self.spent.add(self._spec, reply.n_prompt_tokens or most, reply.n_new_tokens or max_new_tokens)

    def _check_budget(self, n_in: int, n_out: int) -> None:
        budget = self._spec.budget
        if budget is None:
            return
        after = replace(self.spent)
        after.add(self._spec, n_in, n_out)
        limits = (
            (budget.tokens, self.spent.tokens, after.tokens, "tokens"), (budget.usd, self.spent.usd, after.usd, "USD"),
        )  # fmt: skip
        for limit, used, next_, unit in limits:
            if limit is not None and not next_ <= limit:
                raise GateError(
                    f"the endpoint's budget is {limit:,.10g} {unit}: {used:,.6g} are used, and the next answer may "
                    f"take {next_ - used:,.6g}",
                    code="TG0627", where=self._spec.base_url,
                    hint=f"raise budget.{'usd' if unit == 'USD' else unit}, or lower evaluate.max_items or "
                    "max_new_tokens; the answers so far are kept",
                )  # fmt: skip

    def _read(self, body: bytes) -> Reply:
        try:
            answer: Any = json.loads(body)
            choice = answer["choices"][0]
            text, usage = choice["message"]["content"], answer.get("usage") or {}
            ended = choice.get("finish_reason")
            n_in, n_out = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
            text, ended, n_in, n_out = None, None, 0, 0
        if not (0 <= n_in <= MOST_COUNTED and 0 <= n_out <= MOST_COUNTED):
            raise self._no_answer("a malformed answer")
        if text is None and isinstance(ended, str):
            return Reply("", False, n_in, n_out, has_text=False)
        if not isinstance(text, str):
            raise self._no_answer("a malformed answer")
        return Reply(text, ended == "stop", n_in, n_out)

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


def most_tokens(messages: Sequence[Message]) -> int:
    """Return at least as many tokens as the conversation has for any tokenizer of bytes: one per byte.

    >>> most_tokens([{"role": "user", "content": "é"}])
    34
    """
    return sum(len(turn["content"].encode()) + TURN_TOKENS for turn in messages) + TURN_TOKENS


def _retry_after(answer: "Response") -> float:
    """Return the seconds that the server asks to wait; 0 if it does not say, or says a date."""
    try:
        seconds = float(answer.headers.get("Retry-After") or 0)
    except (ValueError, AttributeError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


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
