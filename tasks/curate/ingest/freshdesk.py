"""Bring Freshdesk's tickets and conversations into `ingest.duckdb`: page by page, each with its place in a transaction.

First the lists of what changed, then the conversations of each ticket that did. Deleted tickets and spam stay as
tombstones without text. A row has the form of Zendesk's (`conversation.py`); the ticket's own text is its first
question. It knows nothing of the HTTP behind the lists (`freshdesk_api.py`). Called by `bring.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from schemas.remote_source import FreshdeskSource
from tasks.curate.ingest.desk_rows import (
    Changes,
    as_json,
    bring_changes,
    bring_comments,
    faulty,
    has_id,
    tombstone,
)
from tasks.curate.ingest.freshdesk_api import FreshdeskApi, Listed
from tasks.curate.ingest.landing import Landing, Row
from tasks.curate.ingest.rest_pages import patiently
from tasks.progress import Progress, silent

OVERLAP = timedelta(seconds=120)
"""Before the last change that was seen: a sync begins there, for changes that came into the list late."""
_LISTS: tuple[Listed, ...] = ("present", "deleted", "spam")
_KEPT = ("id", "requester_id", "created_at", "updated_at", "subject", "type", "tags", "group_id", "product_id")
_STATUSES = {2: "open", 3: "pending", 4: "resolved", 5: "closed"}
_PRIORITIES = {1: "low", 2: "medium", 3: "high", 4: "urgent"}
_CHANNELS = {1: "email", 2: "portal", 3: "phone", 7: "chat", 9: "feedback_widget", 10: "outbound_email"}
_OUTBOUND = 10
"""A ticket that an agent began: its text is no question."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def sync_freshdesk(
    source: FreshdeskSource,
    landing: Landing,
    *,
    progress: Progress = silent,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring in what changed since the places that are committed.

    Raises:
        ServiceError: TG0707 and TG0708; what was brought in before stays.
        ConfigError: TG0112, the extra is not installed; TG0114, the key is not in the environment.
    """
    with closing(FreshdeskApi(source, sleep=sleep)) as api:
        for listed in _LISTS:
            patiently(partial(_bring_tickets, api, source, landing, listed, progress), sleep)
        patiently(
            lambda: bring_comments(
                landing, lambda key: _conversations(api, key), statuses=source.statuses, progress=progress
            ),
            sleep,
        )


def _bring_tickets(
    api: FreshdeskApi, source: FreshdeskSource, landing: Landing, listed: Listed, progress: Progress
) -> None:
    changes = Changes(
        mark=f"since_{listed}",
        page_size=api.page_size,
        fetch=lambda since, page: api.tickets(listed, since=since, page=page),
        moment=lambda value: value["updated_at"] if _is_ticket(value) else None,
        row=lambda value, place: _ticket(value, listed, place),
    )
    bring_changes(changes, landing, since=_earlier(landing.mark(changes.mark), source), progress=progress)


def _earlier(mark: str | None, source: FreshdeskSource) -> str:
    start = datetime.fromtimestamp(source.start_time, UTC)
    since = start if mark is None else max(start, datetime.fromisoformat(mark) - OVERLAP)
    return since.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_ticket(value: Any) -> bool:
    return has_id(value) and bool(_MOMENT.fullmatch(str(value.get("updated_at"))))


def _ticket(value: Any, listed: Listed, place: str) -> Row:
    if not _is_ticket(value):
        return faulty(place, "The ticket of the list is no object with an id and the moment that it changed.")
    key, version = str(value["id"]), str(value["updated_at"])
    if listed != "present":
        return tombstone(key, version)
    kept: dict[str, Any] = {name: value.get(name) for name in _KEPT}
    kept["organization_id"] = value.get("company_id")
    kept["status"] = _named(value.get("status"), _STATUSES)
    kept["priority"] = _named(value.get("priority"), _PRIORITIES)
    kept["channel"] = _named(value.get("source"), _CHANNELS)
    fields = value.get("custom_fields")
    kept["fields"] = fields if isinstance(fields, dict) else {}
    if value.get("source") != _OUTBOUND:
        kept["question"] = value.get("description_text")
    return Row("ticket", key, as_json(kept), status=str(kept["status"]), version=version)


def _named(number: object, names: dict[int, str]) -> str | None:
    """The name of a number, or the number: an account may have its own."""
    if not isinstance(number, int):
        return None
    return names.get(number, str(number))


def _conversations(api: FreshdeskApi, ticket: str) -> list[Row] | None:
    found = api.conversations(ticket)
    if found is None:
        return None
    rows = []
    for value in found:
        if not has_id(value):
            raise api.rest.unfit("a conversation that is no object with an id")
        kept = {
            "author_id": value.get("user_id"),
            "role": None if value.get("incoming") is True else "agent",
            "public": value.get("private") is False,
            "created_at": value.get("created_at"),
            "body": value.get("body_text"),
        }
        rows.append(Row("comment", str(value["id"]), as_json(kept), parent=ticket))
    return rows
