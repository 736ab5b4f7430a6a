"""Did-you-mean hints: the nearest known name, or the list of known names.

Used wherever a name written by a person is looked up.
"""

import difflib
from collections.abc import Iterable

_LONGEST = 64
"""Characters; comparing longer names is slow."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint with the known name most similar to `name`; None if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1) if len(name) <= _LONGEST else []
    return f"did you mean `{near[0]}`?" if near else None


def closest(name: str, known: Iterable[str], label: str = "allowed") -> str:
    """A hint for an unknown name: the nearest known one, else all of them.

    >>> closest("lerning_rate", ["epochs", "learning_rate"])
    'did you mean `learning_rate`?'
    >>> closest("x", ["epochs", "learning_rate"])
    'allowed: epochs, learning_rate'
    """
    names = list(known)
    return nearest(name, names) or f"{label}: {', '.join(names) or 'none'}"
