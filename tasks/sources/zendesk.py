"""`source.kind: zendesk`: tickets and comments of an account, ingested page by page.

Each page is committed with its cursor in one transaction: first the pages of the export, then the comments of each
changed ticket, once per version. Tickets and comments that are deleted or redacted upstream become tombstones without
text. Requests are in `zendesk_api.py`, which comment is the question or reply in `zendesk_conversation.py`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import orjson

from schemas.errors import ServiceError
from schemas.file_reading import RowReading
from schemas.remote_source import ZendeskSource
from tasks.progress import Progress
from tasks.sources.kind import need_package
from tasks.sources.landed_rows import DELETED, LandedRows, faulty_records
from tasks.sources.landing import FAULTY, LandedRow, Landing, reason_of
from tasks.sources.readers.records import BATCH_ROWS, Fault, Record, fault_of
from tasks.sources.row_owner import REQUESTER, RowOwner
from tasks.sources.zendesk_api import Page, ZendeskApi, with_restarts
from tasks.sources.zendesk_conversation import Comment, ticket_row
from tasks.storage.failpoint import reach

_GONE = "deleted"
_KEPT = (
    "id", "status", "requester_id", "created_at", "updated_at", "subject", "priority", "type", "tags", "brand_id",
    "group_id", "organization_id",
)  # fmt: skip
_REDACTED = "\N{LOWER SEVEN EIGHTHS BLOCK}"
"""Zendesk writes it for each redacted character of a comment."""


OTHER_STATUS = Fault("other_status", "The ticket has a status that is not in `statuses`.", outcome="dropped")
_IN_ORDER = "ORDER BY length(key), key"


class Zendesk(LandedRows[ZendeskSource]):
    """A Zendesk account."""

    spec = ZendeskSource

    def describe(self, source: ZendeskSource) -> str:
        return urlsplit(source.address).hostname or source.address

    def check(self, source: ZendeskSource) -> None:
        """Check that the extra is installed.

        Raises:
            ConfigError: TG0112, it is not.
        """
        need_package(source.kind)

    def row_reading(self, source: ZendeskSource) -> RowReading:
        """Rows are tickets, made by `zendesk_conversation.py`."""
        return RowReading(shape="ticket", columns=source.columns)

    def identity(self, source: ZendeskSource) -> Mapping[str, Any]:
        """The account, and the first day of the tickets to fetch."""
        return {"address": source.address, "start": source.start}

    def owner(self, source: ZendeskSource) -> RowOwner:
        """The column that names the customer."""
        return RowOwner(source.columns.get("customer_id", REQUESTER))

    def sync(self, source: ZendeskSource, landing: Landing, *, progress: Progress) -> None:
        """Fetch what changed since the committed cursor.

        Raises:
            ServiceError: TG0707 and TG0708; rows ingested before stay.
            ConfigError: TG0112, the extra is not installed; TG0106, the token is not in the environment.
        """
        with closing(ZendeskApi(source)) as api:
            with_restarts(lambda: _fetch_tickets(api, landing, progress))
            with_restarts(lambda: _fetch_comments(api, landing, source.statuses, progress))

    def records(self, source: ZendeskSource, landing: Landing) -> Iterator[Record]:
        keys = landing.query(f"SELECT key, state, status FROM rows WHERE stream = 'ticket' {_IN_ORDER}")
        for start in range(0, len(keys), BATCH_ROWS):
            some = keys[start : start + BATCH_ROWS]
            listed = [key for key, _, _ in some]
            contents = dict(
                landing.query("SELECT key, content FROM rows WHERE stream = 'ticket' AND list_contains(?, key)", listed)
            )
            comments = _comments_of(landing, listed)
            for key, state, status in some:
                if state != "live":
                    yield Record(int(key), None, DELETED, ticket_id=key)
                elif status not in source.statuses:
                    yield Record(int(key), None, OTHER_STATUS, ticket_id=key)
                else:
                    yield Record(int(key), None, _content(source, contents[key], comments[key]), ticket_id=key)
        yield from faulty_records(landing, 0)


KIND = Zendesk()


def _fetch_tickets(api: ZendeskApi, landing: Landing, progress: Progress) -> None:
    cursor, n_read = landing.mark("cursor"), 0
    passed = {cursor}
    for page in api.tickets(cursor):
        after = page.get("after_cursor")
        if not page["tickets"] and after in (None, cursor):
            return  # nothing new after the cursor
        reach("ingest.fetched")
        if not after or (after in passed and not page.get("end_of_stream")):
            raise ServiceError("Zendesk sent a page twice, or without a cursor for the next page", code="TG0708")
        rows = [_ticket_or_fault(value, f"{cursor}/{number}") for number, value in enumerate(page["tickets"])]
        with landing.step(cursor=str(after)):
            _put_tickets(landing, rows)
        cursor, n_read = str(after), n_read + len(rows)
        passed.add(cursor)
        progress(n_read, None, "tickets")


def _fetch_comments(api: ZendeskApi, landing: Landing, statuses: Sequence[str], progress: Progress) -> None:
    """Fetch the comments of each ticket that changed since they were fetched, one ticket per transaction."""
    listed = ", ".join("?" for _ in statuses)
    waiting = landing.query(
        f"SELECT key, version FROM rows WHERE stream = 'ticket' AND state = 'live' AND status IN ({listed}) "
        f"AND fetched IS DISTINCT FROM version {_IN_ORDER}",
        *statuses,
    )
    for number, (key, version) in enumerate(waiting, start=1):
        try:
            comments = _comments(key, api.comments(key))
        except Exception as error:
            fault = _as_json({"fault": reason_of(error)})
            with landing.step():  # not marked as fetched: the next sync tries again
                # A placeholder among the comments until they can be used; it quarantines the ticket.
                landing.put([LandedRow("comment", f"{key}/{FAULTY}", fault, parent=key, state=FAULTY)])
            continue
        reach("ingest.fetched")
        with landing.step():
            if comments is None:
                _put_tickets(landing, [_tombstone(key, version)])
            else:
                landing.put([*comments, *_missing(landing, key, {row.key for row in comments})])
                landing.set_fetched("ticket", key)
        progress(number, len(waiting), "tickets with comments")


def _put_tickets(landing: Landing, rows: list[LandedRow]) -> None:
    """Store tickets, and remove the comments of deleted ones. Inside `step`."""
    landing.put(rows)
    for row in rows:
        if row.state == _GONE:
            landing.remove("comment", parent=row.key)


def _ticket_or_fault(value: object, place: str) -> LandedRow:
    """The row of a ticket, or a placeholder for a value on which that raises."""
    try:
        return _ticket(value, place)
    except Exception as error:
        return _faulty(place, reason_of(error))


def _ticket(value: object, place: str) -> LandedRow:
    if not isinstance(value, dict) or not isinstance(value.get("id"), int) or isinstance(value["id"], bool):
        return _faulty(place, "The ticket of the export is not an object with an id.")
    key, version = str(value["id"]), str(value.get("generated_timestamp") or 0)
    if value.get("status") == _GONE:
        return _tombstone(key, version)
    kept: dict[str, Any] = {name: value.get(name) for name in _KEPT}
    via, rating = value.get("via"), value.get("satisfaction_rating")
    kept["channel"] = via.get("channel") if isinstance(via, dict) else None
    kept["score"] = rating.get("score") if isinstance(rating, dict) else None
    fields = value.get("custom_fields")
    kept["fields"] = {str(field["id"]): field.get("value") for field in fields or () if _has_id(field)}
    return LandedRow("ticket", key, _as_json(kept), status=str(value.get("status")), version=version)


def _comments(ticket: str, pages: list[Page] | None) -> list[LandedRow] | None:
    if pages is None:
        return None
    users = {user["id"]: user.get("role") for page in pages for user in page.get("users") or () if _has_id(user)}
    rows = []
    for page in pages:
        for value in page["comments"]:
            if not _has_id(value):
                raise ServiceError("Zendesk sent a comment that is not an object with an id", code="TG0708")
            kept = {
                "author_id": value.get("author_id"),
                "role": users.get(value.get("author_id")),
                "public": value.get("public") is True,
                "created_at": value.get("created_at"),
            }
            text = value.get("plain_body") or value.get("body")
            is_redacted = isinstance(text, str) and _REDACTED in text
            rows.append(
                LandedRow(
                    "comment", str(value["id"]), _as_json(kept if is_redacted else {**kept, "body": text}),
                    parent=ticket, state="redacted" if is_redacted else "live",
                )
            )  # fmt: skip
    return rows


def _missing(landing: Landing, ticket: str, listed: set[str]) -> list[LandedRow]:
    """A tombstone for each stored comment that is no longer listed."""
    before = landing.query("SELECT key, content FROM rows WHERE stream = 'comment' AND parent = ?", ticket)
    gone = []
    for key, content in before:
        if key not in listed:
            kept = {name: value for name, value in orjson.loads(content).items() if name != "body"}
            gone.append(LandedRow("comment", key, _as_json(kept), parent=ticket, state=_GONE))
    return gone


def _tombstone(key: str, version: str | None) -> LandedRow:
    """A ticket that was deleted upstream."""
    return LandedRow("ticket", key, None, version=version, status=_GONE, state=_GONE)


def _faulty(place: str, reason: str) -> LandedRow:
    return LandedRow(FAULTY, place, orjson.dumps(reason).decode())


def _has_id(value: object) -> bool:
    return isinstance(value, dict) and "id" in value


def _as_json(value: dict[str, Any]) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


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


def _comments_of(landing: Landing, tickets: list[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Key, state and content of the comments of each ticket."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for parent, key, state, content in landing.query(
        "SELECT parent, key, state, content FROM rows WHERE stream = 'comment' AND list_contains(?, parent)", tickets
    ):
        found[parent].append((key, state, content))
    return found
