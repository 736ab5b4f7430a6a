"""Jira's lists: issues by when they changed, the comments of one, and which of these its customer sees.

How they are asked for is in `rest_pages.py`, what they mean in `jira.py`, which calls this.

Source: Jira Cloud platform REST API v3, "Search for issues using JQL enhanced search", "Get comments", "Get fields";
Jira Service Management Cloud REST API, "Get request comments".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from schemas.errors import ServiceError
from schemas.remote_source import JiraSource
from schemas.secret import secret_value
from tasks.curate.ingest.rest_pages import RestPages

FIELDS = ("*all", "-comment", "-attachment", "-worklog", "-issuelinks", "-subtasks", "-watches", "-votes")
"""All of an issue but what belongs to others; also what was added to it since."""
IDS_AT_A_TIME = 5000
"""Of a page that holds nothing but ids."""
COMMENTS_AT_A_TIME = 100
"""No more are given, whatever is asked for."""
REQUEST_TYPE = "com.atlassian.servicedesk:vp-origin"
SATISFACTION = "com.atlassian.servicedesk:sd-request-feedback"


class JiraApi:
    """The site as lists."""

    def __init__(self, source: JiraSource, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._source = source
        self.rest = RestPages(
            service="Jira", kind="jira", address=source.address,
            auth={
                "type": "http_basic", "username": source.email,
                "password": secret_value(source.api_token, where="source.api_token"),
            },
            requests_per_minute=source.requests_per_minute, sleep=sleep,
            admission="look at `email` and at what the variable of `api_token` holds; a token with scopes needs "
            "`cloud_id` instead of `subdomain`",
        )  # fmt: skip

    def check(self) -> None:
        """Are we who we say, and are the projects there? Who is not let in sees an empty site, without an error.

        Raises:
            ServiceError: TG0707, the login is refused or a project is not seen; TG0708.
        """
        self.rest.pace()
        self.rest.one("rest/api/3/myself", {})
        for key in self._source.projects:
            self.rest.pace()
            if self.rest.one(f"rest/api/3/project/{key}", {}, gone=404) is None:
                raise ServiceError(
                    f"Jira has no project {key} that this account may see", code="TG0707", where="source.projects",
                    hint="look at the key, and at whether the account of `email` may browse the project",
                )  # fmt: skip

    def custom_fields(self) -> dict[str, str]:
        """Kind of a custom field -> its id on this site."""
        self.rest.pace()
        found: dict[str, str] = {}
        for field in self.rest.listed("rest/api/3/field", {}) or []:
            schema = field.get("schema") if isinstance(field, Mapping) else None
            kind = schema.get("custom") if isinstance(schema, Mapping) else None
            if isinstance(kind, str):
                found.setdefault(kind, str(field.get("id")))
        return found

    def changed(self, since: str, token: str | None) -> Iterator[tuple[list[Any], str | None]]:
        """Issues that changed since a minute, from the one that changed first on, page by page with the token behind.

        Args:
            since: As JQL writes it, without a time zone: the account's own is meant.
            token: Of the page to go on from; null begins.
        """
        jql = f'{self._projects} AND updated >= "{since}" ORDER BY updated ASC, key ASC'
        return self._pages(jql, FIELDS, self._source.page_size, token)

    def ids(self, since: str) -> Iterator[str]:
        """The ids of all that changed since a minute."""
        jql = f'{self._projects} AND updated >= "{since}" ORDER BY key ASC'
        for issues, _ in self._pages(jql, ("id",), IDS_AT_A_TIME, None):
            for issue in issues:
                if not isinstance(issue, Mapping) or not str(issue.get("id", "")).isdecimal():
                    raise self.rest.unfit("an issue without an id")
                yield str(issue["id"])

    def some(self, keys: list[str]) -> Iterator[Any]:
        """These issues, as far as they are there."""
        jql = f"{self._projects} AND id in ({', '.join(keys)}) ORDER BY key ASC"
        for issues, _ in self._pages(jql, FIELDS, self._source.page_size, None):
            yield from issues

    def project_of(self, key: str) -> str | None:
        """Key of the project in which an issue is; null when the issue is gone, or is not shown to us any more."""
        self.rest.pace()
        found = self.rest.one(f"rest/api/3/issue/{key}", {"fields": "project"}, gone=404)
        if found is None:
            return None
        return str(((found.get("fields") or {}).get("project") or {}).get("key"))

    def comments(self, key: str) -> list[Any] | None:
        """All comments of an issue, internal ones included; None when the issue is gone."""
        found: list[Any] = []
        while True:
            self.rest.pace()
            params = {"startAt": str(len(found)), "maxResults": str(COMMENTS_AT_A_TIME), "orderBy": "created"}
            page = self.rest.one(f"rest/api/3/issue/{key}/comment", params, gone=404)
            if page is None:
                return None
            if not isinstance(page.get("comments"), list) or not isinstance(page.get("total"), int):
                raise self.rest.unfit("a page of comments without their list or number")
            found += page["comments"]
            if len(found) >= page["total"]:
                return found
            if not page["comments"]:
                raise self.rest.unfit("fewer comments than it says there are")

    def public_comments(self, key: str) -> set[str]:
        """Ids of the comments that the customer sees; none where the issue is no request of a portal.

        Internal comments are listed too unless they are refused, so they are refused, and each says what it is.
        """
        found: set[str] = set()
        start = 0
        while True:
            self.rest.pace()
            params = {"public": "true", "internal": "false", "start": str(start), "limit": str(COMMENTS_AT_A_TIME)}
            page = self.rest.one(f"rest/servicedeskapi/request/{key}/comment", params, gone=404)
            if page is None:
                return set()
            values = page.get("values")
            if not isinstance(values, list) or not isinstance(page.get("isLastPage"), bool):
                raise self.rest.unfit("a page of a request's comments without their list or its end")
            found |= {
                str(value.get("id")) for value in values if isinstance(value, Mapping) and value.get("public") is True
            }
            start += len(values)
            if page["isLastPage"]:
                return found
            if not values:
                raise self.rest.unfit("an empty page of comments that is not the last")

    def close(self) -> None:
        """Hang up."""
        self.rest.close()

    @property
    def _projects(self) -> str:
        keys = ", ".join(f'"{key}"' for key in self._source.projects)
        return f"project in ({keys})"

    def _pages(
        self, jql: str, fields: tuple[str, ...], size: int, token: str | None
    ) -> Iterator[tuple[list[Any], str | None]]:
        passed = {token}
        while True:
            self.rest.pace()
            asked = {"jql": jql, "fields": list(fields), "maxResults": size}
            found = self.rest.one("rest/api/3/search/jql", {}, body=asked | ({"nextPageToken": token} if token else {}))
            issues, token = found.get("issues"), found.get("nextPageToken") or None
            if not isinstance(issues, list):
                raise self.rest.unfit("a search without a list of issues")
            if token is None and found.get("isLast") is False:
                raise self.rest.unfit("a page that is not the last, without a token for the next")
            if token is None or (not issues and found.get("isLast") is True):
                yield issues, None
                return
            if token in passed:
                raise self.rest.unfit("a token of a page that was there already")
            passed.add(token)
            yield issues, token
