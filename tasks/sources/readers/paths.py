"""Declared paths into nested rows: `requester.id`, `conversations[0].body_text`, `comments[-1].body`."""

import re
from typing import Final

Path = tuple[str | int, ...]
"""Keys of objects and positions in lists, from the row inwards."""

_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[-?\d+\])+")
_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


class Missing:
    """The result of a path that leads nowhere; null is a value."""


MISSING: Final = Missing()


def parse_path(name: str) -> Path | None:
    """The steps of a path, or None for a plain column name.

    >>> parse_path("comments[-1].body"), parse_path("body"), parse_path("a..b")
    (('comments', -1, 'body'), None, None)
    """
    if not _PATH.fullmatch(name):
        return None
    return tuple(int(place) if place else key for key, place in _STEP.findall(name))


def walk(value: object, path: Path) -> object:
    """The value at the path; MISSING if a key or position on the way is absent or of another kind.

    >>> walk({"comments": [{"body": "a"}, {"body": "b"}]}, ("comments", -1, "body"))
    'b'
    """
    for step in path:
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
        else:
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return MISSING
            value = value[step]
    return value
