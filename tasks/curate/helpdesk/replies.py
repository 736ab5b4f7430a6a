"""House-style replies: acknowledge the feeling, name one next step, the routing line, the signature.

It knows nothing of how tickets are made. Used by `tickets.py`; the routing line's defects are in `defects.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.curate.helpdesk.phrases_common import Tone

ACKNOWLEDGEMENTS: Final[Mapping[Tone, tuple[str, ...]]] = {
    "angry": (
        "We are sorry for the trouble and understand your anger.",
        "We are sorry, this is not the service you deserve.",
        "We understand your frustration and are sorry about it.",
    ),
    "worried": (
        "We understand your worry and will take care of this.",
        "We are sorry that this has worried you.",
        "Thank you for telling us, we understand your concern.",
    ),
    "neutral": (
        "Thank you for your message.",
        "Thank you for writing to us.",
        "Thank you for letting us know.",
    ),
    "polite": (
        "Thank you for your kind message.",
        "We appreciate your friendly words.",
        "Thank you for asking so kindly.",
    ),
    "happy": (
        "Thank you, we are so glad to read this.",
        "We are glad and appreciate your kind words.",
    ),
}

WHEN: Final[Mapping[str, str]] = {"high": "today", "normal": "within two days", "low": "this week"}
"""By priority: when the care team acts."""

STEPS: Final[Mapping[str, str]] = {
    # billing
    "refund_charge": "Our care team will check the charges on your Northbeam order {when} and pay back any "
    "amount taken in error.",
    "invoice": "Our care team will issue the corrected invoice for your Northbeam order {when} and send it by mail.",
    "payment": "Our care team will check the payment of your Northbeam order {when}; please do not pay again "
    "until then.",
    "plan_fees": "Our care team will check the fees of your Northbeam plan {when} and explain every amount by mail.",
    # delivery
    "trace": "Our care team will ask the carrier to trace your Northbeam order {when} and send you the new "
    "delivery date.",
    "redirect": "Our care team will give the carrier the new place or time for your Northbeam order {when} and "
    "confirm it.",
    "missing_box": "Our care team will check the packing list of your Northbeam order {when} and ship what is missing.",
    "dispatch": "Our care team will check the shipping date of your Northbeam order {when} and mail you the "
    "tracking link.",
    # returns
    "label": "Our care team will mail you a free return label for your Northbeam order {when}; please keep the box.",
    "exchange": "Our care team will reserve the right item for your Northbeam order {when} and arrange the exchange.",
    "replace": "Our care team will send a replacement for your Northbeam order {when} and collect the damaged item.",
    "collect": "Our care team will book a free collection for your Northbeam order {when} and mail you the time.",
    "return_status": "Our care team will check {when} that our returns desk has booked in your Northbeam order.",
    "return_rules": "Our care team will check the return period of your Northbeam order {when} and mail you the "
    "last day.",
    # account
    "access": "Our care team will send a fresh sign-in link for the profile of your Northbeam order {when}.",
    "details": "Our care team will update the profile of your Northbeam order {when} and confirm the change by mail.",
    "privacy": "Our care team will secure the profile of your Northbeam order {when} and report which data it holds.",
    "sharing": "Our care team will check who may use the devices of your Northbeam order {when} and open the access.",
    # technical
    "restart": "Please switch the device off for one minute; our care team will read the log for your Northbeam "
    "order {when}.",
    "connection": "Please pair the device again beside the router; our care team will test the link of your "
    "Northbeam order {when}.",
    "update": "Please leave the device switched on; our care team will send new firmware for your Northbeam "
    "order {when}.",
    "safety": "Please switch the device off at the fuse and do not touch it; our care team will call about your "
    "Northbeam order {when}.",
    # product-info
    "fit": "Our care team will check whether it suits your home {when} and add the answer to your Northbeam order.",
    "specs": "Our care team will send you the data sheet with exact figures {when} and add it to your Northbeam order.",
    "range": "Our care team will ask the product desk about models and stock {when} and add it to your Northbeam "
    "order.",
    "warranty": "Our care team will send you the warranty terms {when} and add them to your Northbeam order.",
    # cancellation
    "stop_order": "Our care team will stop your Northbeam order {when} and confirm the cancellation by mail.",
    "end_plan": "Our care team will end the plan of your Northbeam order {when} and confirm its last day by mail.",
    "call_off": "Our care team will call off the visit for your Northbeam order {when} and confirm it free of charge.",
    # feedback
    "praise": "Our care team will pass your words on {when} to the people behind your Northbeam order.",
    "idea": "Our care team will hand your idea to the product desk {when} and note it on your Northbeam order.",
    "complaint": "Our care team will raise your point with the people in charge {when} and note it on your "
    "Northbeam order.",
}
"""Next step by its key in `situation.Situation.step`."""


def routing_line(category: str, priority: str, reference: str) -> str:
    """The line a machine reads.

    >>> routing_line("billing", "high", "NB-48213")
    '[billing | high | NB-48213]'
    """
    return f"[{category} | {priority} | {reference}]"


def write_reply(*, acknowledgement: str, step: str, priority: str, contact: str, routing: str, agent: str) -> str:
    """The whole reply: two sentences, the routing line, the signature.

    Args:
        contact: A third sentence with a blank before it, or nothing.
    """
    return f"{acknowledgement} {STEPS[step].format(when=WHEN[priority])}{contact}\n{routing}\n{agent}, Northbeam Care"
