"""A text as it may be shown to people: nothing that cannot be seen and nothing that turns lines around.

Called by what draws pages (`tasks/release`, `tasks/curate/cards`).
"""

from __future__ import annotations

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""They form Persian words, Indic letters and emoji, or say where a number in Arabic text belongs. They turn nothing."""


def visible(text: str) -> str:
    """The text with a mark for each hidden or overriding character; line breaks and tabs stay.

    >>> visible("a\\u202eb\\nc"), visible("x\\u200dy") == "x\\u200dy"
    ('a\\ufffdb\\nc', True)
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" or each in _JOINERS else "\ufffd" for each in text)
