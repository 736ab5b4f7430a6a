"""Bring Intercom's conversations into `ingest.duckdb`: page by page, each with its place in one transaction.

First the search for what changed, then each conversation that did, with its parts. A row has the form of Zendesk's
(`conversation.py`). It knows nothing of the HTTP behind it (`intercom_api.py`). Called by `bring.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from schemas.remote_source import IntercomSource
from tasks.curate.ingest.desk_rows import Changes, as_json, bring_changes, bring_comments, faulty
from tasks.curate.ingest.intercom_api import IntercomApi
from tasks.curate.ingest.landing import Landing, Row
from tasks.curate.ingest.rest_pages import patiently
from tasks.progress import Progress, silent

OVERLAP_S = 120
"""Before the last change that was seen: a sync begins there, for changes that came into the search late."""
MARK = "since"
_CUSTOMERS = ("user", "lead", "contact")
_AGENTS = ("admin", "team", "bot")
_PRIVATE = ("note", "note_and_reopen")
_BEST = 5
"""Of the ratings from 1 on."""


def sync_intercom(
    source: IntercomSource,
    landing: Landing,
    *,
    progress: Progress = silent,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring in what changed since the place that is committed.

    Raises:
        ServiceError: TG0707 and TG0708; what was brought in before stays.
        ConfigError: TG0112, the extra is not installed; TG0114, the token is not in the environment.
    """
    with closing(IntercomApi(source, sleep=sleep)) as api:
        changes = Changes(MARK, api.page_size, api.changed, moment=_moment, row=_ticket)
        patiently(
            lambda: bring_changes(changes, landing, since=_earlier(landing.mark(MARK), source), progress=progress),
            sleep,
        )
        patiently(
            lambda: bring_comments(landing, lambda key: _parts(api, key), statuses=source.statuses, progress=progress),
            sleep,
        )


def _earlier(mark: str | None, source: IntercomSource) -> str:
    return f"{max(source.start_time, int(mark) - OVERLAP_S if mark else 0):010d}"


def _moment(value: Any) -> str | None:
    """Seconds as text of equal length; null for what is no conversation."""
    if not isinstance(value, dict) or not str(value.get("id", "")).isdecimal():
        return None
    told = value.get("updated_at")
    return f"{told:010d}" if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else None


def _ticket(value: Any, place: str) -> Row:
    moment = _moment(value)
    if moment is None:
        return faulty(place, "The conversation of the search is no object with an id and the moment that it changed.")
    said = value.get("source") or {}
    author = said.get("author") or {}
    rating = (value.get("conversation_rating") or {}).get("rating")
    attributes = value.get("custom_attributes")
    status = str(value.get("state"))
    kept = {
        "id": int(value["id"]),
        "requester_id": _requester(value, author),
        "created_at": _iso(value.get("created_at")),
        "updated_at": _iso(value.get("updated_at")),
        "subject": said.get("subject") or value.get("title"),
        "status": status,
        "priority": value.get("priority"),
        "channel": said.get("type"),
        "tags": [tag.get("name") for tag in (value.get("tags") or {}).get("tags") or () if isinstance(tag, dict)],
        "fields": attributes if isinstance(attributes, dict) else {},
        "rating": (rating - 1) / (_BEST - 1) if isinstance(rating, int) and 1 <= rating <= _BEST else None,
    }
    return Row("ticket", str(value["id"]), as_json(kept), status=status, version=moment)


def _requester(value: Mapping[str, Any], author: Mapping[str, Any]) -> str | None:
    """Who began it, unless an agent did: then the first contact."""
    if author.get("type") in _CUSTOMERS and author.get("id"):
        return str(author["id"])
    contacts = (value.get("contacts") or {}).get("contacts") or ()
    first = next((each.get("id") for each in contacts if isinstance(each, dict)), None)
    return None if first is None else str(first)


def _parts(api: IntercomApi, key: str) -> list[Row] | None:
    found = api.conversation(key)
    if found is None:
        return None
    listed = (found.get("conversation_parts") or {}).get("conversation_parts")
    if not isinstance(listed, list):
        raise api.rest.unfit("a conversation without its parts")
    begun = {**(found.get("source") or {}), "created_at": found.get("created_at"), "part_type": "comment"}
    rows = [_comment(key, f"{key}-0", begun)]
    for part in listed:
        if not isinstance(part, dict) or not part.get("id"):
            raise api.rest.unfit("a part of a conversation that is no object with an id")
        if part.get("body") or part.get("redacted"):
            rows.append(_comment(key, f"{key}-{part['id']}", part))
    return rows


def _comment(ticket: str, key: str, part: Mapping[str, Any]) -> Row:
    author = part.get("author") or {}
    is_redacted = part.get("redacted") is True
    kept = {
        "author_id": None if author.get("id") is None else str(author["id"]),
        "role": "agent" if author.get("type") in _AGENTS else None,
        "public": part.get("part_type") not in _PRIVATE,
        "created_at": _iso(part.get("created_at")),
        **({} if is_redacted else {"body": part.get("body")}),
    }
    return Row("comment", key, as_json(kept), parent=ticket, state="redacted" if is_redacted else "live")


def _iso(seconds: object) -> str | None:
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
