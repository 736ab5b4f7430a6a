"""The stream of tickets: clean ones in time order, and among them copies, follow-ups and tickets that need curation.

Each has a reply in the house style: acknowledge the feeling, name one next step, the routing line, the signature.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from schemas.source import GeneratedSource
from tasks.sources.helpdesk.company import (
    CATEGORIES,
    CHANNELS,
    PRODUCTS,
    Customer,
    Customers,
    facts_of,
    reference_of,
    weekday_of,
    writing_times,
)
from tasks.sources.helpdesk.defects import edit_slightly, label_ticket
from tasks.sources.helpdesk.grammar import Dice, speak
from tasks.sources.helpdesk.phrases import PHRASES
from tasks.sources.helpdesk.writer import Concern, Inquiry, draw_concern, with_topic, write_ticket, write_two_topics

Kind = Literal[
    "clean", "exact_copy", "near_copy", "follow_up", "borrowed",
    "no_reply", "untriaged", "short_reply", "short_body", "long_body", "broken",
]  # fmt: skip
"""Why a ticket is in the stream; the package's docstring counts them."""
EVERY: Final[dict[Kind, int]] = {
    "exact_copy": 23,
    "near_copy": 24,
    "follow_up": 12,
    "borrowed": 40,
    "no_reply": 30,
    "untriaged": 140,
    "short_reply": 300,
    "short_body": 250,
    "long_body": 400,
    "broken": 90,
}
"""Kind -> one ticket of it for so many clean ones, at a random place among them."""
CONTROL_TOKEN_EVERY: Final = 250


@dataclass(frozen=True)
class Ticket:
    """One row of the source, with the labels that the agents wrote."""

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
    """A third sentence of the reply with a space before it, or nothing."""
    agent: str


