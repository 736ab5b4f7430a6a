"""A text as it may be shown to people: nothing that cannot be seen, that turns lines around or speaks to a terminal.

Called by what draws pages (`tasks/release`, `tasks/curate/cards`) and by what commands print with.
"""

from __future__ import annotations

import unicodedata

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""They form Persian words, Indic letters and emoji, or say where a number in Arabic text belongs. They turn nothing."""


def visible(text: str) -> str:
    """The text with a mark for each hidden or overriding character; line breaks and tabs stay.

    >>> visible("a\\u202eb\\nc"), visible("x\\u200dy") == "x\\u200dy"
    ('a\\ufffdb\\nc', True)
    """
    if text.isprintable():
        return text
    return "".join(each if _is_visible(each) else "\ufffd" for each in text)


def _is_visible(character: str) -> bool:
    # Spaces of any width are no printable characters to Python.
    return (
        character.isprintable()
        or character in "\n\t"
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"
    )
