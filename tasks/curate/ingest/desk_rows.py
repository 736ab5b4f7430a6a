"""What help desks have in common: lists of what changed, comments fetched once for each version, tombstones.

Called by `zendesk.py`, `freshdesk.py`, `intercom.py` and `jira.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.curate.ingest.landing import Landing, Row
from tasks.curate.row_faults import is_row_fault, row_fault
from tasks.failpoint import reach
from tasks.progress import Progress

GONE = "deleted"
FAULTY = "faulty"


@dataclass(frozen=True)
class Changes:
    """A list of what changed, as a service gives it.

    Attributes:
        mark: Under which its place is committed.
        page_size: Rows of a whole page.
        fetch: Rows that changed at a moment or later, the earliest change first, by moment and number of the page.
        moment: When a row changed, in a form that sorts as text; null for what is no row.
        row: What is kept of it, by where it stood.
    """

    mark: str
    page_size: int
    fetch: Callable[[str, int], list[Any]]
    moment: Callable[[Any], str | None]
    row: Callable[[Any, str], Row]


def bring_changes(changes: Changes, landing: Landing, *, since: str, progress: Progress) -> None:
    """Bring in a list from a moment to its end.

    Pages by number move when a row changes while they are read, so only the first page from a moment on is asked for,
    and the next moment is that of its last row. Where a whole page is of one moment, further pages are; they are read
    again until they bring nothing new.
    """
    n_read = 0
    while True:
        page, n_new = 1, 0
        while True:
            values = changes.fetch(since, page)
            reach("ingest.fetched")
            last = max([since, *(moment for value in values if (moment := changes.moment(value)) is not None)])
            ends = len(values) < changes.page_size
            with landing.step(**{changes.mark: last if page == 1 and (ends or last > since) else since}):
                rows = [
                    row_or_fault(changes.row, value, f"{changes.mark}/{since}/{page}/{n}")
                    for n, value in enumerate(values)
                ]
                n_new += put_tickets(landing, rows)
            n_read += len(values)
            progress(n_read, None, "tickets")
            if ends or last > since:
                break
            page += 1
        if page > 1 and n_new:
            continue
        if ends:
            return
        since = last


def bring_comments(
    landing: Landing, fetch: Callable[[str], list[Row] | None], *, statuses: Sequence[str], progress: Progress
) -> None:
    """Bring in the comments of each ticket that changed since they were; a ticket in one transaction.

    Args:
        fetch: All comments of a ticket; None when it is gone.
        statuses: Of the tickets whose comments are wanted.
    """
    listed = ", ".join("?" for _ in statuses)
    waiting = landing.ask(
        f"SELECT key, version FROM rows WHERE stream = 'ticket' AND state = 'live' AND status IN ({listed}) "
        "AND fetched IS DISTINCT FROM version ORDER BY length(key), key",
        *statuses,
    )
    for number, (key, version) in enumerate(waiting, start=1):
        try:
            comments = fetch(key)
        except Exception as error:
            with landing.step():  # not as fetched: the next sync tries again
                landing.put([_without_comments(key, reason_of(error))])
            continue
        reach("ingest.fetched")
        with landing.step():
            if comments is None:
                put_tickets(landing, [tombstone(key, version)])
            else:
                landing.put([*comments, *_missing(landing, key, {row.key for row in comments})])
                landing.set_fetched("ticket", key)
        progress(number, len(waiting), "tickets with comments")


def put_tickets(landing: Landing, rows: list[Row]) -> int:
    """Take tickets in, and the comments of those that are gone out; returns how many changed. Inside `step`."""
    n_changed = landing.put(rows)
    for row in rows:
        if row.state == GONE:
            landing.remove("comment", parent=row.key)
    return n_changed


def tombstone(key: str, version: str | None) -> Row:
    """A ticket that is gone upstream."""
    return Row("ticket", key, None, version=version, status=GONE, state=GONE)


def faulty(place: str, told: str) -> Row:
    """What stands for a row that could not be used."""
    return Row(FAULTY, place, orjson.dumps(told).decode())


def row_or_fault(make: Callable[[Any, str], Row], value: Any, place: str) -> Row:
    """What is kept of a value of a service, or what stands for one on which that raises."""
    try:
        return make(value, place)
    except Exception as error:
        return faulty(place, reason_of(error))


def reason_of(error: Exception) -> str:
    """Why a row is not used on which something raised.

    Raises:
        Exception: `error` itself, where no row can be its cause.
    """
    if not is_row_fault(error):
        raise error
    return row_fault(error, "ingest")[1]


def _without_comments(ticket: str, reason: str) -> Row:
    """What stands among the comments of a ticket until they can be used; with it the ticket is quarantined."""
    return Row("comment", f"{ticket}/{FAULTY}", as_json({"fault": reason}), parent=ticket, state=FAULTY)


def has_id(value: object) -> bool:
    """Is it an object with an id?"""
    return isinstance(value, dict) and isinstance(value.get("id"), int) and not isinstance(value["id"], bool)


def as_json(value: dict[str, Any]) -> str:
    """Equal values, equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _missing(landing: Landing, ticket: str, listed: set[str]) -> list[Row]:
    """A tombstone for each comment that was here and is no longer listed."""
    before = landing.ask("SELECT key, content FROM rows WHERE stream = 'comment' AND parent = ?", ticket)
    gone = []
    for key, content in before:
        if key not in listed:
            kept = {name: value for name, value in orjson.loads(content).items() if name != "body"}
            gone.append(Row("comment", key, as_json(kept), parent=ticket, state=GONE))
    return gone
