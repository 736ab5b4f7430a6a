"""A Zendesk ticket and its comments as one row: which comment is the question, and which is the reply.

The question is the first public comment of the requester, the reply a public comment of an agent after it (`reply`
selects which). If either is a tombstone, the whole ticket is left out: any other comment was not the question or reply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

AGENTS = ("agent", "admin")
_SCORES = {"good": 1.0, "bad": 0.0}
_ROW = ("created_at", "updated_at", "subject", "priority", "channel", "status", "type", "tags", "fields")
_IDS = ("brand_id", "group_id", "organization_id")


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment as stored in `ingest.duckdb`."""

    key: str
    state: str
    content: Mapping[str, Any]

    @property
    def text(self) -> str:
        return str(self.content.get("body") or "")

    @property
    def order(self) -> tuple[str, int, str]:
        return str(self.content.get("created_at")), len(self.key), self.key


def ticket_row(
    ticket: Mapping[str, Any], comments: Sequence[Comment], *, reply: Literal["last", "first", "longest"]
) -> dict[str, object] | None:
    """The row, with `body` and `reply` if there are such comments; None if one of them is gone upstream."""
    requester = ticket.get("requester_id")
    public = sorted((each for each in comments if each.content.get("public")), key=lambda each: each.order)
    question = next((each for each in public if each.content.get("author_id") == requester), None)
    answers = [
        each for each in public
        if question is not None and each.order > question.order
        and each.content.get("author_id") != requester and each.content.get("role") in AGENTS
    ]  # fmt: skip
    if reply == "longest" and any(each.state != "live" for each in answers):
        return None  # it may have been the longest
    answer = _select_answer(answers, reply)
    if any(each is not None and each.state != "live" for each in (question, answer)):
        return None
    row: dict[str, object] = {name: ticket.get(name) for name in _ROW}
    row |= {name: None if ticket.get(name) is None else str(ticket[name]) for name in _IDS}
    row["ticket_id"] = str(ticket["id"])
    row["customer_id"] = None if requester is None else str(requester)
    row["rating"] = _SCORES.get(str(ticket.get("score")))
    row["body"] = question.text if question else None
    row["reply"] = answer.text if answer else None
    return row


def _select_answer(answers: list[Comment], reply: str) -> Comment | None:
    if not answers:
        return None
    if reply == "longest":
        return max(answers, key=lambda each: len(each.text))
    return answers[0 if reply == "first" else -1]
