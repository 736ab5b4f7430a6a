"""Pages of a help desk's HTTP API by dlt's declarative `rest_api`: login, paging, and what is done without an answer.

dlt only extracts here: none of its pipelines runs, so it writes no file, keeps no state of its own and tells nobody
anything (docs/decisions/0026-sources-brought-in.md). It knows nothing of any service. Called by the `*_api.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from schemas.errors import ServiceError
from tasks.curate.ingest.extras import need_package

if TYPE_CHECKING:
    from requests import Response, Session

ATTEMPTS = 6
"""Of one request, by dlt: after 429 as long as `Retry-After` says, else with growing delays."""
MAX_DELAY_S = 300
RESTARTS = 4
"""Of a stream of pages, from the last committed place, when a page was no JSON or came twice."""
FIRST_DELAY_S = 1.0
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}


class RestPages:
    """One account of a service.

    Args:
        service: Its name, for errors.
        kind: Of the source, which is that of its extra.
        address: Scheme and host.
        auth: As dlt declares a login.
        requests_per_minute: Waited for by `pace`.
        admission: What to look at when the login is refused.
        headers: Of every request.
    """

    def __init__(
        self, *, service: str, kind: str, address: str, auth: dict[str, str], requests_per_minute: int,
        admission: str, headers: Mapping[str, str] | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        need_package("dlt", kind=kind)
        os.environ.update(QUIET)
        self.service, self.address, self._auth, self._admission = service, address, auth, admission
        self._headers, self._sleep = dict(headers or {}), sleep
        self._asked: deque[float] = deque(maxlen=requests_per_minute)
        self._session: Session | None = None
        self._status, self._was_list, self._was_html = 0, False, False

    def pages(
        self, path: str, params: dict[str, str], paginator: Any, *, gone: int | None = None, body: Any = None
    ) -> Iterator[Any]:
        """What lies at the path, asked for page by page with `next_page`; none where its status is `gone`.

        Args:
            body: JSON that is posted; null gets.
        """
        from dlt.sources.rest_api import rest_api_resources

        endpoint: dict[str, Any] = {"path": path, "params": params, "paginator": paginator, "data_selector": "$"}
        endpoint |= {} if body is None else {"method": "POST", "json": body}
        self._was_html = False
        ignored = [{"status_code": gone, "action": "ignore"}] if gone is not None else []
        endpoint["response_actions"] = [self._read_whole, *ignored]
        client = {
            "base_url": self.address, "auth": self._auth, "session": self._open_session(), "headers": self._headers,
        }  # fmt: skip
        config: Any = {"client": client, "resources": [{"name": "pages", "endpoint": endpoint}]}
        return iter(rest_api_resources(config)[0])

    def next_page(self, pages: Iterator[Any]) -> Any:
        """The next page; null at the end.

        Raises:
            ServiceError: TG0707, the login is refused; TG0708, no usable answer.
        """
        from dlt.extract.exceptions import ResourceExtractionError
        from requests import HTTPError, RequestException

        try:
            return next(pages, None)
        except (ResourceExtractionError, RequestException, ValueError) as error:
            cause = error.__cause__ or error.__context__ or error
            status = cause.response.status_code if isinstance(cause, HTTPError) and cause.response is not None else None
            if status in (401, 403):
                raise ServiceError(
                    f"{self.service} refuses the login ({status})", code="TG0707", where=self.address,
                    hint=self._admission,
                ) from None  # fmt: skip
            told = "a page of HTML, perhaps to log in" if self._was_html else type(cause).__name__
            raise self.unfit(f"status {status}" if status else told) from None

    def listed(self, path: str, params: dict[str, str], *, gone: int | None = None) -> list[Any] | None:
        """The items of one request whose answer is a list; None where its status is `gone`.

        Raises:
            ServiceError: as `next_page`, and TG0708 where it is no list.
        """
        self._status, self._was_list, found = 0, False, []
        pages = self.pages(path, params, "single_page", gone=gone)
        while (item := self.next_page(pages)) is not None:  # dlt hands out a list item by item
            found.append(item)
        if self._status == gone:
            return None
        if not self._was_list:
            raise self.unfit("JSON that is no list")
        return found

    def one(self, path: str, params: dict[str, str], *, gone: int | None = None, body: Any = None) -> Any:
        """The object of one request; None where its status is `gone`.

        Raises:
            ServiceError: as `next_page`, and TG0708 where it is no object.
        """
        found = self.next_page(self.pages(path, params, "single_page", gone=gone, body=body))
        if found is None and self._status == gone:
            return None
        if not isinstance(found, Mapping):
            raise self.unfit("JSON that is no object")
        return found

    def pace(self) -> None:
        """Wait until one more request is within the limit of a minute."""
        if len(self._asked) == self._asked.maxlen:
            self._sleep(max(0.0, 60.0 - (time.monotonic() - self._asked[0])))
        self._asked.append(time.monotonic())

    def unfit(self, told: str) -> ServiceError:
        """The error of an answer that is of no use."""
        return ServiceError(
            f"{self.service} does not answer as it should: {told}",
            code="TG0708",
            where=self.address,
            hint="run again later: what was brought in stays, and it goes on from there",
        )

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()

    def _read_whole(self, response: Response) -> None:
        """Before anything is made of a response, read it: one that is tried again would keep its connection."""
        begin = response.content.lstrip()[:1]
        self._status, self._was_list, self._was_html = response.status_code, begin == b"[", begin == b"<"

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
            self._session.trust_env = False  # a .netrc would replace the login that was declared
        return self._session


def patiently(work: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Do the work; after an answer that is of no use go on from the last committed place, a few times."""
    for attempt in range(RESTARTS + 1):
        try:
            work()
            return
        except ServiceError as error:
            if error.code != "TG0708" or attempt == RESTARTS:
                raise
            sleep(FIRST_DELAY_S * 2**attempt)
