"""Freshdesk's lists: tickets by when they changed, the deleted and the spam ones, and one ticket's conversations.

How they are asked for is in `rest_pages.py`, what they mean in `freshdesk.py`, which calls this.

Source: Freshdesk's API v2, "List All Tickets" and "List All Conversations of a Ticket".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from schemas.remote_source import FreshdeskSource
from schemas.secret import secret_value
from tasks.curate.ingest.rest_pages import RestPages

Listed = Literal["present", "deleted", "spam"]
"""Deleted tickets and spam are in lists of their own, and in no other."""
CONVERSATIONS = 100
"""Of one page; no more are given."""


class FreshdeskApi:
    """The account as lists."""

    def __init__(self, source: FreshdeskSource, *, sleep: Callable[[float], None] = time.sleep) -> None:
        key = secret_value(source.api_key, where="source.api_key")
        self.page_size = source.page_size
        self.rest = RestPages(
            service="Freshdesk", kind="freshdesk", address=source.address,
            auth={"type": "http_basic", "username": key, "password": "X"},
            requests_per_minute=source.requests_per_minute, sleep=sleep,
            admission="look at what the variable of `api_key` holds, and whether its agent may see all tickets",
        )  # fmt: skip

    def tickets(self, listed: Listed, *, since: str, page: int) -> list[Any]:
        """Tickets that changed at `since` or later, from the one that changed first on."""
        params = {
            "updated_since": since, "order_by": "updated_at", "order_type": "asc", "include": "description",
            "per_page": str(self.page_size), "page": str(page),
            **({"filter": listed} if listed != "present" else {}),
        }  # fmt: skip
        self.rest.pace()
        return self.rest.listed("api/v2/tickets", params) or []

    def conversations(self, ticket: str) -> list[Any] | None:
        """All of a ticket's conversations, notes included; None when the ticket is gone."""
        found: list[Any] = []
        while True:
            self.rest.pace()
            params = {"per_page": str(CONVERSATIONS), "page": str(len(found) // CONVERSATIONS + 1)}
            page = self.rest.listed(f"api/v2/tickets/{ticket}/conversations", params, gone=404)
            if page is None:
                return None
            found += page
            if len(page) < CONVERSATIONS:
                return found

    def close(self) -> None:
        """Hang up."""
        self.rest.close()
