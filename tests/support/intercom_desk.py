"""An Intercom on this machine with the search, the conversations and the moods of the real one; deterministic.

`plan` says what goes wrong: request number (1-based, over all requests) -> 429, 500, half, cut, wrong.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.desk_server import send, send_part, serving

AGENT = {"type": "admin", "id": "900"}
TOKEN = "s3cret-token-of-the-desk"
BEGAN = 1_780_315_200
"""2026-06-01, noon, UTC."""


class IntercomDesk:
    """Conversations by id with their parts; every change moves one to the end of the search."""

    def __init__(self) -> None:
        self.conversations: dict[int, dict[str, Any]] = {}
        self.parts: dict[int, list[dict[str, Any]]] = {}
        self.plan: dict[int, str] = {}
        self.asked: list[str] = []
        self.answered: Counter[str] = Counter()
        self.url = ""
        self._minutes = 0
        self._lock = threading.Lock()

    def add(self, number: int, question: str = "", reply: str = "", **changes: Any) -> None:
        """A conversation that a customer began, with a note and a reply of the agent."""
        user = {"type": "user", "id": f"c{100 + number}"}
        self.conversations[number] = {
            "type": "conversation", "id": str(number), "created_at": BEGAN - 1000 + number, "state": "closed",
            "title": None, "priority": "not_priority", "custom_attributes": {"area": "billing"},
            "contacts": {"contacts": [user]}, "tags": {"tags": [{"name": "a"}]},
            "conversation_rating": {"rating": 5},
            "source": {
                "type": "conversation", "id": "9", "subject": f"Subject {number}", "author": user,
                "body": question or f"Question {number}, please help.",
            },
            **changes,
        }  # fmt: skip
        said = [
            ("note", AGENT, f"Note {number}"),
            ("assignment", AGENT, None),
            ("comment", AGENT, reply or f"Answer {number}."),
        ]
        self.parts[number] = [
            {"type": "conversation_part", "id": str(number * 10 + place), "part_type": kind, "author": author,
             "body": text, "created_at": BEGAN - 900 + place}
            for place, (kind, author, text) in enumerate(said)
        ]  # fmt: skip
        self.touch(number)

    def touch(self, *numbers: int, **changes: Any) -> None:
        """Change them in one moment, later than every change before."""
        self._minutes += 5
        for number in numbers:
            self.conversations[number] |= {**changes, "updated_at": BEGAN + 60 * self._minutes}

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, pagination = asked["query"], asked["pagination"]
        assert (query["field"], query["operator"]) == ("updated_at", ">")
        assert asked["sort"] == {"field": "updated_at", "order": "ascending"}
        found = sorted(
            (each for each in self.conversations.values() if each["updated_at"] > query["value"]),
            key=lambda each: (each["updated_at"], int(each["id"])),
        )
        begin = int(pagination.get("starting_after") or 0)
        end = begin + pagination["per_page"]
        more = {"next": {"page": 2, "starting_after": str(end)}} if end < len(found) else {}
        return {"type": "conversation.list", "conversations": found[begin:end], "pages": {"type": "pages", **more}}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.asked.append(handler.path)
            mood = self.plan.get(len(self.asked))
        if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            send(handler, 401, {"type": "error.list"})
            return
        assert handler.headers["Intercom-Version"] == "2.11"
        found: Any = None
        if handler.path == "/conversations/search":
            found = self.search(json.loads(body))
        elif (number := int(handler.path.partition("?")[0].split("/")[2])) in self.parts:
            assert handler.path.endswith("?display_as=plaintext")
            found = {**self.conversations[number], "conversation_parts": {"conversation_parts": self.parts[number]}}
        if mood in ("429", "500"):
            send(handler, int(mood), {"error": mood}, {"Retry-After": "0"} if mood == "429" else {})
        elif found is None:
            send(handler, 404, {"type": "error.list"})
        elif mood in ("half", "cut", "wrong"):
            send_part(handler, found, mood)
        else:
            self.answered[handler.path] += 1
            send(handler, 200, found)


@contextmanager
def intercom_desk() -> Iterator[IntercomDesk]:
    """The desk, answering on loopback while the block runs."""
    desk = IntercomDesk()
    with serving(desk.answer) as desk.url:
        yield desk
