"""Zendesk's pages: the incremental export after a cursor, and the comments of one ticket.

Login, paging and retries are dlt's declarative `rest_api`. dlt only extracts: none of its pipelines runs, so it writes
no file, keeps no state and sends no telemetry (docs/decisions/sources.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from schemas.errors import ServiceError
from schemas.remote_source import ZendeskSource
from schemas.secret import secret_value
from tasks.sources.kind import need_package

if TYPE_CHECKING:
    from requests import Response, Session

Page = Mapping[str, Any]

ATTEMPTS = 6
"""Per request, by dlt; it waits as `Retry-After` says after a 429, otherwise with growing delays."""
MAX_DELAY_S = 300
FIRST_DELAY_S = 1.0
RESTARTS = 4
"""Restarts of a stream of pages at the last committed position, after a page that is not JSON or came twice."""
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}


class ZendeskApi:
    """Pages of an account: of tickets after a cursor, and of one ticket's comments.

    Raises:
        ConfigError: TG0112, the extra is not installed; TG0106, the token is not in the environment.
    """

    def __init__(self, source: ZendeskSource, *, sleep: Callable[[float], None] = time.sleep) -> None:
        need_package("zendesk")
        os.environ.update(QUIET)
        self._source, self._auth, self._sleep = source, _login(source), sleep
        self._export_times: deque[float] = deque(maxlen=source.requests_per_minute)
        self._session: Session | None = None
        self._was_html = False

    def tickets(self, cursor: str | None) -> Iterator[Page]:
        """Pages of the export after this cursor, or from the source's start; each is requested when it is consumed.

        Raises:
            ServiceError: TG0707, the login is refused; TG0708, no usable response.
        """
        source = self._source
        place = {"cursor": cursor} if cursor else {"start_time": str(source.start_time)}
        params = {**place, "per_page": str(source.page_size)}
        pages = self.pages("api/v2/incremental/tickets/cursor.json", params, export_paginator())
        while True:
            self._pace()
            page = self._next(pages)
            if page is None:
                return
            if not isinstance(page.get("tickets"), list):
                raise self._unusable("a page of the export without a list of tickets")
            yield page

    def comments(self, ticket: str) -> list[Page] | None:
        """All pages of a ticket's comments with their authors; None if the ticket is gone.

        Raises:
            ServiceError: As `tickets`.
        """
        params = {"page[size]": "100", "include": "users"}
        pages = self.pages(f"api/v2/tickets/{ticket}/comments.json", params, _comments_paginator(), gone=404)
        found: list[Page] = []
        while (page := self._next(pages)) is not None:
            if not isinstance(page.get("comments"), list):
                raise self._unusable("a page of comments without a list of comments")
            found.append(page)
        return found or None

    def pages(self, path: str, params: dict[str, str], paginator: Any, *, gone: int | None = None) -> Iterator[Any]:
        """The pages at a path, each requested when it is consumed; none if the status is `gone`."""
        from dlt.sources.rest_api import rest_api_resources

        endpoint: dict[str, Any] = {"path": path, "params": params, "paginator": paginator, "data_selector": "$"}
        self._was_html = False
        ignored = [{"status_code": gone, "action": "ignore"}] if gone is not None else []
        endpoint["response_actions"] = [self._read_whole, *ignored]
        client = {"base_url": self._source.address, "auth": self._auth, "session": self._open_session()}
        config: Any = {"client": client, "resources": [{"name": "pages", "endpoint": endpoint}]}
        return iter(rest_api_resources(config)[0])

    def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            self._session.close()

    def _next(self, pages: Iterator[Any]) -> Page | None:
        from dlt.extract.exceptions import ResourceExtractionError
        from requests import HTTPError, RequestException

        try:
            page = next(pages, None)
        except (ResourceExtractionError, RequestException, ValueError) as error:
            cause = error.__cause__ or error.__context__ or error
            status = cause.response.status_code if isinstance(cause, HTTPError) and cause.response is not None else None
            if status in (401, 403):
                raise ServiceError(
                    f"Zendesk refuses the login ({status})",
                    code="TG0707",
                    where=self._source.address,
                    hint="the export requires an admin; check `email` and the variable of the token",
                ) from None
            reason = "a page of HTML, perhaps a login page" if self._was_html else type(cause).__name__
            raise self._unusable(f"status {status}" if status else reason) from None
        if page is not None and not isinstance(page, Mapping):
            raise self._unusable("JSON that is not an object")
        return page

    def _pace(self) -> None:
        """Wait until the limit of pages per minute allows one more."""
        if len(self._export_times) == self._export_times.maxlen:
            self._sleep(max(0.0, 60.0 - (time.monotonic() - self._export_times[0])))
        self._export_times.append(time.monotonic())

    def _unusable(self, reason: str) -> ServiceError:
        return ServiceError(
            f"Zendesk's response is unusable: {reason}",
            code="TG0708",
            where=self._source.address,
            hint="run again later; ingested rows stay, and the sync resumes after them",
        )

    def _read_whole(self, response: Response) -> None:
        """Read the whole response first: one that is retried unread would keep its connection."""
        self._was_html = response.content.lstrip()[:1] == b"<"

    def _open_session(self) -> Session:
        if self._session is None:
            from dlt.sources.helpers.requests.retry import Client

            logging.getLogger("dlt").setLevel(logging.CRITICAL)
            self._session = Client(
                raise_for_status=False,
                request_timeout=60,
                request_max_attempts=ATTEMPTS,
                request_backoff_factor=FIRST_DELAY_S,
                request_max_retry_delay=MAX_DELAY_S,
            ).session
            self._session.trust_env = False  # a .netrc would replace the declared login
        return self._session


def with_restarts(work: Callable[[], None]) -> None:
    """Do the work; after an unusable response resume at the last committed position, up to `RESTARTS` times."""
    for attempt in range(RESTARTS + 1):
        try:
            work()
            return
        except ServiceError as error:
            if error.code != "TG0708" or attempt == RESTARTS:
                raise
            time.sleep(FIRST_DELAY_S * 2**attempt)


def _login(source: ZendeskSource) -> dict[str, str]:
    if source.oauth_token is not None:
        return {"type": "bearer", "token": secret_value(source.oauth_token, where="source.oauth_token")}
    token = secret_value(source.api_token or "", where="source.api_token")
    return {"type": "http_basic", "username": f"{source.email}/token", "password": token}


def export_paginator() -> Any:
    """Each page has the cursor of the next one, until `end_of_stream`."""
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
