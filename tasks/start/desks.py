"""Exports of help desks whose rows are nested: which keys tell them apart, and where their ticket columns lie.

Paths choose no item by what it says, so `first_answer` is the item after the customer's own, and `by_agent` says how
to count how often an agent wrote it. Called by `tasks/start/roles.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.columns import TicketColumn


@dataclass(frozen=True)
class Desk:
    """One program's form of a ticket."""

    name: str
    keys: tuple[str, ...]
    """Keys at the top of each row, all of which must be there."""
    columns: Mapping[TicketColumn, tuple[str, ...]]
    """Ticket column -> paths that may hold it, the best first."""
    first_answer: str
    by_agent: tuple[str, object] | None = None
    """Path inside `first_answer` and the value it has when an agent wrote it; null where the export does not say."""


DESKS: Final[tuple[Desk, ...]] = (
    Desk(
        name="Freshdesk (tickets with their conversations)",
        keys=("conversations", "requester_id"),
        columns={
            "ticket_id": ("id",), "customer_id": ("requester_id", "requester.id"), "created_at": ("created_at",),
            "updated_at": ("updated_at",), "subject": ("subject",), "body": ("description_text", "description"),
            "reply": ("conversations[0].body_text", "conversations[0].body"), "category": ("type",),
            "priority": ("priority",), "channel": ("source",),
        },
        first_answer="conversations[0]",
        by_agent=("incoming", False),
    ),
    Desk(
        name="Freshdesk (the older form, below helpdesk_ticket)",
        keys=("helpdesk_ticket",),
        columns={
            "ticket_id": ("helpdesk_ticket.display_id", "helpdesk_ticket.id"),
            "customer_id": ("helpdesk_ticket.requester_id",), "created_at": ("helpdesk_ticket.created_at",),
            "updated_at": ("helpdesk_ticket.updated_at",), "subject": ("helpdesk_ticket.subject",),
            "body": ("helpdesk_ticket.description",), "reply": ("helpdesk_ticket.notes[0].note.body",),
            "category": ("helpdesk_ticket.ticket_type",), "priority": ("helpdesk_ticket.priority",),
        },
        first_answer="helpdesk_ticket.notes[0]",
        by_agent=("note.incoming", False),
    ),
    Desk(
        name="Zendesk (tickets with their comments)",
        keys=("comments", "requester_id"),
        columns={
            "ticket_id": ("id",), "customer_id": ("requester_id",), "created_at": ("created_at",),
            "updated_at": ("updated_at",), "subject": ("subject",),
            "body": ("description", "comments[0].plain_body", "comments[0].body"),
            "reply": ("comments[1].plain_body", "comments[1].body"), "category": ("type",), "priority": ("priority",),
            "channel": ("via.channel",), "product": ("brand_id",),
        },
        first_answer="comments[1]",
        by_agent=("public", True),
    ),
    Desk(
        name="Intercom (conversations with their parts)",
        keys=("conversation_parts", "source"),
        columns={
            "ticket_id": ("id",), "customer_id": ("source.author.id",), "created_at": ("created_at",),
            "updated_at": ("updated_at",), "subject": ("source.subject",), "body": ("source.body",),
            "reply": ("conversation_parts.conversation_parts[0].body", "conversation_parts[0].body"),
            "priority": ("priority",), "channel": ("source.type",),
        },
        first_answer="conversation_parts.conversation_parts[0]",
        by_agent=("author.type", "admin"),
    ),
)  # fmt: skip


def desk_of(names: Collection[str]) -> Desk | None:
    """The help desk whose keys the rows have; null for none.

    >>> desk_of(["id", "requester_id", "comments", "tags"]).name
    'Zendesk (tickets with their comments)'
    """
    return next((desk for desk in DESKS if all(key in names for key in desk.keys)), None)
