"""Find the order numbers that the user's own patterns describe, with RE2 as DuckDB has it: linear time, one meaning.

It knows nothing of other types. Called by `tasks/curate/redaction/personal.py`; pyarrow, whose compute functions bring
RE2 to a single text, is imported at the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from schemas.errors import ConfigError

_BEGIN, _END, _OTHER = "\ue001", "\ue002", "\ue003"
_WITHOUT_MARKS = str.maketrans({_BEGIN: _OTHER, _END: _OTHER})


class OrderNumbers:
    """The patterns of `order_numbers`, as one.

    Raises:
        ConfigError: a pattern is no RE2 pattern, or matches the empty text.

    >>> list(OrderNumbers((r"NB-[0-9]{5}", r"\\b7[0-9]{9}\\b")).find("NB-48213 or 7123456789, not NB-482"))
    [(0, 8, 'NB-48213'), (12, 22, '7123456789')]
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            _check(pattern)
        self.pattern = "|".join(f"(?:{pattern})" for pattern in patterns)

    def find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Spans of the order numbers, left to right, each as it is written."""
        if not text.isascii():
            text = text.translate(_WITHOUT_MARKS)
        first, *pieces = _marked(text, self.pattern).split(_BEGIN)
        place = len(first)
        for piece in pieces:
            number, _, between = piece.partition(_END)
            yield place, place + len(number), number
            place += len(number) + len(between)


@cache
def order_numbers(patterns: tuple[str, ...]) -> OrderNumbers | None:
    """The patterns checked, once per process; None for none."""
    return OrderNumbers(patterns) if patterns else None


def _marked(text: str, pattern: str) -> str:
    import pyarrow as pa
    import pyarrow.compute as pc

    marked = pc.replace_substring_regex(pa.scalar(text), pattern=pattern, replacement=rf"{_BEGIN}\0{_END}")
    return str(marked.as_py())


def _check(pattern: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    where = "curate.redact.order_numbers"
    try:
        matches_nothing = pc.match_substring_regex(pa.scalar(""), pattern=pattern).as_py()
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"no RE2 pattern: `{pattern}`: {error}",
            code="TG0192",
            where=where,
            hint=r"RE2 has no look-around and no back-references; `\b` marks the edge of a word: `\bNB-[0-9]{5}\b`",
        ) from None
    if matches_nothing:
        raise ConfigError(
            f"`{pattern}` matches the empty text, so it would match everywhere",
            code="TG0192",
            where=where,
            hint="ask for at least one character: `[0-9]+` instead of `[0-9]*`",
        )
