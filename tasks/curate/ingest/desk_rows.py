"""What the help desks' rows have in common: comments fetched once for each version, tombstones for those that are gone.

Called by `zendesk.py` and `freshdesk.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tasks.curate.ingest.landing import Landing, Row
from tasks.failpoint import reach
from tasks.progress import Progress

GONE = "deleted"


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
        comments = fetch(key)
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
    return Row("faulty", place, orjson.dumps(told).decode())


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
