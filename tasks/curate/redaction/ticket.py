"""Redact the texts of one ticket: subject, body, reply, and every text inside the messages.

Equal values get the same placeholder within the ticket, `[EMAIL_1]`; no map from placeholder to value is kept.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import get_args

import orjson

from schemas.curation_steps import NamesSpec, RedactionType, RedactStep
from tasks.curate.redaction.gates import TEXTS
from tasks.curate.redaction.name_rules import find_names_by_rules
from tasks.curate.redaction.names import find_names, selects
from tasks.curate.redaction.number_rows import FoundValue
from tasks.curate.redaction.numbers import order_numbers
from tasks.curate.redaction.personal import find_personal, is_personal_id

PLACEHOLDER = re.compile(rf"\[({'|'.join(kind.upper() for kind in get_args(RedactionType))})_([0-9]{{1,6}})\]")
TEXT_COLUMNS = ("subject", "body", "reply")
"""Plain texts in the order in which values are numbered; the conversation in `messages` comes last."""
_STRUCTURE = frozenset({"role", "type", "id", "tool_call_id"})  # keys of a message whose values are not text


class Placeholders:
    """The placeholders of one ticket; the map from number to value stays inside.

    >>> placeholders = Placeholders()
    >>> people = [FoundValue(0, 9, "email", "ann@x.org"), FoundValue(11, 20, "email", "bob@x.org")]
    >>> placeholders.put("ann@x.org, bob@x.org", people)
    '[EMAIL_1], [EMAIL_2]'
    """

    def __init__(self, *, keep: str | None = None, kept: Kept | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._keep, self._kept = keep, kept
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def reserve(self, text: str) -> None:
        """Skip the numbers of placeholders that the text already has."""
        if "[" in text:
            for kind, number in PLACEHOLDER.findall(text):
                self._last[kind.lower()] = max(self._last[kind.lower()], int(number))

    def put(self, text: str, values: Iterable[FoundValue]) -> str:
        """Replace the values in the text, except those to keep."""
        pieces = []
        place = 0
        for found in values:
            value = text[found.start : found.end]
            if value == self._keep or (self._kept is not None and self._kept.has(found, value)):
                continue
            pieces += [text[place : found.start], self._placeholder(found.type, found.key)]
            place = found.end
            self.counts[found.type] += 1
        return "".join([*pieces, text[place:]])

    def _placeholder(self, kind: str, key: str) -> str:
        if (kind, key) not in self._numbers:
            self._last[kind] += 1
            self._numbers[kind, key] = self._last[kind]
        return f"[{kind.upper()}_{self._numbers[kind, key]}]"


class Kept:
    """The values that `redact.keep` names, compared as equal values of a ticket are.

    >>> kept = Kept(("Help@shop.example", "@desk.example"), region="US")
    >>> [kept.has(each, "") for each in find_personal("help@Shop.example, ann@desk.example, bob@x.org", ["email"])]
    [True, True, False]
    """

    def __init__(self, values: Collection[str], *, region: str) -> None:
        self._domains = tuple(value.lower() for value in values if value.startswith("@"))
        self._texts = frozenset(values)
        self._keys = frozenset(
            (found.type, found.key)
            for value in values
            for found in find_personal(value, get_args(RedactionType), region=region)
            if found.end - found.start == len(value)
        )

    def has(self, found: FoundValue, text: str) -> bool:
        """Whether to keep the value.

        Args:
            found: The value.
            text: As it is written.
        """
        if (found.type, found.key) in self._keys or not self._texts.isdisjoint((text, found.key)):
            return True
        return found.type == "email" and bool(self._domains) and found.key.endswith(self._domains)


class TicketRedactor:
    """Redacts tickets as a `RedactStep` says.

    Raises:
        ConfigError: an `order_numbers` pattern is not RE2.
    """

    def __init__(self, step: RedactStep) -> None:
        self._step = step
        self._orders = order_numbers(step.order_numbers)
        self._kept = Kept(step.keep, region=step.region) if step.keep else None
        self._names = step.names if "name" in step.types and step.names and step.names.mode != "sample" else None
        self._all_types = dict.fromkeys(TEXTS, frozenset(step.types))
        self._types_of: dict[tuple[int, ...], dict[str, frozenset[RedactionType]]] = {}

    def redact(
        self, row: Mapping[str, str | None], types: Mapping[str, frozenset[RedactionType]] | None = None
    ) -> tuple[dict[str, str | None], Placeholders]:
        """Redact the texts of a ticket; return it, other columns unchanged, and the placeholders put into it.

        Args:
            row: The ticket.
            types: The step's types that each text may hold (`types_of`); None for all.
        """
        types = self._all_types if types is None else types
        reference = row.get("reference")
        placeholders = Placeholders(
            keep=None if reference and is_personal_id(reference) else reference, kept=self._kept
        )
        for name in TEXTS:
            placeholders.reserve(row.get(name) or "")
        names = self._names if "name" in types["body"] else None
        by_model = names is not None and (
            names.mode == "all" or (names.mode == "gate" and any(map(selects, texts_of(row))))
        )

        def replace(text: str, found: Collection[RedactionType]) -> str:
            return placeholders.put(text, self._find(text, found, names, by_model=by_model))

        redacted = dict(row)
        for name in TEXT_COLUMNS:
            if types[name] and (text := row.get(name)):
                redacted[name] = replace(text, types[name])
        if types["messages"] and (messages := row.get("messages")):
            redacted["messages"] = _redact_messages(messages, lambda text: replace(text, types["messages"]))
        return redacted, placeholders

    def types_of(self, *bits: int) -> Mapping[str, frozenset[RedactionType]]:
        """Map each text of the ticket to the step's types whose bits are set; see `ticket_bits`."""
        if bits not in self._types_of:
            self._types_of[bits] = {
                name: frozenset(type_ for place, type_ in enumerate(self._step.types) if of_text & (1 << place))
                for name, of_text in zip(TEXTS, bits, strict=True)
            }
        return self._types_of[bits]

    def _find(
        self, text: str, types: Collection[RedactionType], names: NamesSpec | None, *, by_model: bool
    ) -> list[FoundValue]:
        found = find_personal(text, types, region=self._step.region, orders=self._orders)
        if names is None:
            return found
        people = [*find_names_by_rules(text), *(find_names(text, min_score=names.min_score) if by_model else ())]
        # Where rules and model overlap, the name that begins first counts, and of those the longest.
        for start, end, key in sorted(people, key=lambda name: (name[0], -name[1])):
            name = FoundValue(start, end, "name", key)
            if not _overlaps(name, found):
                insort(found, name)
        return found


def texts_of(row: Mapping[str, str | None]) -> Iterator[str]:
    """Yield every text of the ticket, those inside the messages one by one."""
    for name in TEXT_COLUMNS:
        if text := row.get(name):
            yield text
    if messages := row.get("messages"):
        texts: list[str] = []

        def note(text: str) -> str:
            texts.append(text)
            return text

        _redact_messages(messages, note)
        yield from texts


def _overlaps(name: FoundValue, found: list[FoundValue]) -> bool:
    place = bisect_left(found, name.end, key=lambda value: value.start)
    return place > 0 and found[place - 1].end > name.start


def _redact_messages(messages: str, redact: Callable[[str], str]) -> str:
    """Redact every text in the conversation; unreadable JSON is redacted as one text, never passed on."""
    try:
        parsed = orjson.loads(messages)
        redacted = _redact_inside(parsed, redact)
    except (orjson.JSONDecodeError, RecursionError):
        return redact(messages)
    return messages if redacted == parsed else orjson.dumps(redacted).decode()


def _redact_inside(value: object, redact: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redact_inside(item, redact) for item in value]
    if isinstance(value, Mapping):
        return {key: item if key in _STRUCTURE else _redact_inside(item, redact) for key, item in value.items()}
    return value
