"""Rows that were brought in from a service, as batches: live ones, faulty ones, and those that are gone upstream.

It knows nothing of connections; `tasks/curate/ingest` brings rows in. Called by `tasks/curate/extract.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from schemas.remote_source import PostgresSource, RemoteSource, ZendeskSource
from tasks.curate.ingest.conversation import Comment, ticket_row
from tasks.curate.ingest.landing import FAULTY, Landing, need_landing, read_landing
from tasks.curate.readers.records import BATCH_ROWS, Batch, Fault, Record, fault_of, in_batches

DELETED = Fault("deleted_upstream", "The source says that it was deleted or redacted.", outcome="dropped")
OTHER_STATUS = Fault("other_status", "The ticket has a status that is not asked for.", outcome="dropped")
_IN_ORDER = "ORDER BY length(key), key"


def read_landed(source: RemoteSource, folder: Path) -> Iterator[Batch]:
    """Every row, ordered by its key; rows of a table are numbered in that order, tickets by their id.

    Raises:
        DataError: TG0270, nothing was brought in.
        LockedError: TG0520, it is being brought in right now.
    """
    with read_landing(folder) as found:
        landing = need_landing(found, where=str(folder))
        records = _tickets(source, landing) if isinstance(source, ZendeskSource) else _rows(source, landing)
        yield from in_batches(records)


def _tickets(source: ZendeskSource, landing: Landing) -> Iterator[Record]:
    keys = landing.ask(f"SELECT key, state, status FROM rows WHERE stream = 'ticket' {_IN_ORDER}")
    for start in range(0, len(keys), BATCH_ROWS):
        some = keys[start : start + BATCH_ROWS]
        listed = [key for key, _, _ in some]
        contents = dict(
            landing.ask("SELECT key, content FROM rows WHERE stream = 'ticket' AND list_contains(?, key)", listed)
        )
        comments = _comments(landing, listed)
        for key, state, status in some:
            if state != "live":
                yield Record(int(key), None, DELETED, ticket_id=key)
            elif status not in source.statuses:
                yield Record(int(key), None, OTHER_STATUS, ticket_id=key)
            else:
                yield Record(int(key), None, _content(source, contents[key], comments[key]), ticket_id=key)
    yield from _faulty(landing, 0)


def _content(source: ZendeskSource, ticket: str, comments: list[tuple[str, str, str]]) -> Mapping[str, object] | Fault:
    unusable = [orjson.loads(content)["fault"] for _, state, content in comments if state == FAULTY]
    if unusable:
        return Fault("TG0246", unusable[0])
    try:
        said = [Comment(key, state, orjson.loads(content)) for key, state, content in comments]
        row = ticket_row(orjson.loads(ticket), said, reply=source.reply)
    except Exception as error:
        return fault_of(error)
    return DELETED if row is None else row


def _comments(landing: Landing, tickets: list[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Key, state and content of the comments of each ticket."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for parent, key, state, content in landing.ask(
        "SELECT parent, key, state, content FROM rows WHERE stream = 'comment' AND list_contains(?, parent)", tickets
    ):
        found[parent].append((key, state, content))
    return found


def _rows(source: PostgresSource, landing: Landing) -> Iterator[Record]:
    named = source.columns.get("ticket_id", "ticket_id")
    place = source.key.index(named) if named in source.key else None
    number = 0
    keys = landing.ask("SELECT key FROM rows WHERE stream = 'row' ORDER BY key")
    for start in range(0, len(keys), BATCH_ROWS):
        listed = [key for (key,) in keys[start : start + BATCH_ROWS]]
        for key, state, content in landing.ask(
            "SELECT key, state, content FROM rows WHERE stream = 'row' AND list_contains(?, key) ORDER BY key", listed
        ):
            number += 1
            ticket_id = None if place is None else str(orjson.loads(key)[place])
            yield Record(number, None, _kept(state, content), ticket_id=ticket_id)
    yield from _faulty(landing, number)


def _kept(state: str, content: str) -> Mapping[str, object] | Fault:
    if state == "deleted":
        return DELETED
    kept: Mapping[str, object] = orjson.loads(content)
    return Fault("TG0246", str(kept["fault"])) if state == FAULTY else kept


def _faulty(landing: Landing, number: int) -> Iterator[Record]:
    for (content,) in landing.ask("SELECT content FROM rows WHERE stream = 'faulty' ORDER BY length(key), key"):
        number += 1
        yield Record(number, None, Fault("TG0246", orjson.loads(content)))
