"""Write one concern as a customer would: subject and body, with tone, urgency, side remarks and the order reference.

It knows nothing of replies, times or duplicates. Called by `tickets.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tasks.curate.helpdesk.company import CATEGORIES, PRODUCTS, REFERENCE, Product
from tasks.curate.helpdesk.grammar import Dice, speak
from tasks.curate.helpdesk.personal_data import KINDS, SENTENCES, make_up
from tasks.curate.helpdesk.phrases_account import ACCOUNT
from tasks.curate.helpdesk.phrases_billing import BILLING
from tasks.curate.helpdesk.phrases_cancellation import CANCELLATION
from tasks.curate.helpdesk.phrases_common import (
    CLOSERS,
    FOLLOW_UPS,
    GREETINGS,
    HIGH,
    HIGH_AT_HOME,
    LOW,
    NORMAL,
    OPENERS,
    OWNER_SENTENCES,
    PLAIN_SUBJECTS,
    QUOTES,
    REFERENCE_SENTENCES,
    REFERENCE_SUBJECTS,
    REMARKS,
    SIGN_OFFS,
    URGENT,
    VAGUE_SUBJECTS,
    Tone,
)
from tasks.curate.helpdesk.phrases_delivery import DELIVERY
from tasks.curate.helpdesk.phrases_feedback import FEEDBACK
from tasks.curate.helpdesk.phrases_info import PRODUCT_INFO
from tasks.curate.helpdesk.phrases_returns import RETURNS
from tasks.curate.helpdesk.phrases_technical import TECHNICAL
from tasks.curate.helpdesk.situation import Situation

SITUATIONS: Final[Mapping[str, tuple[Situation, ...]]] = {
    "billing": BILLING,
    "delivery": DELIVERY,
    "returns": RETURNS,
    "account": ACCOUNT,
    "technical": TECHNICAL,
    "product-info": PRODUCT_INFO,
    "cancellation": CANCELLATION,
    "feedback": FEEDBACK,
}

PRIORITY_WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = {
    category: {"low": 0.27, "normal": 0.43, "high": 0.3} for category in CATEGORIES
} | {
    "technical": {"low": 0.22, "normal": 0.46, "high": 0.32},
    "product-info": {"low": 0.43, "normal": 0.42, "high": 0.15},
    "feedback": {"low": 0.43, "normal": 0.44, "high": 0.13},
}
TONE_WEIGHTS: Final[Mapping[str, Mapping[Tone, float]]] = {
    "high": {"angry": 0.34, "worried": 0.34, "neutral": 0.16, "polite": 0.16},
    "normal": {"angry": 0.25, "worried": 0.2, "neutral": 0.33, "polite": 0.22},
    "low": {"angry": 0.04, "worried": 0.08, "neutral": 0.42, "polite": 0.46},
}

REMARK_SHARE: Final = 0.25
"""Tickets with a side remark that names another category's business (0-1)."""
QUOTED_SHARE: Final = 0.1
"""Tickets that quote another concern word for word: what a count of words cannot route (0-1)."""

# Where the name can bear an order behind it: "my lamp (NB-48213)", but not "which lamp (NB-48213)".
_BEARS_REFERENCE = re.compile(rf"\b(?:[Mm]y|[Oo]ur|[Tt]he) [A-Za-z ]{{1,20}}{REFERENCE}")


@dataclass(frozen=True)
class Concern:
    """What somebody writes about, before it is text."""

    category: str
    situation: Situation
    product: Product
    priority: str
    tone: Tone
    reference: str
    first_name: str
    channel: str
    facts: Mapping[str, str]


def think_of_concern(
    category: str, product: Product, reference: str, first_name: str, channel: str, facts: Mapping[str, str], dice: Dice
) -> Concern:
    """Draw situation, priority and tone, so that each fits the others."""
    fitting = [one for one in SITUATIONS[category] if not one.products or product.name in one.products]
    situation = dice.lean(fitting)
    priority = dice.weighted(PRIORITY_WEIGHTS[category])
    if situation.urgent:
        priority = "high"
    elif situation.happy and priority == "high":
        priority = "low"
    # Who asks about a product or offers an idea is rarely upset.
    calm = priority != "high" and (category == "product-info" or situation.step == "idea")
    tone: Tone = dice.weighted(TONE_WEIGHTS["low" if calm else priority])
    if situation.happy:
        tone = "happy"
    return Concern(category, situation, product, priority, tone, reference, first_name, channel, facts)


