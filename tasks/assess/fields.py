"""Find the declared fields in an answer and compare them with the ticket: text in, numbers out."""

import re
import unicodedata
from collections.abc import Mapping

MAX_SCORED_CHARS = 20_000
"""Characters of an answer that are scored: a pattern may take quadratic time, and an endless answer must not stop the
run."""


class FieldPattern:
    """The regular expression of `evaluate.fields`, compiled."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)
        self.names = tuple(self._pattern.groupindex)

    def value_in(self, text: str, name: str) -> str | None:
        """The answer's value of one field; None if it has none, or several.

        >>> FieldPattern(r"\\[(?P<category>[a-z]+)\\]").value_in("Thanks. [billing]", "category")
        'billing'
        """
        values = {match.groupdict()[name] for match in self._pattern.finditer(text[:MAX_SCORED_CHARS])}
        return values.pop() if len(values) == 1 else None

    def span_in(self, text: str, name: str) -> tuple[int, int] | None:
        """Where the answer first writes the field that `value_in` finds; None if that finds none.

        >>> FieldPattern(r"\\[(?P<category>[a-z]+)\\]").span_in("Thanks. [billing]", "category")
        (9, 16)
        """
        found = self._pattern.search(text) if self.value_in(text, name) is not None else None
        return None if found is None else found.span(name)

    def without(self, text: str) -> str:
        """The text without what the pattern finds, stripped.

        >>> FieldPattern(r"\\[(?P<category>[a-z]+)\\]").without("[billing] We are sorry.")
        'We are sorry.'
        """
        return self._pattern.sub("", text[:MAX_SCORED_CHARS]).strip()

    def score(self, text: str, item: Mapping[str, object]) -> dict[str, float]:
        """0 or 1 for `exact`, `format` and `field_<name>`.

        A field is right if the pattern is found and every occurrence has the item's value, compared as text: an answer
        with two categories is wrong. `exact`: all fields are right. `format`: found exactly once.

        >>> line = FieldPattern(r"\\[(?P<category>[a-z]+)\\]")
        >>> line.score("Thanks. [billing]", {"category": "billing"})
        {'exact': 1.0, 'format': 1.0, 'field_category': 1.0}
        >>> line.score("[billing] or [returns]", {"category": "billing"})
        {'exact': 0.0, 'format': 0.0, 'field_category': 0.0}
        """
        found = [match.groupdict() for match in self._pattern.finditer(text[:MAX_SCORED_CHARS])]
        right = {
            name: bool(found) and all(_same(fields[name], item.get(name)) for fields in found) for name in self.names
        }
        return {
            "exact": float(all(right.values()) and bool(found)),
            "format": float(len(found) == 1),
            **{f"field_{name}": float(value) for name, value in right.items()},
        }


def score_whole(text: str, answer: str) -> dict[str, float]:
    """0 or 1 for `exact` and `format` if no fields are declared.

    `exact`: equal to the reference answer after Unicode NFC, with white space collapsed and stripped; letter case
    matters. `format`: not empty. An empty reference never matches.

    >>> score_whole(" card_arrival\\n", "card_arrival")
    {'exact': 1.0, 'format': 1.0}
    """
    got, wanted = normalised(text[:MAX_SCORED_CHARS]), normalised(answer)
    return {"exact": float(bool(got) and got == wanted), "format": float(bool(got))}


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _same(got: str | None, wanted: object) -> bool:
    return got is not None and wanted is not None and got == str(wanted)
