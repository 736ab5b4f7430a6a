"""Bring Zendesk's tickets and comments into `ingest.duckdb`: page by page, each with its cursor in one transaction.

First the pages of the export, then the comments of each ticket that changed. What is deleted or redacted upstream stays
as a tombstone without text. It knows nothing of the HTTP behind the pages (`zendesk_api.py`) nor of which comment is a
question or a reply (`conversation.py`). Called by `bring.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from schemas.errors import ServiceError
from schemas.remote_source import ZendeskSource
from tasks.curate.ingest.desk_rows import (
    GONE,
    as_json,
    bring_comments,
    faulty,
    has_id,
    put_tickets,
    row_or_fault,
    tombstone,
)
from tasks.curate.ingest.landing import Landing, Row
from tasks.curate.ingest.rest_pages import patiently
from tasks.curate.ingest.zendesk_api import Page, ZendeskApi
from tasks.failpoint import reach
from tasks.progress import Progress, silent

_KEPT = (
    "id", "status", "requester_id", "created_at", "updated_at", "subject", "priority", "type", "tags", "brand_id",
    "group_id", "organization_id",
)  # fmt: skip
_REDACTED = "\N{LOWER SEVEN EIGHTHS BLOCK}"
"""Stands for one redacted character in a comment."""


def sync_zendesk(
    source: ZendeskSource,
    landing: Landing,
    *,
    progress: Progress = silent,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring in what changed since the cursor that is committed.

    Raises:
        ServiceError: TG0707 and TG0708; what was brought in before stays.
        ConfigError: TG0112, the extra is not installed; TG0114, the token is not in the environment.
    """
    with closing(ZendeskApi(source, sleep=sleep)) as api:
        patiently(lambda: _bring_tickets(api, landing, progress), sleep)
        patiently(
            lambda: bring_comments(
                landing, lambda key: _comments(key, api.comments(key)), statuses=source.statuses, progress=progress
            ),
            sleep,
        )


def _bring_tickets(api: ZendeskApi, landing: Landing, progress: Progress) -> None:
    cursor, n_read = landing.mark("cursor"), 0
    passed = {cursor}
    for page in api.tickets(cursor):
        after = page.get("after_cursor")
        if not page["tickets"] and after in (None, cursor):
            return  # nothing new behind the cursor
        reach("ingest.fetched")
        if not after or (after in passed and not page.get("end_of_stream")):
            raise ServiceError("Zendesk sent a page twice, or one without a cursor behind it", code="TG0708")
        rows = [row_or_fault(_ticket, value, f"{cursor}/{number}") for number, value in enumerate(page["tickets"])]
        with landing.step(cursor=str(after)):
            put_tickets(landing, rows)
        cursor, n_read = str(after), n_read + len(rows)
        passed.add(cursor)
        progress(n_read, None, "tickets")


def _ticket(value: object, place: str) -> Row:
    if not isinstance(value, dict) or not has_id(value):
        return faulty(place, "The ticket of the export is no object with an id.")
    key, version = str(value["id"]), str(value.get("generated_timestamp") or 0)
    if value.get("status") == GONE:
        return tombstone(key, version)
    kept: dict[str, Any] = {name: value.get(name) for name in _KEPT}
    via, rating = value.get("via"), value.get("satisfaction_rating")
    kept["channel"] = via.get("channel") if isinstance(via, dict) else None
    kept["score"] = rating.get("score") if isinstance(rating, dict) else None
    fields = value.get("custom_fields")
    kept["fields"] = {str(field["id"]): field.get("value") for field in fields or () if _is_field(field)}
    return Row("ticket", key, as_json(kept), status=str(value.get("status")), version=version)


def _comments(ticket: str, pages: list[Page] | None) -> list[Row] | None:
    if pages is None:
        return None
    users = {user["id"]: user.get("role") for page in pages for user in page.get("users") or () if _is_field(user)}
    rows = []
    for page in pages:
        for value in page["comments"]:
            if not _is_field(value):
                raise ServiceError("Zendesk sent a comment that is no object with an id", code="TG0708")
            kept = {
                "author_id": value.get("author_id"),
                "role": users.get(value.get("author_id")),
                "public": value.get("public") is True,
                "created_at": value.get("created_at"),
            }
            text = value.get("plain_body") or value.get("body")
            is_redacted = isinstance(text, str) and _REDACTED in text
            rows.append(
                Row(
                    "comment", str(value["id"]), as_json(kept if is_redacted else {**kept, "body": text}),
                    parent=ticket, state="redacted" if is_redacted else "live",
                )
            )  # fmt: skip
    return rows


def _is_field(value: object) -> bool:
    return isinstance(value, dict) and "id" in value
