"""The placeholders of one ticket: equal values get equal numbers, counted per type from 1.

It knows nothing of how values are found. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from schemas.curation_steps import RedactionType
from tasks.curate.redaction.personal import Found

PLACEHOLDER = re.compile(rf"\[({'|'.join(kind.upper() for kind in get_args(RedactionType))})_([0-9]{{1,6}})\]")


class Placeholders:
    """Numbers of one ticket; no map from number to value leaves it.

    >>> placeholders = Placeholders()
    >>> people = [Found(0, 9, "email", "ann@x.org"), Found(11, 20, "email", "bob@x.org")]
    >>> placeholders.put("ann@x.org, bob@x.org", people)
    '[EMAIL_1], [EMAIL_2]'
    """

    def __init__(self, *, keep: str | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._keep = keep
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def reserve(self, text: str) -> None:
        """Leave out the numbers of placeholders that the text holds already."""
        if "[" in text:
            for kind, number in PLACEHOLDER.findall(text):
                self._last[kind.lower()] = max(self._last[kind.lower()], int(number))

    def put(self, text: str, values: Iterable[Found]) -> str:
        """The text with the values replaced, but for the one to keep."""
        pieces = []
        place = 0
        for found in values:
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
