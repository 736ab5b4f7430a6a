"""Column names of a tabular source: duplicates, near matches, and how names are shown."""

import difflib
from collections.abc import Iterable, Sequence

from schemas.errors import DataError

_SHOWN = 20
_MAX_NAME = 64  # characters
_MANY_DIGITS = 5


def check_header(names: Sequence[str], *, where: str) -> None:
    """Check that no column occurs twice: it would be unclear which of them to read.

    Raises:
        DataError: TG0204, a name occurs twice, or there is none.
    """
    seen: dict[str, int] = {}
    if not names:
        raise DataError("the header has no column names", code="TG0204", where=where)
    for position, name in enumerate(names, start=1):
        if name in seen:
            raise DataError(
                f"column {shown(name)} occurs twice in the header, as number {seen[name]} and {position}",
                code="TG0204",
                where=where,
                hint="rename one of them; pandas and DuckDB number them when they copy a file",
            )
        seen[name] = position


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest of `known`, ignoring case; None if none is near.

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
    """The name for a message. Keys of JSON, and the first row of a CSV without a header, may be personal data.

    A name with an @, with five digits or with more than 64 characters may be such data: only its ends are shown.

    >>> shown("ticket id"), shown("Ticket #"), shown("jane@example.com")
    ('ticket id', "'Ticket #'", "'j...m' (16 characters, hidden because they may be personal data)")
    """
    if is_plain(name):
        return name
    if len(name) <= _MAX_NAME and "@" not in name and sum(map(str.isdigit, name)) < _MANY_DIGITS:
        return f"'{_printable(name)}'"
    ends = _printable(f"{name[0]}...{name[-1]}")
    return f"'{ends}' ({len(name):,} characters, hidden because they may be personal data)"


def is_plain(name: str) -> bool:
    """True for what looks like the name of a column and nothing else."""
    return len(name) <= _MAX_NAME and not name[:1].isdigit() and all(each.isalnum() or each in " _-./" for each in name)


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)[1:-1]
