"""One ticket, before and after it has its reply and labels. Filled by `tickets.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tasks.curate.helpdesk.company import Customer
from tasks.curate.helpdesk.defects import label_ticket
from tasks.curate.helpdesk.replies import write_reply
from tasks.curate.helpdesk.writer import Concern

Kind = Literal[
    "clean", "exact_copy", "near_copy", "follow_up", "borrowed",
    "no_reply", "untriaged", "short_reply", "short_body", "long_body", "broken",
]  # fmt: skip
"""What a ticket is there for; the package's docstring counts them."""

_SHORT_REPLIES = ("Done.", "See last mail.", "Solved by phone.", "ok")
_UNTRIAGED_REPLIES = (
    "Thank you for your message. A colleague from the care team will read it and come back to you.\n",
    "We are sorry for the wait. Your message is with the care team and not forgotten.\n",
)


@dataclass(frozen=True)
class Ticket:
    """One row of the source, its labels already as the agents wrote them."""

    ticket_id: str
    kind: Kind
    customer_id: str
    thread_id: str
    created_at: datetime
    updated_at: datetime
    product: str
    channel: str
    subject: str
    body: str
    reply: str | None
    category: str | None
    priority: str | None
    reference: str | None


@dataclass(frozen=True)
class Draft:
    """A ticket before it has an id and labels."""

    kind: Kind
    customer: Customer
    thread: int
    created_at: datetime
    answered_after: timedelta
    concern: Concern
    subject: str
    body: str
    contact: str
    agent: str


def finish_ticket(draft: Draft, number: int, *, defect: str) -> Ticket:
    """The number-th ticket with reply and labels, as the defect leaves them.

    Who answers and when is in the draft already, so that the defect decides about labels alone.
    """
    concern = draft.concern
    category, routing = label_ticket(concern.category, concern.priority, concern.reference, defect=defect)
    reply: str | None = write_reply(
        tone=concern.tone,
        team=concern.category,
        step=concern.situation.step,
        priority=concern.priority,
        contact=draft.contact,
        routing=routing,
        agent=draft.agent,
    )
    labelled = draft.kind != "untriaged" and not (draft.kind == "no_reply" and number % 2)
    if draft.kind == "no_reply":
        reply = None
    elif draft.kind == "short_reply":
        reply = _SHORT_REPLIES[number % len(_SHORT_REPLIES)]
    elif draft.kind == "untriaged":
        reply = f"{_UNTRIAGED_REPLIES[number % len(_UNTRIAGED_REPLIES)]}{draft.agent}, Northbeam Care"
    return Ticket(
        ticket_id=f"T-{number:06d}",
        kind=draft.kind,
        customer_id=draft.customer.customer_id,
        thread_id=f"TH-{draft.thread:06d}",
        created_at=draft.created_at,
        updated_at=draft.created_at + draft.answered_after,
        product=concern.product.name,
        channel=concern.channel,
        subject=draft.subject,
        body=draft.body,
        reply=reply,
        category=category if labelled else None,
        priority=concern.priority if labelled else None,
        reference=concern.reference if labelled else None,
    )
