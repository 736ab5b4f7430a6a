"""Replace personal data in the texts of a ticket by typed placeholders that stay the same inside the ticket.

`[EMAIL_1]` in the reply is the `[EMAIL_1]` of the question, so a model can learn to repeat it. No map from placeholder
to value is kept. What counts as personal is decided in `tasks/curate/redaction/personal.py`. Called by
`flows/curate.py`, and by `tunegate predict` for the one ticket that it is given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactionType, RedactStep
from tasks.curate.redaction.personal import find_personal

TEXT_COLUMNS = ("subject", "body", "reply")
"""Plain texts, in the order in which values get their numbers; the conversation in `messages` comes after."""
_PLACEHOLDER = re.compile(r"\[(EMAIL|PHONE|CARD|IBAN|IP|URL|SECRET)_([0-9]{1,6})\]")
_STRUCTURE = frozenset({"role", "type", "id", "tool_call_id"})  # keys of a message whose values are no text


def redact_tickets(*, tickets: TicketTable, step: RedactStep, out: Path) -> TicketTable:
    """Redact subject, body, reply and messages; every row stays.

    A value equal to the ticket's `reference` is kept: the answer must repeat it. Numbers go on after placeholders
    that the text already holds. Notes: `redacted_<type>` counts the values replaced, `redacted_tickets` the rows.
    """
    import pyarrow as pa

    from tasks.curate.rows import read_rows, write_removed, write_tickets

    table = read_rows(tickets.tickets)
    columns = {name: table.column(name).to_pylist() for name in (*TEXT_COLUMNS, "messages", "reference")}
    counts: Counter[str] = Counter()
    n_tickets = 0
    for row in range(table.num_rows):
        redacted, replaced = redact_row({name: texts[row] for name, texts in columns.items()}, step.types)
        for name, text in redacted.items():
            columns[name][row] = text
        counts.update(replaced)
        n_tickets += bool(replaced)
    for name in (*TEXT_COLUMNS, "messages"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(columns[name], pa.string()))
    n_rows = write_tickets(table, out)
    write_removed([], out)
    notes = {f"redacted_{kind}": counts[kind] for kind in step.types} | {"redacted_tickets": n_tickets}
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows), notes=notes)


def redact_row(
    row: Mapping[str, str | None], types: tuple[RedactionType, ...]
) -> tuple[dict[str, str | None], Counter[str]]:
    """One ticket with its texts redacted, its other columns as they are, and the values replaced per type.

    >>> redact_row({"subject": "From ann@example.org", "body": "Write to Ann@example.org"}, ("email",))
    ({'subject': 'From [EMAIL_1]', 'body': 'Write to [EMAIL_1]'}, Counter({'email': 2}))
    """
    redacted = dict(row)
    redactor = Redactor(types, keep=row.get("reference"))
    for name in (*TEXT_COLUMNS, "messages"):
        redactor.reserve(row.get(name) or "")
    for name in TEXT_COLUMNS:
        if text := row.get(name):
            redacted[name] = redactor.redact(text)
    if messages := row.get("messages"):
        redacted["messages"] = _redact_messages(messages, redactor.redact)
    return redacted, redactor.counts


class Redactor:
    """The placeholders of one ticket: equal values get equal numbers, counted per type from 1.

    >>> Redactor(("email",)).redact("From ann@example.org, cc bob@example.org and Ann@Example.org")
    'From [EMAIL_1], cc [EMAIL_2] and [EMAIL_1]'
    """

    def __init__(self, types: tuple[RedactionType, ...], *, keep: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._types = types
        self._keep = keep
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def reserve(self, text: str) -> None:
        """Leave out the numbers of placeholders that the text holds already."""
        for kind, number in _PLACEHOLDER.findall(text):
            self._last[kind.lower()] = max(self._last[kind.lower()], int(number))

    def redact(self, text: str) -> str:
        """The text with its values replaced."""
        pieces = []
        place = 0
        for found in find_personal(text, self._types):
            if text[found.start : found.end] == self._keep:
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
