"""Redact the texts of one ticket: subject, body, reply, and every text inside the messages.

It knows nothing of tables. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import orjson

from schemas.curation_steps import RedactionType, RedactStep
from tasks.curate.redaction.names import find_names, selects
from tasks.curate.redaction.order_numbers import order_numbers
from tasks.curate.redaction.personal import Found, find_personal
from tasks.curate.redaction.placeholders import Placeholders

TEXT_COLUMNS = ("subject", "body", "reply")
"""Plain texts, in the order in which values get their numbers; the conversation in `messages` comes after."""
_STRUCTURE = frozenset({"role", "type", "id", "tool_call_id"})  # keys of a message whose values are no text


class TicketRedactor:
    """What a `RedactStep` asks for, ready for many tickets.

    Raises:
        ConfigError: an order number's pattern is no RE2 pattern.
    """

    def __init__(self, step: RedactStep) -> None:
        self._step = step
        self._types: tuple[RedactionType, ...] = step.types
        self._orders = order_numbers(step.order_numbers)
        self._names = step.names if "name" in step.types and step.names and step.names.mode != "sample" else None

    def redact(self, row: Mapping[str, str | None]) -> tuple[dict[str, str | None], Placeholders]:
        """The ticket with its texts redacted, its other columns as they are, and the placeholders put into it."""
        placeholders = Placeholders(keep=row.get("reference"))
        for name in (*TEXT_COLUMNS, "messages"):
            placeholders.reserve(row.get(name) or "")
        with_names = self._names is not None and (self._names.mode == "all" or any(map(selects, texts_of(row))))

        def replace(text: str) -> str:
            return placeholders.put(text, self._find(text, with_names=with_names))

        redacted = dict(row)
        for name in TEXT_COLUMNS:
            if text := row.get(name):
                redacted[name] = replace(text)
        if messages := row.get("messages"):
            redacted["messages"] = _redact_messages(messages, replace)
        return redacted, placeholders

    def _find(self, text: str, *, with_names: bool) -> list[Found]:
        found = find_personal(text, self._types, region=self._step.region, orders=self._orders)
        if with_names and self._names is not None:
            names = [Found(*name[:2], "name", name[2]) for name in find_names(text, min_score=self._names.min_score)]
            found = sorted([*found, *(name for name in names if not _overlaps(name, found))])
        return found


def texts_of(row: Mapping[str, str | None]) -> Iterator[str]:
    """Every text of the ticket, those inside the messages one by one."""
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


def _overlaps(name: Found, found: list[Found]) -> bool:
    return any(name.start < other.end and other.start < name.end for other in found)


def _redact_messages(messages: str, redact: Callable[[str], str]) -> str:
    """The conversation with every text in it redacted; unreadable JSON is redacted as one text, never passed on."""
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
