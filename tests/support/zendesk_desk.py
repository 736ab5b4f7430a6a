"""A fake Zendesk on this machine with the real one's export, comments and faults; deterministic.

`plan` says what goes wrong: request number (1-based, over all requests) -> 429, 500, half, cut, again, wrong,
login.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.desk_server import send, send_part, serving

START = 1_780_272_000
"""2026-06-01, UTC."""
AGENT = 900
TOKEN = "s3cret-token-of-the-desk"


class ZendeskDesk:
    """Tickets by id and comments by ticket; a change moves a ticket to the end of the export."""

    def __init__(self) -> None:
        self.tickets: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.plan: dict[int, str] = {}
        self.requests: list[str] = []
        self.answered: Counter[str] = Counter()
        """Path with query -> number of complete answers."""
        self.refused_logins = 0
        self.url = ""
        self._clock = START
        self._lock = threading.Lock()

    def add(self, number: int, body: str = "", reply: str = "", **changes: Any) -> None:
        """Add a ticket: the requester's question, a private note, and the agent's reply."""
        created = f"2026-06-{1 + number % 28:02d}T09:00:00Z"
        self.tickets[number] = {
            "id": number, "requester_id": 100 + number, "created_at": created, "updated_at": created,
            "subject": f"Subject {number}", "status": "solved", "priority": "high", "type": "question",
            "via": {"channel": "email"}, "satisfaction_rating": {"score": "good"}, "tags": ["a"],
            "custom_fields": [{"id": 360001, "value": "billing"}], "description": f"Description {number}", **changes,
        }  # fmt: skip
        comments = [
            (100 + number, True, body or f"Question {number}, please help."),
            (AGENT, False, f"Note {number}"),
            (AGENT, True, reply or f"Answer {number} of the desk."),
        ]
        self.comments[number] = [
            {"id": number * 10 + place, "author_id": author, "public": public, "plain_body": text,
             "body": f"**{text}**", "created_at": f"2026-06-{1 + number % 28:02d}T10:{place:02d}:00Z"}
            for place, (author, public, text) in enumerate(comments)
        ]  # fmt: skip
        self.touch(number)

    def touch(self, number: int, **changes: Any) -> None:
        self._clock += 1
        self.tickets[number] |= {**changes, "generated_timestamp": self._clock}

    def export(self, query: dict[str, str]) -> dict[str, Any]:
        after = int(query["cursor"].removeprefix("c")) if "cursor" in query else int(query["start_time"]) - 1
        changed = sorted(
            (ticket for ticket in self.tickets.values() if ticket["generated_timestamp"] > after),
            key=lambda ticket: ticket["generated_timestamp"],
        )
        page = changed[: int(query["per_page"])]
        end = page[-1]["generated_timestamp"] if page else after
        return {"tickets": page, "after_cursor": f"c{end}", "end_of_stream": len(changed) <= int(query["per_page"])}

    def listed(self, number: int, query: dict[str, str]) -> dict[str, Any] | None:
        if number not in self.comments:
            return None
        every, begin = self.comments[number], int(query.get("page[after]", 0))
        page = every[begin : begin + min(2, int(query["page[size]"]))]  # small pages, to force paging
        end = begin + len(page)
        users = [{"id": AGENT, "role": "agent"}, {"id": 100 + number, "role": "end-user"}]
        return {"comments": page, "users": users, "meta": {"has_more": end < len(every), "after_cursor": str(end)}}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append(handler.path)
            mood, before = (
                self.plan.get(len(self.requests)),
                self.requests[-2] if len(self.requests) > 1 else handler.path,
            )
        import base64

        login = base64.b64encode(f"ada@example.com/token:{TOKEN}".encode()).decode()
        if handler.headers.get("Authorization") != f"Basic {login}":
            self.refused_logins += 1
            send(handler, 401, {"error": "Couldn't authenticate you"})
            return
        path = before if mood == "again" else handler.path
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = self.export(query) if "incremental" in parts.path else self.listed(int(parts.path.split("/")[4]), query)
        if mood in ("429", "500"):
            send(handler, int(mood), {"error": mood}, {"Retry-After": "0"} if mood == "429" else {})
        elif found is None:
            send(handler, 404, {"error": "RecordNotFound"})
        elif mood in ("half", "cut", "wrong", "login"):
            send_part(handler, found, mood)
        else:
            self.answered[handler.path] += 1
            send(handler, 200, found)


@contextmanager
def zendesk_desk() -> Iterator[ZendeskDesk]:
    """Serve the desk on loopback while the block runs."""
    desk = ZendeskDesk()
    with serving(desk.answer) as desk.url:
        yield desk
