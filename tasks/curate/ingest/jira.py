"""Bring Jira's requests into `ingest.duckdb`: page by page, each with its place in one transaction.

First the search for what changed, then which issues are there at all, then the comments of each issue that changed.
Internal comments are read past, never kept. A row has the form of Zendesk's (`conversation.py`); the issue's
description is its first question. It knows nothing of the HTTP behind it (`jira_api.py`). Called by `bring.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from schemas.errors import ServiceError
from schemas.remote_source import JiraSource
from tasks.curate.ingest.adf import adf_text
from tasks.curate.ingest.desk_rows import GONE, as_json, bring_comments, faulty, put_tickets, reason_of, tombstone
from tasks.curate.ingest.jira_api import REQUEST_TYPE, SATISFACTION, JiraApi
from tasks.curate.ingest.landing import Landing, Row
from tasks.curate.ingest.rest_pages import patiently
from tasks.failpoint import reach
from tasks.files import sha256_json
from tasks.progress import Progress, silent

OVERLAP = timedelta(hours=14)
"""JQL reads a minute in the time zone of the account, which nobody tells it: 12 hours for the one that is farthest
west, 2 for changes that came into the search late."""
_BEST = 5
"""Of the ratings from 1 on."""
_AT_A_TIME = 100
"""Issues that are asked for by their ids."""
_ROBOT = "app"
"""Kind of account that automation rules write with."""
_CUSTOMER = "customer"


def sync_jira(
    source: JiraSource,
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
    with closing(JiraApi(source, sleep=sleep)) as api:
        patiently(api.check, sleep)
        custom: dict[str, str] = {}
        patiently(lambda: custom.update(api.custom_fields()), sleep)
        made = partial(_row, source=source, custom=custom)
        patiently(lambda: _bring_tickets(api, source, landing, made, progress), sleep)
        if source.deletions == "compare":
            patiently(lambda: _compare(api, source, landing, made), sleep)
        patiently(
            lambda: bring_comments(
                landing, lambda key: _comments(api, key), statuses=source.statuses, progress=progress
            ),
            sleep,
        )


def _bring_tickets(
    api: JiraApi, source: JiraSource, landing: Landing, made: Callable[[Any], Row | None], progress: Progress
) -> None:
    asked, token = landing.mark("asked"), landing.mark("token")
    if asked is None or token is None:
        asked, token = _jql_minute(landing.mark("since"), source), None
    pages, n_read = api.changed(asked, token), 0
    while True:
        try:
            issues, following = next(pages, ([], None))
        except ServiceError:
            if token is not None and not n_read:  # a token ends after some days: begin anew behind the last change
                with landing.step(asked=None, token=None):
                    pass
            raise
        reach("ingest.fetched")
        rows = [row for issue in issues if (row := made(issue)) is not None]
        last = max((row.version for row in rows if row.version), default=None)
        since = max(filter(None, (landing.mark("since"), last)), default=None)
        with landing.step(since=since, token=following, asked=asked if following else None):
            put_tickets(landing, rows)
        n_read += len(issues)
        progress(n_read, None, "tickets")
        if following is None:
            return


def _jql_minute(since: str | None, source: JiraSource) -> str:
    start = datetime.fromtimestamp(source.start_time, UTC)
    begin = start if since is None else max(start, datetime.fromisoformat(since))
    return (begin - OVERLAP).strftime("%Y-%m-%d %H:%M")


def _compare(api: JiraApi, source: JiraSource, landing: Landing, made: Callable[[Any], Row | None]) -> None:
    """Find what no search for changes shows: issues that are gone, and some that are there and were never seen."""
    there = set(api.ids(_jql_minute(None, source)))
    here = dict(landing.ask("SELECT key, state FROM rows WHERE stream = 'ticket'"))
    for key in sorted(key for key, state in here.items() if state != GONE and key not in there):
        if api.project_of(key) in source.projects:
            continue  # the list is behind, or knows it no more for its last change
        reach("ingest.fetched")
        with landing.step():
            version = landing.ask("SELECT version FROM rows WHERE stream = 'ticket' AND key = ?", key)[0][0]
            put_tickets(landing, [tombstone(key, version)])
    unseen = sorted(key for key in there if here.get(key, GONE) == GONE)
    for begin in range(0, len(unseen), _AT_A_TIME):
        rows = [row for issue in api.some(unseen[begin : begin + _AT_A_TIME]) if (row := made(issue)) is not None]
        reach("ingest.fetched")
        with landing.step():
            put_tickets(landing, rows)


def _row(value: Any, *, source: JiraSource, custom: Mapping[str, str]) -> Row | None:
    """What is kept of an issue, or why nothing is; None where it changed before the source begins."""
    try:
        return _issue(value, source=source, custom=custom)
    except Exception as error:
        return faulty(sha256_json(value)[:32], reason_of(error))


def _issue(value: Any, *, source: JiraSource, custom: Mapping[str, str]) -> Row | None:
    fields = value.get("fields") if isinstance(value, dict) else None
    changed = _moment(fields.get("updated")) if isinstance(fields, dict) else None
    if fields is None or changed is None or not str(value.get("id", "")).isdecimal():
        told = "The issue of the search is no object with an id and the moment that it changed."
        return faulty(sha256_json(value)[:32], told)
    if changed < source.start:
        return None
    reporter, creator = _account(fields.get("reporter")), _object(fields.get("creator"))
    status = _object(fields.get("status"))
    category = str(_object(status.get("statusCategory")).get("key"))
    asked_as = _name(_object(fields.get(custom.get(REQUEST_TYPE, ""))).get("requestType"))
    issue_type = _name(fields.get("issuetype"))
    kept = {
        "id": int(value["id"]),
        "requester_id": reporter,
        "created_at": _moment(fields.get("created")),
        "updated_at": changed,
        "subject": fields.get("summary"),
        "status": _name(status),
        "priority": _name(fields.get("priority")),
        "type": asked_as or issue_type,
        "tags": fields.get("labels") or [],
        "rating": _rating(fields.get(custom.get(SATISFACTION, ""))),
        "fields": {
            "key": value.get("key"),
            "issue_type": issue_type,
            "request_type": asked_as,
            "resolution": _name(fields.get("resolution")),
            "resolved_at": _moment(fields.get("resolutiondate")),
            "components": [_name(each) for each in fields.get("components") or ()],
            **_own_fields(fields, {custom.get(REQUEST_TYPE), custom.get(SATISFACTION)}),
        },
    }
    if _account(creator) in (None, reporter) or creator.get("accountType") == _ROBOT:
        kept["question"] = adf_text(fields.get("description"))  # else an agent wrote it, on behalf of the customer
    return Row("ticket", str(value["id"]), as_json(kept), status=category, version=changed)


def _own_fields(fields: Mapping[str, Any], known: set[str | None]) -> dict[str, Any]:
    return {
        name: plain for name, value in fields.items()
        if name.startswith("customfield_") and name not in known and (plain := _plain(value)) is not None
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """What a custom field says, without names of people or addresses of pictures."""
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, list):
        return [plain for each in value if (plain := _plain(each)) is not None]
    if value.get("type") == "doc":
        return adf_text(value)
    if "accountId" in value:
        return value["accountId"]
    if "value" in value:
        below = _plain(value.get("child"))
        return f"{value['value']} / {below}" if below else value["value"]
    return _name(value)


def _comments(api: JiraApi, ticket: str) -> list[Row] | None:
    found = api.comments(ticket)
    if found is None:
        return None
    if not all(isinstance(each, dict) and str(each.get("id", "")).isdecimal() for each in found):
        raise api.rest.unfit("a comment that is no object with an id")
    open_to_all = [each for each in found if each.get("jsdPublic") is not False and not each.get("visibility")]
    said = [each for each in open_to_all if _object(each.get("author")).get("accountType") != _ROBOT]
    public = api.public_comments(ticket) if said else set()
    return [_comment(ticket, each) for each in said if str(each["id"]) in public]


def _comment(ticket: str, value: Mapping[str, Any]) -> Row:
    author = _object(value.get("author"))
    kept = {
        "author_id": _account(author),
        "role": None if author.get("accountType") == _CUSTOMER else "agent",
        "public": True,
        "created_at": _moment(value.get("created")),
        "body": adf_text(value.get("body")),
    }
    return Row("comment", str(value["id"]), as_json(kept), parent=ticket)


def _moment(told: object) -> str | None:
    """In UTC, in a form that sorts as text."""
    try:
        moment = datetime.fromisoformat(told if isinstance(told, str) else "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _account(user: Any) -> str | None:
    """Null also for `unknown`, which stands for everyone whose account is lost."""
    named = _object(user).get("accountId")
    return str(named) if named and named != "unknown" else None


def _name(value: Any) -> str | None:
    name = _object(value).get("name")
    return name if isinstance(name, str) else None


def _rating(value: Any) -> float | None:
    rating = _object(value).get("rating")
    return (rating - 1) / (_BEST - 1) if isinstance(rating, int) and 1 <= rating <= _BEST else None
