"""Column names of a tabular source: each once, and near names for the one that is missing.

It knows nothing of rows. Called by the readers and by `tasks/sources/readers/columns.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from schemas.errors import DataError

_SHOWN = 20


def check_header(names: Sequence[str], *, where: str) -> None:
    """Refuse a column that occurs twice: which of the two is meant cannot be known.

    Raises:
        DataError: TG0204, a name occurs twice or there is none.
    """
    seen: dict[str, int] = {}
    if not names:
        raise DataError("the header names no column", code="TG0204", where=where)
    for position, name in enumerate(names, start=1):
        if name in seen:
            raise DataError(
                f"column {shown(name)} occurs twice in the header, as number {seen[name]} and {position}",
                code="TG0204",
                where=where,
                hint="rename one of them",
            )
        seen[name] = position


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest of `known`, also across case; None when nothing is near.

    >>> did_you_mean("Ticket_Id", ["subject", "ticket_id"])
    'did you mean ticket_id?'
    """
    listed = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), listed, n=1)
    return f"did you mean {shown(listed[close[0]])}?" if close else None


def listing(names: Iterable[str]) -> str:
    """Up to 20 names for an error message."""
    every = list(names)
    rest = f", and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(shown(name) for name in every[:_SHOWN]) + rest if every else "none"


def shown(name: str) -> str:
    """The name as it may be shown: keys of JSON rows can be anything, also someone's data.

    >>> shown("ticket id"), shown("jane@example.com")
    ('ticket id', '(a name of 16 characters)')
    """
    plain = len(name) <= 64 and all(each.isalnum() or each in " _-./" for each in name) and not name[:1].isdigit()
    return name if plain else f"(a name of {len(name)} characters)"
