"""The tickets that a run would read from the sampled rows, and the curation that their texts need.

Only counts leave this module, never a text. Called by `tasks/start/propose.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from schemas.curation_steps import RedactionType
from schemas.source import FilesSource
from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, detect_languages
from tasks.curate.redaction.ids import ID_COLUMNS, is_personal_id
from tasks.curate.redaction.personal import find_personal
from tasks.curate.scores.stub_replies import is_stub
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.records import Record, in_batches
from tasks.start.file_profile import Profile
from tasks.start.roles import percent

SEARCHED_TEXTS = 300
"""Number of bodies to search for personal data and for their language."""
_PERSONAL: tuple[RedactionType, ...] = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
_TAG = re.compile(r"(?i)<(?:p|br|div|span|table|a|ul|li|b|strong)\b[^<>]{0,200}>")
_MANY = 0.1
"""From this share of the tickets on, a fault counts as the help desk's habit."""
_DOMINANT = 0.9
"""From this share of the texts in one language on, other languages are left out."""

Step: TypeAlias = tuple[dict[str, Any], str]
"""A curation step as in pipelines.yaml, and the counts that support it."""


@dataclass(frozen=True)
class Tickets:
    """The sample as tickets, under a mapping of its columns."""

    n_usable: int
    """Tickets with a body and something to learn; duplicates count once."""
    faults: Mapping[str, int]
    """Error code -> rows that it would quarantine."""
    reply_chars: int
    """95th percentile of the replies' lengths, characters."""
    example_chars: int
    """95th percentile of subject, body and reply together, characters."""
    n_html: int
    """Tickets with HTML tags in body or reply."""
    steps: tuple[Step, ...]


def read_tickets(profile: Profile, source: FilesSource, *, learns: tuple[str, ...]) -> Tickets:
    """Turn the sample into tickets and count them.

    Args:
        profile: Of a file with at least one readable row.
        source: How a run would read the file.
        learns: Ticket columns that a usable ticket needs, in addition to its body.

    Raises:
        DataError: as a run would: TG0204, shapes are mixed.
    """
    maker = TicketMaker(source)
    maker.begin_file(profile.path.name)
    records = map(Record, profile.lines, [None] * profile.n_sampled, profile.rows)
    (batch,) = in_batches(records, max_rows=profile.n_sampled)
    made = maker.make(batch)
    rows = [row for index, row in enumerate(pa.table(made.columns).to_pylist()) if index not in made.faults]
    tickets = [{name: row.get(name) or "" for name in ("subject", "body", "reply", *learns)} for row in rows]
    usable = (ticket for ticket in tickets if all(ticket[name] for name in ("body", *learns)))
    return Tickets(
        n_usable=len({" ".join(ticket["body"].lower().split()) for ticket in usable}),
        faults=dict(Counter(fault.code for fault in made.faults.values()).most_common()),
        reply_chars=_quantile([ticket["reply"] for ticket in tickets if ticket["reply"]], 0.95),
        example_chars=_quantile([ticket["subject"] + ticket["body"] + ticket["reply"] for ticket in tickets], 0.95),
        n_html=sum(bool(_TAG.search(f"{ticket['body']}\n{ticket['reply']}")) for ticket in tickets),
        steps=tuple(_curation(tickets, learns, profile.n_sampled, personal_ids=_personal_ids(rows))),
    )


def _personal_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of ids in which any value is an e-mail address or the like."""
    return [name for name in ID_COLUMNS if any(is_personal_id(row[name]) for row in rows if row.get(name))]


def _curation(
    tickets: Sequence[Mapping[str, str]], learns: tuple[str, ...], n_rows: int, *, personal_ids: list[str]
) -> Iterator[Step]:
    bodies = [ticket["body"] for ticket in tickets if ticket["body"]]
    searched = bodies[:SEARCHED_TEXTS]
    found = (dict.fromkeys(each.type for each in find_personal(body[:20_000], _PERSONAL)) for body in searched)
    kinds = Counter(kind for of_body in found for kind in of_body).most_common()
    personal = ", ".join(f"{kind} in {n:,}" for kind, n in kinds) or "none found"
    note = f"personal data in {len(searched):,} texts searched: {personal}"
    if personal_ids:
        note += f"; {', '.join(personal_ids)} are personal: set TUNEGATE_PSEUDONYM_KEY (`openssl rand -hex 32`)"
    yield {"uses": "redact", **({"pseudonymise": personal_ids} if personal_ids else {})}, note
    if languages := _languages(searched):
        code, n_texts = languages.most_common(1)[0]
        note = (
            f"{percent(n_texts, languages.total())} of {languages.total():,} texts that are long enough to detect are "
        )
        if n_texts >= _DOMINANT * languages.total():
            yield {"uses": "language", "keep": [code]}, f"{note}`{code}`"
        else:
            yield {"uses": "language"}, f"{note}`{code}`, {len(languages)} languages; none is left out"
    for column in learns:
        name = "has_reply" if column == "reply" else "has_label"
        yield {"uses": "rule", "name": name, "keep": f"{column} is not null"}, ""
    n_chars = _quantile(bodies, 0.95)
    bounds = {"min_body": min(10, max(1, _quantile(bodies, 0.05) // 2)), "max_body": _limit(n_chars)}
    replies = [ticket["reply"] for ticket in tickets if ticket["reply"]]
    if "reply" in learns:
        bounds["max_reply"] = _limit(_quantile(replies, 0.95))
    yield {"uses": "length", **bounds}, f"characters; 95 of 100 texts have at most {n_chars:,}"
    if "reply" in learns:
        n_stubs = sum(len(reply) < 80 and is_stub(reply) for reply in replies)
        n_leftovers = sum("{{" in f"{ticket['body']}\n{ticket['reply']}" for ticket in tickets)
        note = f"{percent(n_stubs, n_rows)} of the replies answer nothing, {percent(n_leftovers, n_rows)} hold an "
        if n_leftovers > n_rows * _MANY:
            note += "unfilled {{name}}: too many to drop them"
            yield {"uses": "quality", "drop_stub_replies": True}, note
        else:
            note += "unfilled {{name}}"
            yield {"uses": "quality", "max_template_leftovers": 0, "drop_stub_replies": True}, note
    yield {"uses": "dedup"}, "exact and near duplicates of the customer's text"


def _languages(bodies: Sequence[str]) -> Counter[str]:
    """ISO 639-1 code -> texts in that language; short texts are not counted."""
    lines = [" ".join(body[: 4 * READ_CHARACTERS].split())[:READ_CHARACTERS] for body in bodies]
    lines = [line for line in lines if sum(map(str.isalpha, line)) >= MIN_LETTERS]
    codes, _ = detect_languages(pa.chunked_array([pa.array(lines, pa.string())]))
    return Counter(code for code in codes.to_pylist() if code)


def _quantile(texts: Sequence[str], share: float) -> int:
    """The length that `share` of the texts do not exceed, characters; 0 without texts."""
    return int(np.quantile(list(map(len, texts)), share, method="inverted_cdf")) if texts else 0


def _limit(characters: int) -> int:
    """Twice the 95th percentile, in whole hundreds."""
    return max(200, min(20_000, 100 * math.ceil(2 * characters / 100)))
