"""A Jira on this machine with the search, the comments and the traps of the real one; deterministic.

JQL is read in the time zone of the account, internal comments are listed unless they are refused, and who is not let
in sees an empty site. `plan` says what goes wrong: request number (1-based, over all requests) -> 429, 500, half, cut,
wrong, login (a page of HTML), again (the token of this very page as that of the next).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.desk_server import send, send_part, serving

EMAIL, TOKEN = "bot@acme.example", "s3cret-token-of-the-desk"
AGENT = {"accountId": "557058:a-9", "accountType": "atlassian", "displayName": "Ada Agent", "emailAddress": "a@x.y"}
ROBOT = {"accountId": "557058:r-1", "accountType": "app", "displayName": "Automation for Jira"}
BEGAN = datetime(2026, 6, 1, 12, tzinfo=UTC)
REQUEST_TYPE, SATISFACTION = "customfield_10010", "customfield_10033"
_FIELD = [
    {"id": "summary", "name": "Summary", "custom": False, "schema": {"type": "string", "system": "summary"}},
    {"id": "issuekey", "name": "Key", "custom": False},
    {"id": REQUEST_TYPE, "name": "Request Type", "custom": True,
     "schema": {"type": "sd-customerrequesttype", "custom": "com.atlassian.servicedesk:vp-origin"}},
    {"id": SATISFACTION, "name": "Satisfaction", "custom": True,
     "schema": {"type": "sd-feedback", "custom": "com.atlassian.servicedesk:sd-request-feedback"}},
]  # fmt: skip


def doc(*paragraphs: str) -> dict[str, Any]:
    content = [{"type": "paragraph", "content": [{"type": "text", "text": each}]} for each in paragraphs]
    return {"type": "doc", "version": 1, "content": content}


def customer(number: int) -> dict[str, Any]:
    return {"accountId": f"qm:c-{number}", "accountType": "customer", "displayName": f"Customer {number}"}


def at(moment: datetime) -> str:
    """As Jira writes it: in the time zone of the account, to the millisecond."""
    local = moment.astimezone(timezone(timedelta(hours=-7)))
    return local.strftime("%Y-%m-%dT%H:%M:%S.") + f"{local.microsecond // 1000:03d}-0700"


class JiraDesk:
    """Issues by id, comments by issue; every change moves an issue to the end of the search."""

    def __init__(self) -> None:
        self.issues: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.no_request: set[int] = set()
        """Issues without a request type, which the portal does not know."""
        self.zone_hours = 0.0
        self.tokens_end = False
        self.hidden: set[int] = set()
        """Issues that the search does not show yet."""
        self.extra: list[Any] = []
        self.plan: dict[int, str] = {}
        self.meanwhile: Callable[[str], None] = lambda _path: None
        self.asked: list[str] = []
        self.answered: Counter[str] = Counter()
        self.url = ""
        self._minutes = 0
        self._lock = threading.Lock()

    def add(self, number: int, question: str = "", reply: str = "", **changes: Any) -> None:
        """A request of a customer, with an internal note and a reply of the agent."""
        begun = BEGAN - timedelta(hours=1)
        who = customer(100 + number)
        self.issues[number] = {
            "summary": f"Subject {number}", "description": doc(question or f"Question {number}, please help."),
            "created": at(begun), "priority": {"name": "High", "id": "2"}, "labels": ["a"],
            "status": {"name": "Resolved", "statusCategory": {"key": "done", "name": "Done"}},
            "resolution": {"name": "Fixed"}, "resolutiondate": at(BEGAN), "components": [{"name": "Shop"}],
            "issuetype": {"name": "Service Request"}, "reporter": who, "creator": who, "project": {"key": "SUP"},
            REQUEST_TYPE: {"requestType": {"id": "7", "name": "Billing question"}}, SATISFACTION: {"rating": 5},
            "customfield_10050": {"value": "billing", "id": "1"}, "customfield_10051": None, **changes,
        }  # fmt: skip
        self.comments[number] = []
        self.say(number, f"Note {number}", public=False)
        self.say(number, reply or f"Answer {number} of the desk.")
        self.touch(number)

    def say(self, number: int, text: str, *, author: dict[str, Any] = AGENT, public: bool = True, **more: Any) -> None:
        said = self.comments[number]
        moment = BEGAN - timedelta(minutes=50 - len(said))
        said.append({
            "id": str(number * 1000 + len(said)), "author": author, "body": doc(text), "jsdPublic": public,
            "created": at(moment), "updated": at(moment), **more,
        })  # fmt: skip

    def touch(self, *numbers: int, **changes: Any) -> None:
        """Change them in one moment, later than every change before."""
        self._minutes += 5
        moment = BEGAN + timedelta(minutes=self._minutes, milliseconds=7)
        for number in numbers:
            self.issues[number] |= {**changes, "updated": at(moment)}

    def drop(self, number: int) -> None:
        del self.issues[number], self.comments[number]

    def found(self, jql: str) -> list[int]:
        """What the JQL of our client means on the real one."""
        told = re.fullmatch(r"project in \(((?:\"\w+\"(?:, )?)+)\) AND (.*) ORDER BY (updated ASC, )?key ASC", jql)
        assert told, jql
        projects = re.findall(r"\w+", told[1])
        here = {number: each for number, each in self.issues.items() if each["project"]["key"] in projects}
        if listed := re.fullmatch(r"id in \(([\d, ]+)\)", told[2]):
            return sorted({int(each) for each in listed[1].split(",")} & set(here))
        minute = re.fullmatch(r'updated >= "(\d{4}-\d\d-\d\d \d\d:\d\d)"', told[2])
        assert minute, jql
        zone = timezone(timedelta(hours=self.zone_hours))
        since = datetime.strptime(minute[1], "%Y-%m-%d %H:%M").replace(tzinfo=zone)
        changed = [
            number for number, each in here.items()
            if datetime.fromisoformat(each["updated"]) >= since and (not told[3] or number not in self.hidden)
        ]  # fmt: skip
        return sorted(changed, key=lambda number: ((self.issues[number]["updated"] if told[3] else ""), number))

    def search(self, asked: dict[str, Any], mood: str | None) -> dict[str, Any] | None:
        token = asked.get("nextPageToken")
        if token and self.tokens_end:
            return None
        seen = json.loads(base64.b64decode(token)) if token else []
        waiting = [number for number in self.found(asked["jql"]) if self._place(number) not in seen]
        page, rest = waiting[: asked["maxResults"]], waiting[asked["maxResults"] :]
        whole = asked["fields"] != ["id"]
        issues = [self._issue(number) if whole else {"id": str(number)} for number in page]
        seen += [self._place(number) for number in page]
        following = base64.b64encode(json.dumps(seen).encode()).decode()
        if mood == "again":
            return {"issues": issues, "nextPageToken": token or following, "isLast": False}
        more = {"nextPageToken": following} if rest else {}  # the last page has no such key
        return {"issues": [*issues, *(self.extra if whole and not rest else [])], "isLast": not rest, **more}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.asked.append(handler.path)
            mood = self.plan.get(len(self.asked))
            self.meanwhile(handler.path)
        login = base64.b64encode(f"{EMAIL}:{TOKEN}".encode()).decode()
        is_in = handler.headers.get("Authorization") == f"Basic {login}"
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, found = self._answered(parts.path, query, json.loads(body or b"{}"), mood, is_in=is_in)
        if mood in ("429", "500"):
            send(handler, int(mood), {"error": mood}, {"Retry-After": "0"} if mood == "429" else {})
        elif status == 200 and mood in ("half", "cut", "wrong", "login"):
            send_part(handler, found or [{"id": 1}], mood)
        else:
            self.answered[handler.path] += status == 200
            send(handler, status, found)

    def _answered(
        self, path: str, query: dict[str, str], asked: dict[str, Any], mood: str | None, *, is_in: bool
    ) -> tuple[int, Any]:
        if path == "/rest/api/3/search/jql":
            if not is_in:
                return 200, {"issues": [], "isLast": True}
            found = self.search(asked, mood)
            return (400, {"errorMessages": ["The page token has expired."]}) if found is None else (200, found)
        if not is_in:
            return 401, {"errorMessages": ["You are not authenticated."]}
        name = path.split("/")[-1]
        if path == "/rest/api/3/myself":
            return 200, {"accountId": "557058:bot", "accountType": "atlassian"}
        if path == "/rest/api/3/field":
            return 200, _FIELD
        if path.startswith("/rest/api/3/project/"):
            return (200, {"key": name}) if name in ("SUP", "HR") else (404, {"errorMessages": ["No project."]})
        number = int(path.split("/")[5 if "/api/3/" in path else 4])
        if number not in self.issues or ("servicedeskapi" in path and number in self.no_request):
            return 404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]}
        if "servicedeskapi" in path:
            return 200, self._seen_by_customers(number, query)
        if name == "comment":
            begin, said = int(query["startAt"]), self.comments[number]
            size = min(100, int(query["maxResults"]))
            return 200, {"startAt": begin, "total": len(said), "comments": said[begin : begin + size]}
        return 200, {"id": str(number), "fields": {"project": self.issues[number]["project"]}}

    def _seen_by_customers(self, number: int, query: dict[str, str]) -> dict[str, Any]:
        kinds = {each: query.get(each, "true") == "true" for each in ("public", "internal")}
        listed = [
            {"id": each["id"], "body": "wiki *text*", "public": each["jsdPublic"]}
            for each in self.comments[number] if kinds["public" if each["jsdPublic"] else "internal"]
        ]  # fmt: skip
        begin, size = int(query.get("start", 0)), int(query.get("limit", 50))
        values = listed[begin : begin + size]
        last = begin + size >= len(listed)
        return {"size": len(values), "start": begin, "limit": size, "isLastPage": last, "values": values}

    def _place(self, number: int) -> list[Any]:
        return [number, self.issues[number]["updated"]]

    def _issue(self, number: int) -> dict[str, Any]:
        fields = self.issues[number]
        return {"id": str(number), "key": f"{fields['project']['key']}-{number}", "fields": fields}


@contextmanager
def jira_desk() -> Iterator[JiraDesk]:
    """The desk, answering on loopback while the block runs."""
    desk = JiraDesk()
    with serving(desk.answer) as desk.url:
        yield desk
