"""Make text safe to display: no invisible characters, no direction overrides, no terminal control codes.

Called by the report pages (`tasks/release`, `tasks/curate/cards`) and by the console.
"""

import unicodedata

_JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""They join Persian words, Indic letters and emoji, or place numbers in Arabic text. They override no direction."""


def visible(text: str) -> str:
    """Replace each hidden or overriding character with a mark; line breaks and tabs stay.

    >>> visible("a\\u202eb\\nc"), visible("x\\u200dy") == "x\\u200dy"
    ('a\\ufffdb\\nc', True)
    """
    if text.isprintable():
        return text
    return "".join(each if _is_visible(each) else "\ufffd" for each in text)


def _is_visible(character: str) -> bool:
    # To Python, spaces other than U+0020 are not printable.
    return (
        character.isprintable()
        or character in "\n\t"
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"
    )
