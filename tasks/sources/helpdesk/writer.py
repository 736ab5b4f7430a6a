"""Write one concern as a customer would: subject and body, with tone, urgency, side remarks and the order reference.

About one text in seven holds fake personal data.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tasks.sources.helpdesk.company import CATEGORIES, PRODUCTS, REFERENCE
from tasks.sources.helpdesk.grammar import Dice, speak
from tasks.sources.helpdesk.phrases import PHRASES, PhrasedConcern, Product, Tone

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

_CAUSES: Final[Mapping[str, tuple[str, ...]]] = {
    category: tuple(cause for kind in kinds for cause in PHRASES.causes[kind])
    for category, kinds in PHRASES.high.items()
}

REMARK_SHARE: Final = 0.25
"""Fraction of tickets with a side remark about another category (0-1)."""
QUOTED_SHARE: Final = 0.1
"""Fraction of tickets that quote another concern word for word, which a count of words cannot route (0-1)."""

# A name that an order number can follow: "my lamp (NB-48213)", but not "which lamp (NB-48213)".
_TAKES_REFERENCE = re.compile(rf"\b(?:[Mm]y|[Oo]ur|[Tt]he) [A-Za-z ]{{1,20}}{REFERENCE}")


@dataclass(frozen=True)
class Inquiry:
    """Who writes about which product, through which channel."""

    category: str
    product: Product
    reference: str
    first_name: str
    channel: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Concern(Inquiry):
    """What a customer writes about, before it is text."""

    situation: PhrasedConcern
    priority: str
    tone: Tone
    topic: str = ""
    """The open topic of a ticket with two; empty for a ticket with one."""


def draw_concern(inquiry: Inquiry, dice: Dice) -> Concern:
    """The inquiry with a situation, a priority and a tone that fit each other."""
    category, product = inquiry.category, inquiry.product
    fitting = [one for one in PHRASES.situations[category] if not one.products or product.name in one.products]
    situation = dice.lean(fitting)
    priority = dice.weighted(PRIORITY_WEIGHTS[category])
    if situation.urgent:
        priority = "high"
    elif situation.happy and priority == "high":
        priority = "low"
    # Customers who ask about a product or offer an idea are rarely upset.
    calm = priority != "high" and (category == "product-info" or situation.step == "idea")
    tone: Tone = dice.weighted(TONE_WEIGHTS["low" if calm else priority])
    if situation.happy:
        tone = "happy"
    return Concern(**vars(inquiry), situation=situation, priority=priority, tone=tone)


def write_ticket(concern: Concern, dice: Dice, *, past: str = "") -> tuple[str, str]:
    """Subject and body; at least one of them names the reference.

    Args:
        past: For a follow-up, the weekday of the first message.
    """
    facts = {**concern.facts, "me": concern.first_name, "ref": concern.reference, "past": past}
    subject, has_reference = _subject(concern, dice, facts)
    # Each mention may use the full name or the plain word.
    facts["product"] = (concern.product.name if dice.chance(0.55) else concern.product.noun) + REFERENCE
    facts["products"] = f"{concern.product.name}s" if concern.product.noun != "battery" else "batteries"
    core = speak(dice.lean(concern.situation.texts), dice, facts)
    facts["product"] = concern.product.noun

    sentences = [speak(dice.pick(PHRASES.follow_ups), dice, facts)] if past else []
    if not past and dice.chance(0.45 if concern.tone == "neutral" else 0.85):
        sentences.append(speak(dice.lean(PHRASES.openers[concern.tone]), dice, facts))
    if not has_reference or dice.chance(0.1):
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
        kind = dice.pick(PHRASES.personal_kinds[concern.category])
        asides.append(speak(dice.pick(PHRASES.personal_data[kind]), dice, make_up(kind, concern.first_name, dice)))
    for aside in asides:
        # About every third side remark comes before the concern.
        sentences.insert(dice.below(len(sentences)) if dice.chance(0.3) else len(sentences), aside)
    sentences.append(_urgency(concern, dice, facts))
    if dice.chance(0.5):
        sentences.append(speak(dice.pick(PHRASES.closers[concern.tone]), dice, facts))
    return subject, _letter(" ".join(filter(None, sentences)), concern, dice, facts)


def with_topic(concern: Concern, dice: Dice) -> Concern:
    """The concern as the open topic of a ticket with two, such as `the return of the lamp`."""
    tone: Tone = "polite" if concern.tone == "happy" else concern.tone  # no one is happy about an open topic
    topic = f"{dice.pick(PHRASES.topics[concern.category])} the {concern.product.noun}"
    return replace(concern, tone=tone, topic=topic)


def write_two_topics(concern: Concern, dice: Dice) -> tuple[str, str]:
    """Subject and body of a short ticket: a settled topic of another category and product, and the concern's open one.

    The subject names the reference alone, so that it says nothing of the category.
    """
    facts = {**concern.facts, "me": concern.first_name, "ref": concern.reference}
    other = dice.pick([category for category in CATEGORIES if category != concern.category])
    product = dice.pick([product for product in PRODUCTS if product is not concern.product])
    settled = dice.pick(PHRASES.settled).format(topic=f"{dice.pick(PHRASES.topics[other])} the {product.noun}")
    states = [settled, dice.pick(PHRASES.open).format(topic=concern.topic)]
    if dice.chance(0.5):
        states.reverse()
    both = {"one": states[0], "two": states[1], "Two": states[1][:1].upper() + states[1][1:]}
    sentences = [
        speak(dice.lean(PHRASES.openers[concern.tone]), dice, facts),
        speak(dice.pick(PHRASES.two_topics), dice, both),
    ]
    if dice.chance(0.14):
        kind = dice.pick(PHRASES.personal_kinds[concern.category])
        sentences.append(speak(dice.pick(PHRASES.personal_data[kind]), dice, make_up(kind, concern.first_name, dice)))
    urgency = {"low": PHRASES.low, "normal": PHRASES.normal, "high": PHRASES.urgent}[concern.priority]
    sentences.append(speak(dice.lean(urgency), dice, facts))
    return speak(dice.pick(PHRASES.reference_subjects), dice, facts), " ".join(filter(None, sentences))


def _letter(text: str, concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    """The text with a greeting above and a name below; chat and phone notes have neither."""
    if concern.channel in ("chat", "phone"):
        return text
    if dice.chance(0.7):
        text = f"{speak(dice.pick(PHRASES.greetings[concern.tone]), dice, facts)}\n{text}"
    if dice.chance(0.55):
        text = f"{text}\n{speak(dice.pick(PHRASES.sign_offs), dice, facts)}"
    return text


def _subject(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> tuple[str, bool]:
    """The subject, and whether it names the reference."""
    if dice.chance(0.12):
        return speak(dice.pick(PHRASES.reference_subjects), dice, facts), True
    if dice.chance(0.15):
        return speak(dice.pick(PHRASES.vague_subjects), dice, facts), False
    subjects = PHRASES.plain_subjects[concern.category] if dice.chance(0.33) else concern.situation.subjects
    subject = speak(dice.lean(subjects), dice, facts)
    if dice.chance(0.4):
        form = dice.pick(("{subject} ({ref})", "{ref}: {subject}", "{subject} {ref}", "Order {ref}: {subject}"))
        if form == "{subject} {ref}" and subject.endswith("?"):
            form = "{subject} ({ref})"
        return form.format(subject=subject, ref=concern.reference), True
    return subject, False


def _place_reference(core: str, concern: Concern, dice: Dice, facts: Mapping[str, str]) -> tuple[str, str]:
    """The core with the reference after the product, and a separate sentence with it where it is not in the core."""
    if concern.category in ("product-info", "feedback", "account"):
        return core, speak(dice.pick(PHRASES.owner_sentences), dice, facts)
    place = _TAKES_REFERENCE.search(core)
    if place and dice.chance(0.6):
        mention = dice.pick(
            (f" ({concern.reference})", f" from order {concern.reference}", f" (order {concern.reference})")
        )
        return core[: place.end() - 1] + mention + core[place.end() :], ""
    return core, speak(dice.pick(PHRASES.reference_sentences), dice, facts)


def _urgency(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    if concern.priority == "low":
        return speak(dice.lean(PHRASES.low), dice, facts)
    if concern.priority == "normal":
        return speak(dice.lean(PHRASES.normal), dice, facts)
    urgent = dice.pick(PHRASES.urgent)
    if concern.situation.urgent and dice.chance(0.5):
        return urgent
    if concern.category in ("delivery", "technical") and dice.chance(0.25):
        cause = speak(dice.pick(concern.product.needed), dice, facts)
    else:
        cause = speak(dice.lean(_CAUSES[concern.category]), dice, facts)
    return f"{urgent} {cause}" if dice.chance(0.8) else cause


def _remark(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    other = dice.pick([category for category in CATEGORIES if category != concern.category])
    by_state = PHRASES.remarks[other]
    fitting = by_state["any"] + (by_state.get(concern.situation.state, ()) if concern.situation.state != "any" else ())
    return speak(dice.pick(fitting), dice, facts)


def _quote(concern: Concern, dice: Dice, facts: Mapping[str, str]) -> str:
    """A settled concern of another category about another product, in quotation marks."""
    other = dice.pick([category for category in CATEGORIES if category != concern.category])
    product = dice.pick([product for product in PRODUCTS if product is not concern.product])
    fitting = [one for one in PHRASES.situations[other] if not one.products or product.name in one.products]
    said = {**facts, "product": product.noun, "products": product.plural, "noun": product.noun}
    said |= {"part": dice.pick(product.parts), "room": dice.pick(product.rooms), "fault": dice.pick(product.faults)}
    quote = speak(dice.pick(dice.pick(fitting).texts), dice, said)
    return speak(dice.pick(PHRASES.quotes), dice, {**facts, "quote": quote})


_CARDS = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4242424242424242", "3782 822463 10005")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def make_up(kind: str, first_name: str, dice: Dice) -> dict[str, str]:
    """Slots for a sentence of `Phrases.personal_data[kind]`: fake values in the form of real ones.

    Source: addresses at example.* and *.example (RFC 2606, RFC 6761), phone numbers of the ranges reserved for fiction,
    test card numbers, IBANs with valid check digits at banks that do not exist (ISO 13616), addresses of
    documentation networks (RFC 5737, RFC 3849).
    """
    match kind:
        case "email":
            domain = dice.pick(("example.org", "example.com", "example.net", "mail.example"))
            return {"email": f"{first_name.lower()}.{dice.pick('abcdefghklmnprstw')}{dice.below(90) + 10}@{domain}"}
        case "phone":
            last = dice.below(100)
            forms = (f"+1 202 555 01{last:02d}", f"(202) 555-01{last:02d}", f"+44 20 7946 0{100 + last}")
            return {"phone": dice.pick(forms)}
        case "card":
            return {"card": dice.pick(_CARDS)}
        case "iban":
            return {"iban": _iban(dice)}
        case "ip":
            network = dice.pick(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8::"))
            return {"ip": f"{network}{1 + dice.below(250)}"}
        case "url":
            page = dice.pick(("account.northbeam.example/reset?token=", "track.northbeam.example/parcel?key="))
            return {"url": f"https://{page}{_letters(dice, 16)}"}
        case _:
            return {"key": f"nb_live_{_letters(dice, 24)}", "password": f"{first_name}-{1000 + dice.below(9000)}"}


def _letters(dice: Dice, n: int, alphabet: str = _ALPHABET) -> str:
    return "".join(dice.pick(alphabet) for _ in range(n))


def _iban(dice: Dice) -> str:
    forms = (("DE", "00000000", 10), ("GB", "NBTS000000", 8), ("NL", "NBTS", 10))
    accounts = [(country, bank + _letters(dice, n, "0123456789")) for country, bank, n in forms]
    country, account = dice.pick(accounts)
    iban = country + check_digits(country, account) + account
    return " ".join(iban[start : start + 4] for start in range(0, len(iban), 4)) if dice.chance(0.7) else iban


def check_digits(country: str, account: str) -> str:
    """The two digits that make an IBAN's remainder modulo 97 one. Source: ISO 13616, ISO 7064 MOD 97-10.

    >>> check_digits("GB", "WEST12345698765432")
    '82'
    """
    number = "".join(str(int(letter, 36)) for letter in f"{account}{country}00")
    return f"{98 - int(number) % 97:02d}"
