"""Intercom's conversations: searched by when they changed, and one with all its parts.

How they are asked for is in `rest_pages.py`, what they mean in `intercom.py`, which calls this.

Source: Intercom's API 2.11, "Search conversations" and "Retrieve a conversation".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from schemas.remote_source import IntercomSource
from schemas.secret import secret_value
from tasks.curate.ingest.rest_pages import RestPages

VERSION = "2.11"


class IntercomApi:
    """The workspace as searches."""

    def __init__(self, source: IntercomSource, *, sleep: Callable[[float], None] = time.sleep) -> None:
        token = secret_value(source.access_token, where="source.access_token")
        self.page_size = source.page_size
        self._after: object = None
        self.rest = RestPages(
            service="Intercom", kind="intercom", address=source.address, auth={"type": "bearer", "token": token},
            requests_per_minute=source.requests_per_minute, sleep=sleep, headers={"Intercom-Version": VERSION},
            admission="look at what the variable of `access_token` holds, and whether it may read conversations",
        )  # fmt: skip

    def changed(self, since: str, page: int) -> list[Any]:
        """Conversations that changed at `since` (seconds) or later, from the one that changed first on.

        The first page is searched for anew; one behind it is what follows the page before.
        """
        pagination = {"per_page": self.page_size, **({"starting_after": self._after} if page > 1 else {})}
        asked = {
            "query": {"field": "updated_at", "operator": ">", "value": int(since) - 1},
            "sort": {"field": "updated_at", "order": "ascending"},
            "pagination": pagination,
        }
        self.rest.pace()
        found = self.rest.one("conversations/search", {}, body=asked)
        if not isinstance(found.get("conversations"), list):
            raise self.rest.unfit("a search without a list of conversations")
        following = (found.get("pages") or {}).get("next") or {}
        self._after = following.get("starting_after") if isinstance(following, Mapping) else None
        if page > 1 and pagination["starting_after"] is None:
            return []
        conversations: list[Any] = found["conversations"]
        return conversations

    def conversation(self, key: str) -> Mapping[str, Any] | None:
        """One with its parts as plain text; None when it is gone."""
        self.rest.pace()
        found: Mapping[str, Any] | None = self.rest.one(f"conversations/{key}", {"display_as": "plaintext"}, gone=404)
        return found

    def close(self) -> None:
        """Hang up."""
        self.rest.close()
