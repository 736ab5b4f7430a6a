"""Zendesk's pages: the incremental export behind a cursor, and the comments of one ticket.

How they are asked for is in `rest_pages.py`, what they mean in `zendesk.py`, which calls this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from schemas.remote_source import ZendeskSource
from schemas.secret import secret_value
from tasks.curate.ingest.rest_pages import RestPages

Page = Mapping[str, Any]


class ZendeskApi:
    """The account as pages: of tickets behind a cursor, and of one ticket's comments."""

    def __init__(self, source: ZendeskSource, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._source = source
        self.rest = RestPages(
            service="Zendesk", kind="zendesk", address=source.address, auth=_login(source),
            requests_per_minute=source.requests_per_minute, sleep=sleep,
            admission="the export is for admins: look at `email` and at what the variable of the token holds",
        )  # fmt: skip

    def tickets(self, cursor: str | None) -> Iterator[Page]:
        """Pages of the export from this cursor on, or from the source's start; each is asked for when it is wanted."""
        source = self._source
        place = {"cursor": cursor} if cursor else {"start_time": str(source.start_time)}
        params = {**place, "per_page": str(source.page_size)}
        pages = self.rest.pages("api/v2/incremental/tickets/cursor.json", params, export_paginator())
        while True:
            self.rest.pace()
            page = self._next(pages)
            if page is None:
                return
            if not isinstance(page.get("tickets"), list):
                raise self.rest.unfit("a page of the export without a list of tickets")
            yield page

    def comments(self, ticket: str) -> list[Page] | None:
        """All pages of a ticket's comments with their authors; None when the ticket is gone."""
        params = {"page[size]": "100", "include": "users"}
        pages = self.rest.pages(f"api/v2/tickets/{ticket}/comments.json", params, _comments_paginator(), gone=404)
        found: list[Page] = []
        while (page := self._next(pages)) is not None:
            if not isinstance(page.get("comments"), list):
                raise self.rest.unfit("a page of comments without a list of comments")
            found.append(page)
        return found or None

    def close(self) -> None:
        """Hang up."""
        self.rest.close()

    def _next(self, pages: Iterator[Any]) -> Page | None:
        page = self.rest.next_page(pages)
        if page is not None and not isinstance(page, Mapping):
            raise self.rest.unfit("JSON that is no object")
        return page


def _login(source: ZendeskSource) -> dict[str, str]:
    if source.oauth_token is not None:
        return {"type": "bearer", "token": secret_value(source.oauth_token, where="source.oauth_token")}
    token = secret_value(source.api_token or "", where="source.api_token")
    return {"type": "http_basic", "username": f"{source.email}/token", "password": token}


def export_paginator() -> Any:
    """Behind each page the cursor, until `end_of_stream`."""
    from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

    class ExportPaginator(JSONResponseCursorPaginator):  # type: ignore[misc, unused-ignore]
        def update_state(self, response: Any, data: list[Any] | None = None) -> None:
            super().update_state(response, data)
            if response.json().get("end_of_stream"):
                self._has_next_page = False

        def update_request(self, request: Any) -> None:
            super().update_request(request)
            (request.params or {}).pop("start_time", None)

    return ExportPaginator(cursor_path="after_cursor", cursor_param="cursor")


def _comments_paginator() -> Any:
    from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

    return JSONResponseCursorPaginator(
        cursor_path="meta.after_cursor", cursor_param="page[after]", has_more_path="meta.has_more"
    )
