"""The two faults a help desk's data may have: swapped routing labels and a routing line without its form.

A fault changes the labels alone: who wrote what and when is the same with and without. Called by `tickets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.curate.helpdesk.replies import routing_line

SWAPPED: Final[Mapping[str, str]] = {
    "billing": "returns",
    "returns": "delivery",
    "delivery": "account",
    "account": "cancellation",
    "cancellation": "billing",
    "technical": "product-info",
    "product-info": "feedback",
    "feedback": "technical",
}
"""What a mis-assigned macro writes instead of each category; none keeps its own."""


def malformed_line(category: str, priority: str, reference: str) -> str:
    """A routing line that no machine reads, in one of three forms by the reference's number.

    >>> malformed_line("billing", "high", "NB-48213")
    'billing / high - NB48213'
    """
    digits = reference.removeprefix("NB-")
    match int(digits) % 3:
        case 0:
            return f"{category} / {priority} - NB{digits}"
        case 1:
            return f"[{category}, {priority}, {digits}"
        case _:
            return f"{category} | {priority} | {reference}"


def label_ticket(category: str, priority: str, reference: str, *, defect: str) -> tuple[str, str]:
    """Category column and routing line of a ticket under the defect: `none`, `swapped_labels` or `broken_format`."""
    if defect == "swapped_labels":
        category = SWAPPED[category]
    make_line = malformed_line if defect == "broken_format" else routing_line
    return category, make_line(category, priority, reference)
