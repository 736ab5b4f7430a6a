"""Answer tickets with a bundle as for the gate: with the same prompt, the same decoding and the same base model.

What is registered in MLflow carries a loader of its own (`tasks/model/tunegate_loader.py`), which answers the same. The
ticket's text is never logged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from schemas.errors import DataError, SecurityError, StorageError
from schemas.release import ServingSpec
from schemas.tables import TICKET_COLUMNS
from schemas.template import PASSAGES, template_columns
from tasks.corpus.search import PassageIndex, question_of
from tasks.model.answer_engine import Engine, Item
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_base import link_chat
from tasks.model.chat_codec import ChatCodec
from tasks.release.routing import Router, Routing
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import verify
from tasks.tickets.prompts import conversation_for, messages_for, render_text

if TYPE_CHECKING:
    from tasks.model.answer_engine import Answer

Row = Mapping[str, object]


def load_bundle(path: Path, *, base: Path) -> ServedModel:
    """Load a bundle and its base model, of this folder, for answering.

    Raises:
        StorageError: the bundle does not match its manifest, or does not load.
        SecurityError: TG0821, a file of the base model differs from the one that the candidate was judged with.
    """
    verify(path)
    serving = read_serving(path)
    trained = serving.trained.model_copy(update={"root": path})
    with tempfile.TemporaryDirectory(prefix="tunegate-serve-") as scratch:
        model = serving.base.model_copy(update={"root": path})
        if trained.method != "full":  # a full model has all its weights and the tokenizer
            model = model.model_copy(update={"root": _checked(base, serving.base_files, Path(scratch) / "base")})
            link_chat(path, model.root)
        codec = ChatCodec.of(load_tokenizer(model), trained.format)
        router = None if serving.certificate is None else Router(serving.certificate, codec)
        labels = None if router is None else router.labels
        engine = Engine.load(model, trained, serving.decoding, codec, [], labels)
    return ServedModel(serving, engine, open_index(path, serving), router)


class ServedModel:
    """A loaded bundle."""

    def __init__(
        self,
        serving: ServingSpec,
        engine: Engine,
        passages: PassageIndex | None = None,
        router: Router | None = None,
    ) -> None:
        self.serving = serving
        self._engine = engine
        self._passages = passages
        self._router = router

    def answer(self, rows: Sequence[Row]) -> list[str]:
        """The reply to each ticket, in order; arguments and errors as of `answer_routed`."""
        return [text for text, _ in self.answer_routed(rows)]

    def answer_routed(self, rows: Sequence[Row]) -> list[tuple[str, Routing | None]]:
        """The reply to each ticket and what happens with it, in order; None if the version has no certificate.

        Args:
            rows: Ticket columns (`subject`, `body`, ...); missing columns count as empty.

        Raises:
            DataError: a row has an unknown column, no text for the prompt, or is too long for the model.
        """
        nothing = [self._engine.codec.end_id]  # the engine scores a reference answer with each prompt
        answers = self._answers([(self._prompt(row), nothing) for row in rows])
        return [(answer.text, self._route(row, answer)) for row, answer in zip(rows, answers, strict=True)]

    def _route(self, row: Row, answer: Answer) -> Routing | None:
        if self._router is None:
            return None
        prompt = self.serving.prompt
        missing = sorted({*template_columns(prompt.system), *template_columns(prompt.user)} - {PASSAGES, *row})
        uncertified = f"certified are answers to a prompt with {missing[0]}, which was not given" if missing else ""
        return self._router.decide(answer.text, answer.label_logs, uncertified=uncertified)

    def losses(self, rows: Sequence[Row]) -> list[float]:
        """Nats per token of each ticket's own answer (`train.prompt.answer`, filled from its columns), in order.

        Raises:
            DataError: as `answer`.
        """
        codec, prompt = self._engine.codec, self.serving.prompt
        pairs = []
        for row in rows:
            if self.serving.trained.format == "instruction":
                answer = conversation_for(prompt, _ticket(row))[-1]["content"]
            else:
                answer = render_text(prompt.answer, _ticket(row))
            pairs.append((self._prompt(row), codec.answer_ids(answer)))
        return [answer.loss for answer in self._answers(pairs)]

    def _prompt(self, row: Row) -> list[int]:
        ticket, prompt = _ticket(row), self.serving.prompt
        sources = {"messages", *template_columns(prompt.user)} - {PASSAGES}
        if not any(str(ticket[name] or "").strip() for name in sources):
            raise DataError(f"the ticket has no text in {', '.join(sorted(sources))}", code="TG0315", where="ticket")
        if self._passages is not None:
            ticket = {**ticket, PASSAGES: self._passages.cite(question_of(ticket))[0]}
        if self.serving.trained.format == "instruction":
            return self._engine.codec.prompt_ids(messages_for(prompt, ticket))
        return self._engine.codec.prompt_ids(render_text(prompt.user, ticket))

    def _answers(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Answer]:
        """Answers in the order of the pairs; batches have prompts of similar length, as for the gate."""
        items = [Item(str(place), prompt, reference) for place, (prompt, reference) in enumerate(pairs)]
        for item in items:
            self._check_room(item)
        ordered = sorted(items, key=lambda item: -len(item.prompt))
        size = self.serving.decoding.batch_size
        answers: list[Answer] = []
        for start in range(0, len(ordered), size):
            answers += self._engine.answer(ordered[start : start + size])
        return sorted(answers, key=lambda answer: int(answer.item_id))

    def _check_room(self, item: Any) -> None:
        needed = len(item.prompt) + max(self.serving.decoding.max_new_tokens, len(item.reference))
        context = self.serving.base.context_length
        if needed > context:
            raise DataError(
                f"the ticket's prompt has {len(item.prompt)} tokens and needs {needed} with its answer; the model's "
                f"context is {context}",
                code="TG0309",
                where=f"ticket {item.item_id}",
                hint="shorten the ticket",
            )


def open_index(bundle: Path, serving: ServingSpec) -> PassageIndex | None:
    """The index of passages that the bundle's prompt shows; None if it shows none."""
    return None if serving.search is None else PassageIndex(bundle, serving.search)


def read_serving(path: Path) -> ServingSpec:
    """Read a bundle's `serving.json`.

    Raises:
        StorageError: TG0510, `serving.json` cannot be read.
    """
    file = path / "serving.json"
    try:
        return ServingSpec.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(f"cannot be read: {type(error).__name__}", code="TG0510", where=str(file)) from None


def _checked(place: Path, files: Mapping[str, str], view: Path) -> Path:
    """A folder of links to only the files that the candidate was judged with: others could change the model."""
    view.mkdir()
    for name, expected in sorted(files.items()):
        source = place / name
        if Path(name).name != name:
            raise SecurityError(f"not a file name: {name!r}", code="TG0821", where="serving.json")
        got = sha256_file(source) if source.is_file() else "nothing"
        if got != expected:
            raise SecurityError(
                f"wrong base model: {name} has sha256 {got[:12]}, the candidate was judged with {expected[:12]}",
                code="TG0821",
                where=str(source),
                hint="`tunegate ops doctor` checks the champion's files",
            )
        (view / name).symlink_to(source.resolve())
    return view


def _ticket(row: Row) -> dict[str, object]:
    """All ticket columns; missing ones are null."""
    unknown = sorted(str(name) for name in row.keys() - set(TICKET_COLUMNS))
    if unknown:
        allowed = ", ".join(TICKET_COLUMNS)
        raise DataError(f"unknown column {unknown[0]!r}; allowed: {allowed}", code="TG0318", where="ticket")
    return {name: row.get(name) for name in TICKET_COLUMNS}
