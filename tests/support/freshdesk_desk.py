"""A Freshdesk on this machine with the lists, the conversations and the moods of the real one; deterministic.

`plan` says what goes wrong: request number (1-based, over all requests) -> 429, 500, half, cut, wrong.
"""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.desk_server import send, send_part, serving

AGENT = 900
KEY = "s3cret-key-of-the-desk"
BEGAN = datetime(2026, 6, 1, 12, tzinfo=UTC)


class FreshdeskDesk:
    """Tickets by id, conversations by ticket; every change moves a ticket to the end of its list."""

    def __init__(self) -> None:
        self.tickets: dict[int, dict[str, Any]] = {}
        self.conversations: dict[int, list[dict[str, Any]]] = {}
        self.listed: dict[int, str] = {}
        """Ticket -> deleted or spam, where it is."""
        self.plan: dict[int, str] = {}
        self.meanwhile: Callable[[str], None] = lambda _path: None
        """What happens before a request is answered."""
        self.asked: list[str] = []
        self.answered: Counter[str] = Counter()
        self.refused_logins = 0
        self.url = ""
        self._minutes = 0
        self._lock = threading.Lock()

    def add(self, number: int, question: str = "", reply: str = "", **changes: Any) -> None:
        """A ticket with a private note and a reply of the agent."""
        created = f"2026-06-01T09:{number % 60:02d}:00Z"
        self.tickets[number] = {
            "id": number, "requester_id": 100 + number, "created_at": created, "subject": f"Subject {number}",
            "description": "<div>html</div>", "description_text": question or f"Question {number}, please help.",
            "status": 4, "priority": 3, "source": 1, "type": "Question", "tags": ["a"], "company_id": 7,
            "custom_fields": {"area": "billing"}, **changes,
        }  # fmt: skip
        said = [(True, f"Note {number}"), (False, reply or f"Answer {number} of the desk.")]
        self.conversations[number] = [
            {"id": number * 10 + place, "user_id": AGENT, "incoming": False, "private": private, "body_text": text,
             "body": f"<div>{text}</div>", "created_at": f"2026-06-01T10:{place:02d}:00Z"}
            for place, (private, text) in enumerate(said)
        ]  # fmt: skip
        self.touch(number)

    def touch(self, *numbers: int, **changes: Any) -> None:
        """Change them in one moment, later than every change before."""
        self._minutes += 5
        moment = (BEGAN + timedelta(minutes=self._minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for number in numbers:
            self.tickets[number] |= {**changes, "updated_at": moment}

    def list_tickets(self, query: dict[str, str]) -> list[dict[str, Any]]:
        wanted = query.get("filter", "present")
        found = sorted(
            (
                ticket for number, ticket in self.tickets.items()
                if self.listed.get(number, "present") == wanted and ticket["updated_at"] >= query["updated_since"]
            ),
            key=lambda ticket: (ticket["updated_at"], ticket["id"]),
        )  # fmt: skip
        size = int(query["per_page"])
        page = found[(int(query["page"]) - 1) * size :][:size]
        return [ticket if query.get("include") == "description" else _without_text(ticket) for ticket in page]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append(handler.path)
            mood = self.plan.get(len(self.asked))
            self.meanwhile(handler.path)
        login = base64.b64encode(f"{KEY}:X".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {login}":
            self.refused_logins += 1
            send(handler, 401, {"code": "invalid_credentials"})
            return
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found: Any = None
        if parts.path == "/api/v2/tickets":
            found = self.list_tickets(query)
        elif (number := int(parts.path.split("/")[4])) in self.conversations:
            size, page = int(query["per_page"]), int(query["page"])
            found = self.conversations[number][(page - 1) * size :][:size]
        if mood in ("429", "500"):
            send(handler, int(mood), {"error": mood}, {"Retry-After": "0"} if mood == "429" else {})
        elif found is None:
            send(handler, 404, {"code": "not_found"})
        elif mood in ("half", "cut", "wrong"):
            send_part(handler, found or [{"id": 1}], mood)
        else:
            self.answered[handler.path] += 1
            send(handler, 200, found)


def _without_text(ticket: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ticket.items() if not name.startswith("description")}


@contextmanager
def freshdesk_desk() -> Iterator[FreshdeskDesk]:
    """The desk, answering on loopback while the block runs."""
    desk = FreshdeskDesk()
    with serving(desk.answer) as desk.url:
        yield desk
