"""The models of an endpoint: found by alias, loaded on demand, several adapters on one base.

Aliases are resolved for every request, so a moved alias needs no restart; an answer finishes on the model that started
it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.artifacts import BundleRef, ModelRef
from schemas.errors import ConfigError, StorageError
from schemas.release import ServingSpec
from schemas.template import PASSAGES, template_columns
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.release.routing import Router, Routing
from tasks.release.serve import open_index, read_serving
from tasks.storage.sealed_folder import verify
from tasks.tickets.prompts import Message, frame_passages, render_text

if TYPE_CHECKING:
    from tasks.corpus.search import PassageIndex
    from tasks.model.shared_base import Generation, Generator, TokenLogs

OWN_SYSTEM = "certified are answers to the pipeline's own system message, and the request has another"
NO_CHAT = "certified are answers in a chat, and the request is for plain text"
UNFINISHED = "\ufffd"
"""What a decoder writes for an incomplete character."""


@dataclass(frozen=True)
class Offer:
    """A version that requests can use."""

    version: str
    verdict: str
    model: ModelRef
    bundle: BundleRef


Offers = Callable[[], Mapping[str, Offer]]
"""Names (aliases and versions) and the versions that they currently refer to."""


@dataclass(frozen=True)
class TextLog:
    """A token's text and how likely the token was, nats."""

    text: str
    log: float


@dataclass(frozen=True)
class TokenChoice:
    """A token of an answer, and the most likely ones at its place, falling."""

    chosen: TextLog
    top: tuple[TextLog, ...]


@dataclass(frozen=True)
class AnswerPiece:
    """A part of an answer; the last one has the finish reason."""

    text: str
    n_tokens: int
    """Tokens of the whole answer so far, including the end token."""
    choices: tuple[TokenChoice, ...] = ()
    """Of the tokens whose text ends in this piece, if that was wanted; not of the end token."""
    finish_reason: str | None = None
    """`stop` or `length`."""
    routing: Routing | None = None
    """Of the last piece, if the version has a certificate."""


@dataclass(frozen=True)
class LivePrompt:
    """The token ids of a prompt."""

    ids: list[int]
    uncertified: str = ""
    """Why a certificate is not about answers to it; empty if it is."""