class HelpDesk:
    """All tickets between `source.start` and the last second of the last week."""

    def __init__(self, source: GeneratedSource) -> None:
        self._source = source
        self._dice = Dice(source.seed)
        self._customers = Customers(source.n_customers, self._dice)
        self._start = datetime.fromisoformat(source.start).replace(tzinfo=UTC)
        self._end = self._start + timedelta(weeks=source.n_weeks, seconds=-1)
        self._defect_until = self._start + timedelta(weeks=source.defect_weeks)
        self._n_concerns = 0
        self._places: dict[Kind, int] = {}

    def tickets(self) -> Iterator[Ticket]:
        """All tickets by time, with rising ids. Memory: the copies due in the next days."""
        ahead: list[tuple[datetime, int, Draft]] = []
        n_tickets = n_ahead = 0
        source = self._source
        times = writing_times(source.n_tickets, start=source.start, n_weeks=source.n_weeks, dice=self._dice)
        for number, now in enumerate(times):
            while ahead and ahead[0][0] <= now:
                n_tickets += 1
                yield self._finish(heapq.heappop(ahead)[2], n_tickets)
            draft = self._new(number, now)
            n_tickets += 1
            yield self._finish(draft, n_tickets)
            for more in self._more(number, draft):
                n_ahead += 1
                heapq.heappush(ahead, (more.created_at, n_ahead, more))
        while ahead:
            n_tickets += 1
            yield self._finish(heapq.heappop(ahead)[2], n_tickets)

    def _new(self, number: int, now: datetime, kind: Kind = "clean") -> Draft:
        dice = self._dice
        progress = (now - self._start) / (self._end - self._start)
        customer = self._customers.draw_writer(progress, dice)
        product = dice.pick(PRODUCTS)
        reference = self._next_reference()
        inquiry = Inquiry(
            category=dice.pick(CATEGORIES),
            product=product,
            reference=reference,
            first_name=customer.first_name,
            channel=dice.weighted(CHANNELS),
            facts=facts_of(product, now, dice),
        )
        concern = draw_concern(inquiry, dice)
        if self._source.n_topics == 2:
            concern = with_topic(concern, dice)
        subject, body = self._write(concern)
        if kind == "clean" and number % CONTROL_TOKEN_EVERY == CONTROL_TOKEN_EVERY // 2:
            body = f"{body}\n{dice.pick(PHRASES.control_tokens)}"
        thread = self._n_concerns
        draft = Draft(kind, customer, thread, now, timedelta(), concern, subject, body, contact="", agent="")
        return self._answered(draft)

    def _write(self, concern: Concern, *, past: str = "") -> tuple[str, str]:
        if concern.topic:
            return write_two_topics(concern, self._dice)
        return write_ticket(concern, self._dice, past=past)

    def _next_reference(self) -> str:
        self._n_concerns += 1
        return reference_of(self._n_concerns, self._source.seed)

    def _answered(self, draft: Draft) -> Draft:
        """The draft with an agent and the time of the answer."""
        dice = self._dice
        hours = {"high": 5.0, "normal": 26.0, "low": 60.0}[draft.concern.priority]
        contact = dice.pick(PHRASES.contacts) if dice.chance(0.03) else ""
        if contact.endswith("="):
            contact += f"{dice.below(16**8):08x}{dice.below(16**8):08x}."
        return replace(
            draft,
            answered_after=timedelta(seconds=1200 + int(3600 * hours * dice.fraction())),
            contact=contact,
            agent=PHRASES.agents[draft.concern.category],
        )

    def _more(self, number: int, draft: Draft) -> Iterator[Draft]:
        """Further tickets around a clean one."""
        dice = self._dice
        for kind, every in EVERY.items():
            if number % every == 0:
                self._places[kind] = dice.below(every)
            if number % every != self._places[kind]:
                continue
            match kind:
                case "exact_copy":
                    # Sent twice, or copied word for word by another customer.
                    mine = dice.chance(0.7)
                    later = self._later(draft, kind, hours=1 if mine else 30)
                    yield later if mine else self._by_another(later)
                case "near_copy":
                    subject, body = edit_slightly(draft.subject, draft.body, dice)
                    yield replace(self._later(draft, kind, hours=20), subject=subject, body=body)
                case "follow_up":
                    past = weekday_of(draft.created_at)
                    later = replace(self._later(draft, kind, hours=72), thread=draft.thread)
                    subject, body = self._write(draft.concern, past=past)
                    yield replace(later, subject=f"Re: {subject}", body=body)
                case "borrowed":
                    yield self._borrow(draft)
                case _:
                    other = self._new(number, draft.created_at, kind)
                    yield self._marked(replace(other, created_at=self._after(draft.created_at, hours=1)))

    def _later(self, draft: Draft, kind: Kind, *, hours: float) -> Draft:
        """The same concern as a later ticket and thread, with its own answer."""
        self._n_concerns += 1
        again = replace(
            draft, kind=kind, created_at=self._after(draft.created_at, hours=hours), thread=self._n_concerns
        )
        return self._answered(again)

    def _borrow(self, draft: Draft) -> Draft:
        """Another customer, days later, with the same words about their own order."""
        dice = self._dice
        later = self._by_another(self._later(draft, "borrowed", hours=300))
        reference = self._next_reference()
        name = later.customer.first_name
        concern = replace(draft.concern, reference=reference, first_name=name)
        subject = draft.subject.replace(draft.concern.reference, reference)
        body = draft.body.replace(draft.concern.reference, reference)
        if body.endswith(draft.concern.first_name):
            body = body.removesuffix(draft.concern.first_name) + name
        body += f"\n{speak(dice.pick(PHRASES.borrowed), dice, {})}"
        return replace(later, concern=concern, subject=subject, body=body)

    def _by_another(self, draft: Draft) -> Draft:
        progress = (draft.created_at - self._start) / (self._end - self._start)
        return replace(draft, customer=self._customers.draw_writer(progress, self._dice))

    def _after(self, moment: datetime, *, hours: float) -> datetime:
        wait = timedelta(seconds=30 + int(3600 * hours * self._dice.fraction()))
        return min(moment + wait, self._end)

    def _marked(self, draft: Draft) -> Draft:
        """The draft with the body of its kind, if that is a short or long one."""
        dice = self._dice
        if draft.kind == "short_body":
            return replace(draft, body=dice.pick(PHRASES.short_bodies))
        if draft.kind == "long_body":
            others = [self._new(0, draft.created_at, "long_body") for _ in range(9)]
            quoted = "\n".join(f"> {line}" for other in others for line in other.body.split("\n"))
            return replace(draft, body=f"{draft.body}\n\nEarlier messages:\n{quoted}"[:3500])
        return draft

    def _finish(self, draft: Draft, number: int) -> Ticket:
        defect = self._source.defect if draft.created_at < self._defect_until else "none"
        return finish_ticket(draft, number, defect=defect)


def finish_ticket(draft: Draft, number: int, *, defect: str) -> Ticket:
    """The ticket of this number with reply and labels under the defect.

    The draft has the agent and the time of the answer already, so the defect affects labels alone.
    """
    concern = draft.concern
    category, routing = label_ticket(concern.category, concern.priority, concern.reference, defect=defect)
    reply: str | None = compose_reply(draft, routing=routing)
    labelled = draft.kind != "untriaged" and not (draft.kind == "no_reply" and number % 2)
    if draft.kind == "no_reply":
        reply = None
    elif draft.kind == "short_reply":
        reply = PHRASES.short_replies[number % len(PHRASES.short_replies)]
    elif draft.kind == "untriaged":
        reply = f"{PHRASES.untriaged_replies[number % len(PHRASES.untriaged_replies)]}{draft.agent}, Northbeam Care"
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


def compose_reply(draft: Draft, *, routing: str) -> str:
    """The whole reply: two or three sentences, the routing line, the signature."""
    concern = draft.concern
    if concern.topic:
        sentence = f"We will look into {concern.topic.replace('my ', 'your ', 1)}."
    else:
        promise = PHRASES.steps[concern.situation.step]
        sentence = f"Our {concern.category} care team gives this {concern.priority} priority and will {promise}."
    text = f"{PHRASES.acknowledgements[concern.tone]} {sentence}{draft.contact}"
    return f"{text}\n{routing}\n{draft.agent}, Northbeam Care"