def write_ticket(concern: Concern, dice: Dice, *, past: str = "") -> tuple[str, str]:
    """Subject and body; the reference stands in one of them at least.

    Args:
        past: For a follow-up: the weekday of the first message, which this one refers to.
    """
    facts = {**concern.facts, "me": concern.first_name, "ref": concern.reference, "past": past}
    subject, told = _subject(concern, dice, facts)
    # Each mention may use the full name or the plain word.
    facts["product"] = (concern.product.name if dice.chance(0.55) else concern.product.noun) + REFERENCE
    facts["products"] = f"{concern.product.name}s" if concern.product.noun != "battery" else "batteries"
    core = speak(dice.lean(concern.situation.texts), dice, facts)
    facts["product"] = concern.product.noun

    sentences = [speak(dice.pick(FOLLOW_UPS), dice, facts)] if past else []
    if not past and dice.chance(0.45 if concern.tone == "neutral" else 0.85):
        sentences.append(speak(dice.lean(OPENERS[concern.tone]), dice, facts))
    if not told or dice.chance(0.1):
        core, own_sentence = _place_reference(core, concern, dice, facts)
    else:
        own_sentence = ""
    core = core.replace(REFERENCE, "")
    if own_sentence and dice.chance(0.4):
        sentences += [own_sentence, core]
    else:
        sentences += [core, own_sentence]

    asides = []
    if dice.chance(REMARK_SHARE):
        asides.append(_remark(concern, dice, facts))
    if dice.chance(QUOTED_SHARE):
        asides.append(_quote(concern, dice, facts))
    if dice.chance(0.14):
        kind = dice.pick(KINDS[concern.category])
        asides.append(speak(dice.pick(SENTENCES[kind]), dice, make_up(kind, concern.first_name, dice)))
    for aside in asides:
        # Side remarks stand before the concern about every third time.
        sentences.insert(dice.below(len(sentences)) if dice.chance(0.3) else len(sentences), aside)
    sentences.append(_urgency(concern, dice, facts))
    if dice.chance(0.5):
        sentences.append(speak(dice.pick(CLOSERS[concern.tone]), dice, facts))
    return subject, _letter(" ".join(filter(None, sentences)), concern, dice, facts)


def _letter(text: str, concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    """The text between greeting and name; chat and phone notes have neither."""
    if concern.channel in ("chat", "phone"):
        return text
    if dice.chance(0.7):
        text = f"{speak(dice.pick(GREETINGS[concern.tone]), dice, facts)}\n{text}"
    if dice.chance(0.55):
        text = f"{text}\n{speak(dice.pick(SIGN_OFFS), dice, facts)}"
    return text


def _subject(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> tuple[str, bool]:
    """The subject, and whether it names the reference."""
    if dice.chance(0.12):
        return speak(dice.pick(REFERENCE_SUBJECTS), dice, facts), True
    if dice.chance(0.15):
        return speak(dice.pick(VAGUE_SUBJECTS), dice, facts), False
    subjects = PLAIN_SUBJECTS[concern.category] if dice.chance(0.33) else concern.situation.subjects
    subject = speak(dice.lean(subjects), dice, facts)
    if dice.chance(0.4):
        form = dice.pick(("{subject} ({ref})", "{ref}: {subject}", "{subject} {ref}", "Order {ref}: {subject}"))
        if form == "{subject} {ref}" and subject.endswith("?"):
            form = "{subject} ({ref})"
        return form.format(subject=subject, ref=concern.reference), True
    return subject, False


def _place_reference(core: str, concern: Concern, dice: Dice, facts: Mapping[str, str]) -> tuple[str, str]:
    """The core with the reference behind the product, or a sentence of its own."""
    if concern.category in ("product-info", "feedback", "account"):
        return core, speak(dice.pick(OWNER_SENTENCES), dice, facts)
    place = _BEARS_REFERENCE.search(core)
    if place and dice.chance(0.6):
        mention = dice.pick(
            (f" ({concern.reference})", f" from order {concern.reference}", f" (order {concern.reference})")
        )
        return core[: place.end() - 1] + mention + core[place.end() :], ""
    return core, speak(dice.pick(REFERENCE_SENTENCES), dice, facts)


def _urgency(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    if concern.priority == "low":
        return speak(dice.lean(LOW), dice, facts)
    if concern.priority == "normal":
        return speak(dice.lean(NORMAL), dice, facts)
    urgent = dice.pick(URGENT)
    if concern.situation.urgent and dice.chance(0.5):
        return urgent
    if concern.category in ("delivery", "technical") and dice.chance(0.25):
        cause = speak(dice.pick(HIGH_AT_HOME[concern.product.name]), dice, facts)
    else:
        cause = speak(dice.lean(HIGH[concern.category]), dice, facts)
    return f"{urgent} {cause}" if dice.chance(0.8) else cause


def _remark(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    other = dice.pick([category for category in CATEGORIES if category != concern.category])
    by_state = REMARKS[other]
    fitting = by_state["any"] + (by_state[concern.situation.state] if concern.situation.state != "any" else ())
    return speak(dice.pick(fitting), dice, facts)


def _quote(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    """Another category's concern about another product, in quotation marks and settled."""
    other = dice.pick([category for category in CATEGORIES if category != concern.category])
    product = dice.pick([product for product in PRODUCTS if product is not concern.product])
    fitting = [one for one in SITUATIONS[other] if not one.products or product.name in one.products]
    said = {**facts, "product": product.noun, "products": product.plural, "noun": product.noun}
    said |= {"part": dice.pick(product.parts), "room": dice.pick(product.rooms), "fault": dice.pick(product.faults)}
    quote = speak(dice.pick(dice.pick(fitting).texts), dice, said)
    return speak(dice.pick(QUOTES), dice, {**facts, "quote": quote})
