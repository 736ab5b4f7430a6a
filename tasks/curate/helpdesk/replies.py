"""House-style replies: acknowledge the feeling, name one next step, the routing line, the signature.

It knows nothing of how tickets are made. Used by `tickets.py`; the routing line's defects are in `defects.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.curate.helpdesk.phrases_common import Tone

ACKNOWLEDGEMENTS: Final[Mapping[Tone, str]] = {
    "angry": "We are sorry and understand your anger.",
    "worried": "We understand your worry and will help.",
    "neutral": "Thank you for your message.",
    "polite": "Thank you for your kind message.",
    "happy": "We are so glad to read this, thank you.",
}

STEPS: Final[Mapping[str, str]] = {
    # billing
    "charges": "check the charges of your Northbeam order",
    "invoice": "correct the invoice of your Northbeam order",
    # delivery
    "trace": "ask the carrier about your Northbeam order",
    "redirect": "send your Northbeam order to the right place",
    # returns
    "label": "mail a return label for your Northbeam order",
    "exchange": "exchange your Northbeam order",
    # account
    "access": "open the sign-in for your Northbeam order",
    "details": "correct the profile of your Northbeam order",
    # technical
    "repair": "test the device of your Northbeam order",
    "safety": "call about the danger of your Northbeam order",
    # product-info
    "facts": "send the facts about your Northbeam order",
    "range": "look up models for your Northbeam order",
    # cancellation
    "stop_order": "stop your Northbeam order",
    "end_plan": "end the plan of your Northbeam order",
    # feedback
    "praise": "thank the people behind your Northbeam order",
    "idea": "note your idea with your Northbeam order",
}
"""Next step by its key in `situation.Situation.step`."""


def routing_line(category: str, priority: str, reference: str) -> str:
    """The line a machine reads.

    >>> routing_line("billing", "high", "NB-48213")
    '[billing | high | NB-48213]'
    """
    return f"[{category} | {priority} | {reference}]"


def write_reply(*, tone: Tone, team: str, step: str, priority: str, contact: str, routing: str, agent: str) -> str:
    """The whole reply: two sentences, the routing line, the signature.

    Args:
        team: Category of the team that takes the ticket.
        contact: A third sentence with a blank before it, or nothing.
    """
    sentence = f"Our {team} care team gives this {priority} priority and will {STEPS[step]}."
    return f"{ACKNOWLEDGEMENTS[tone]} {sentence}{contact}\n{routing}\n{agent}, Northbeam Care"