class LiveModel:
    """A loaded version."""

    def __init__(
        self,
        offer: Offer,
        serving: ServingSpec,
        codec: ChatCodec,
        generator: Generator,
        passages: PassageIndex | None = None,
    ) -> None:
        self._router = None if serving.certificate is None else Router(serving.certificate, codec)
        self.offer = offer
        self.serving = serving
        self._codec = codec
        self._generator = generator
        self._passages = passages

    def prompt_of(self, messages: Sequence[Message]) -> LivePrompt:
        """A conversation in training's template.

        As in training, a fixed system text comes first if the conversation has none, and a prompt that shows passages
        gets those that fit the last turn.

        Raises:
            DataError: the template rejects the turns.
        """
        prompt, turns = self.serving.prompt, list(messages)
        found = self._cite(turns[-1]["content"])
        turns[-1] = {**turns[-1], "content": frame_passages(prompt.user, turns[-1]["content"], found)}
        if prompt.system and set(template_columns(prompt.system)) - {PASSAGES}:  # the caller's to fill in
            return LivePrompt(self._codec.prompt_ids(turns))
        fixed: list[Message] = []
        if prompt.system:
            fixed = [{"role": "system", "content": render_text(prompt.system, found)}]
        if turns[0]["role"] != "system":
            return LivePrompt(self._codec.prompt_ids([*fixed, *turns]))
        return LivePrompt(self._codec.prompt_ids(turns), "" if turns[:1] == fixed else OWN_SYSTEM)

    def prompt_of_text(self, text: str) -> LivePrompt:
        """A plain text, with the passages that fit it if the prompt shows any."""
        framed = frame_passages(self.serving.prompt.user, text, self._cite(text))
        return LivePrompt(
            self._codec.prompt_ids(framed), NO_CHAT if self.serving.trained.format != "completion" else ""
        )

    def _cite(self, text: str) -> dict[str, str]:
        return {} if self._passages is None else {PASSAGES: self._passages.cite(text)[0]}

    def answer(
        self, prompt: LivePrompt, *, max_new_tokens: int, stop: Sequence[str] = (), n_top: int | None = None
    ) -> Iterator[AnswerPiece]:
        """Yield the greedy answer in pieces; joined, they are the text that the gate would have read.

        Args:
            stop: Texts before which the answer ends.
            n_top: Also say how likely each token was, and so many of the most likely ones; None says nothing.

        Raises:
            TrainingError: out of memory.
        """
        tokenizer = self._codec.tokenizer
        generation = self._generator.generate(prompt.ids, max_new_tokens=max_new_tokens, n_top=n_top)
        ends: list[int] = []
        sent, n_shown, ended = 0, 0, False
        whole_only = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))  # it changes earlier text
        for token in generation:
            ended = token in self._generator.stops
            if ended:
                break
            text = "" if whole_only else self._decode(generation.tokens)
            ends.append(len(text))
            if _first_stop(text, stop) is not None:
                break
            final = len(text) - _may_change(text, stop)
            if final > sent:
                n_final = max(n_shown, sum(end <= final for end in ends))
                yield AnswerPiece(
                    text[sent:final], len(generation.tokens), self._choices(generation.logs[n_shown:n_final])
                )
                sent, n_shown = final, n_final
        text = self._decode(generation.tokens[: len(ends)])
        cut = _first_stop(text, stop)
        # Where a stop text cuts, a token belongs to the answer if its text begins before.
        n_shown_in_all = len(ends) if cut is None else sum(start < cut for start in [0, *ends][: len(ends)])
        yield AnswerPiece(
            text[sent:cut],
            len(generation.tokens),
            self._choices(generation.logs[n_shown:n_shown_in_all]),
            "stop" if ended or cut is not None else "length",
            self._route(prompt, generation, text, cut=cut, limit=max_new_tokens, ended=ended),
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._codec.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _choices(self, logs: Sequence[TokenLogs]) -> tuple[TokenChoice, ...]:
        def shown(token: int, log: float) -> TextLog:
            return TextLog(str(self._codec.tokenizer.decode([token])), log)

        return tuple(TokenChoice(shown(each.token, each.log), tuple(shown(*top) for top in each.top)) for each in logs)

    def _route(
        self, prompt: LivePrompt, generation: Generation, text: str, *, cut: int | None, limit: int, ended: bool
    ) -> Routing | None:
        """Route or review; None without a certificate.

        Args:
            text: Of the whole answer, with what a stop text cuts off.
            cut: Where a stop text cuts it.
            limit: Most tokens that it could have.
            ended: The model ended it itself.
        """
        if self._router is None:
            return None
        longest = self.serving.decoding.max_new_tokens
        uncertified = prompt.uncertified
        if cut is not None:
            uncertified = uncertified or "a stop text of the request cut the answer"
        elif len(generation.tokens) > longest or not (ended or limit == longest):
            uncertified = uncertified or f"certified are answers with a limit of {longest} tokens"
        place = self._router.find(generation.tokens, text)
        label_logs = None if place is None else generation.label_logs(place)
        return self._router.decide(text, label_logs, uncertified=uncertified)


class BaseInMemory(NamedTuple):
    """A base model as it is loaded."""

    digest: str
    dtype: str
    """Of `evaluate.dtype`: another one is another copy of the weights."""


def base_of(offer: Offer) -> BaseInMemory:
    """The base that a version needs in memory.

    Raises:
        StorageError: TG0510, its bundle cannot be read.
    """
    return BaseInMemory(offer.model.digest, read_serving(offer.bundle.root).decoding.dtype)


class Memory:
    """The versions in memory and their bases, for one or several `LiveModels`; the least recently used goes first.

    Args:
        keep: Most versions in memory.
        only_base: The one base that all of them must share; None allows any.
    """

    def __init__(self, *, keep: int = 4, only_base: BaseInMemory | None = None) -> None:
        from tasks.model.shared_base import SharedBases

        self.keep = keep
        self.only_base = only_base
        self.bases = SharedBases()
        self.loaded: OrderedDict[str, LiveModel] = OrderedDict()
        self.lock = threading.Lock()


class LiveModels:
    """The versions that some names refer to, loaded when they are first used."""

    def __init__(self, offers: Offers, memory: Memory | None = None) -> None:
        self.offers = offers
        self._memory = memory or Memory()

    def find(self, name: str) -> LiveModel | None:
        """The model that the name currently refers to, loaded if necessary; None for an unknown name.

        Raises:
            StorageError: TG0549, its files differ from what was evaluated; or they are missing or damaged.
            ConfigError: TG0111, it cannot share the one base.
        """
        offer = self.offers().get(name)
        if offer is None:
            return None
        memory = self._memory
        with memory.lock:
            key = f"{offer.bundle.digest} {offer.model.digest}"
            if key not in memory.loaded:
                memory.loaded[key] = self._load(offer)
            memory.loaded.move_to_end(key)
            while len(memory.loaded) > memory.keep:
                memory.loaded.popitem(last=False)
            memory.bases.keep_only({live.offer.model.digest for live in memory.loaded.values()})
            return memory.loaded[key]

    def _load(self, offer: Offer) -> LiveModel:
        _check(offer.bundle)
        serving, bases = read_serving(offer.bundle.root), self._memory.bases
        if self._memory.only_base is not None:
            check_shares(offer, serving, self._memory.only_base)
        if not bases.holds(offer.model, serving.decoding):
            _check(offer.model)
        trained = serving.trained.model_copy(update={"root": offer.bundle.root})
        whole = offer.model.model_copy(update={"root": offer.bundle.root}) if trained.method == "full" else offer.model
        codec = ChatCodec.of(load_tokenizer(whole), trained.format)
        generator = bases.load(offer.model, trained, serving.decoding, codec)
        if self._memory.only_base is not None and not bases.holds(offer.model, serving.decoding):
            raise _cannot_share(serving, "the fast decoder does not support its base or its adapter")
        return LiveModel(offer, serving, codec, generator, open_index(offer.bundle.root, serving))


def check_shares(offer: Offer, serving: ServingSpec, base: BaseInMemory) -> None:
    """Refuse a version that is no adapter of this base.

    Raises:
        ConfigError: TG0111.
    """
    if offer.model.digest != base.digest:
        raise _cannot_share(
            serving, f"its base model has sha256 {offer.model.digest[:12]}, the others' {base.digest[:12]}"
        )
    if serving.decoding.dtype != base.dtype:
        raise _cannot_share(serving, f"its evaluate.dtype is {serving.decoding.dtype}, the others' {base.dtype}")
    if serving.trained.method != "lora":
        raise _cannot_share(serving, f"method {serving.trained.method} has no adapter for the base as it is in memory")


def _cannot_share(serving: ServingSpec, why: str) -> ConfigError:
    return ConfigError(
        f"{serving.name} cannot share one base model in memory: {why}",
        code="TG0111",
        where=serving.base.uri.split("#")[0],
        hint=f"serve {serving.name} by an endpoint of its own: `tunegate model endpoint PIPELINE --port ...`",
    )


def _check(artifact: BundleRef | ModelRef) -> None:
    got = verify(artifact.root)
    if got != artifact.digest:
        raise StorageError(
            f"the model has sha256 {got[:12]}, but {artifact.digest[:12]} was evaluated",
            code="TG0549",
            where=str(artifact.root),
            hint="`tunegate ops doctor` finds the damage; `tunegate model rollback` returns to the previous version",
        )


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    places = [place for place in (text.find(each) for each in stop) if place >= 0]
    return min(places) if places else None


def _may_change(text: str, stop: Sequence[str]) -> int:
    """Number of final characters that later tokens may change: an incomplete one, or the start of a stop text."""
    begun = [n for each in stop for n in range(1, len(each)) if text.endswith(each[:n])]
    half = len(text) - len(text.rstrip(UNFINISHED))
    return max([half, *begun])
