"""The sample as a run would read it: rows that become tickets, faults by code, lengths, languages, personal data.

Uses the readers, the language model and the redaction patterns of a run; hands on counts, never a text. Called by
`tasks/start/propose.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.curation_steps import RedactionType
from schemas.errors import DataError
from schemas.source import FilesSource
from tasks.curate.readers.columns import TicketMaker
from tasks.curate.redaction.personal import find_personal
from tasks.curate.scores.stub_replies import is_stub
from tasks.start.look import Look

SEARCHED_TEXTS = 300
"""Bodies searched for personal data and for their language."""
_PERSONAL: tuple[RedactionType, ...] = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
_TAG = re.compile(r"(?i)<(?:p|br|div|span|table|a|ul|li|b|strong)\b[^<>]{0,200}>")


@dataclass(frozen=True)
class Sampled:
    """What the sample comes to under a mapping."""

    n_read: int
    """Rows of the sample."""
    n_usable: int
    """Of those, tickets with a body and something to learn, each question once."""
    faults: Mapping[str, int]
    """Error code -> rows that would be quarantined for it."""
    body_chars: int
    """95 of 100 bodies are at most so long."""
    reply_chars: int
    example_chars: int
    """95 of 100 of subject, body and reply together."""
    shortest_body: int
    """95 of 100 bodies are at least so long."""
    n_searched: int
    personal: Mapping[str, int]
    """Kind of personal data -> bodies that hold it."""
    languages: Mapping[str, int]
    """ISO 639-1 -> bodies in it, the most common first; short ones have none."""
    n_leftovers: int
    """Tickets with an unfilled `{{name}}` in body or reply."""
    n_stubs: int
    """Replies that answer nothing."""
    n_html: int
    """Tickets whose body or reply holds HTML tags."""


def read_sample(look: Look, source: FilesSource, *, learns: tuple[str, ...]) -> Sampled:
    """Make tickets of the sample and count.

    Args:
        learns: Ticket columns of which a ticket needs all to be of use, beside its body.

    Raises:
        DataError: as a run would: TG0205 shapes are mixed, TG0206, TG0207.
    """
    maker = TicketMaker(source)
    maker.begin_file(look.path.name)
    faults: Counter[str] = Counter()
    tickets: list[dict[str, object]] = []
    for batch in look.batches:
        made = maker.make(batch)
        faults.update(fault.code for fault in made.faults.values())
        names = ("subject", "body", "reply", "messages", *learns)
        columns = {name: made.columns[name].to_pylist() for name in names if name in made.columns}
        tickets += [
            {name: values[index] for name, values in columns.items()}
            for index in range(len(batch.rows))
            if index not in made.faults
        ]
    if not tickets and not faults:
        raise DataError("no row could be read", code="TG0208", where=str(look.path))
    return _summed(tickets, faults, learns)


def _summed(tickets: list[dict[str, object]], faults: Counter[str], learns: tuple[str, ...]) -> Sampled:
    usable = {
        hash(" ".join(str(ticket["body"]).lower().split()))
        for ticket in tickets
        if ticket.get("body") and all(ticket.get(column) for column in learns)
    }
    bodies = [str(ticket["body"]) for ticket in tickets if ticket.get("body")]
    replies = [len(str(ticket["reply"])) for ticket in tickets if ticket.get("reply")]
    together = [sum(len(str(ticket.get(name) or "")) for name in ("subject", "body", "reply")) for ticket in tickets]
    searched = bodies[:SEARCHED_TEXTS]
    return Sampled(
        n_read=len(tickets) + sum(faults.values()),
        n_usable=len(usable),
        faults=dict(faults.most_common()),
        body_chars=quantile([len(body) for body in bodies], 0.95),
        shortest_body=quantile([len(body) for body in bodies], 0.05),
        reply_chars=quantile(replies, 0.95),
        example_chars=quantile(together, 0.95),
        n_searched=len(searched),
        personal=_personal(searched),
        languages=_languages(searched),
        n_leftovers=sum(any("{{" in str(ticket.get(name)) for name in ("body", "reply")) for ticket in tickets),
        n_html=sum(any(_TAG.search(str(ticket.get(name))) for name in ("body", "reply")) for ticket in tickets),
        n_stubs=sum(
            is_stub(str(ticket["reply"])) for ticket in tickets if 0 < len(str(ticket.get("reply") or "")) < 80
        ),
    )


def quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that `share` of the values do not exceed; 0 of none.

    >>> quantile([1, 2, 3, 4, 100], 0.8), quantile([], 0.5)
    (4, 0)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


def _personal(bodies: Sequence[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for body in bodies:
        found.update({each.type for each in find_personal(body[:20_000], _PERSONAL)})
    return dict(found.most_common())


def _languages(bodies: Sequence[str]) -> dict[str, int]:
    import pyarrow as pa

    from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, detect_languages

    lines = [" ".join(body[: 4 * READ_CHARACTERS].split())[:READ_CHARACTERS] for body in bodies]
    lines = [line for line in lines if sum(map(str.isalpha, line)) >= MIN_LETTERS]
    if not lines:
        return {}
    languages, _ = detect_languages(pa.chunked_array([pa.array(lines, pa.string())]))
    return dict(Counter(code for code in languages.to_pylist() if code).most_common())
