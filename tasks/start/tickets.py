"""The tickets that a run would read from the sampled rows, and the curation that their texts need.

Only counts leave this module, never a text.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation import TableSpec
from schemas.curation_card import ReplyVariety
from schemas.curation_steps import PATTERN_TYPES
from schemas.file_reading import RowReading
from tasks.assess.learnable import Probe, probe_labels
from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, detect_languages
from tasks.curate.redaction.name_rules import find_names_by_rules
from tasks.curate.redaction.personal import ID_COLUMNS, find_personal, is_personal_id
from tasks.curate.rows import ticket_table
from tasks.curate.validate import invalid_rows
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.paths import MISSING, Path, parse_path, walk
from tasks.sources.readers.records import Record, in_batches
from tasks.sources.readers.values import to_text
from tasks.start.file_profile import Profile
from tasks.start.guards import GUARDED, ReplyRange, reply_range
from tasks.start.roles import percent
from tasks.start.tried_steps import Declared, TriedStep, try_steps

LANGUAGE_TEXTS = 300
"""Number of bodies to detect the language of."""
SEARCHED_CHARACTERS = 3_000_000
"""Characters to search for personal data, which takes some seconds."""
_MIN_DETECTED = 20
"""Texts of known language below which nothing is said about the file's languages."""
_OWN = 1 / 3
"""From this share of the replies on, an address or a link in them is the company's own; customers' do not recur."""
_ADDRESSES = ("email", "phone", "url")
_FEW_NAMES = 0.01
"""Up to this share of the tickets with a name, rules may have mistaken something else for it."""
_HTML = re.compile(
    r"(?i)<(?:p|br|div|span|table|a|ul|li|b|strong)\b[^<>]{0,200}>"
    r"|&(?:nbsp|amp|lt|gt|quot|apos|#\d{1,6}|#x[0-9a-f]{1,5});"
)
"""A tag or an entity."""
_DOMINANT = 0.9
"""From this share of the texts in one language on, other languages are left out."""

_NUMBER = re.compile(r"(?<=[Mm]essage )\d+")
"""What differs between rows in the reasons of a fault."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tickets:
    """The sample as tickets, under a mapping of its columns."""

    n_usable: int
    """What the proposed steps leave of the sample, with all that is needed."""
    faults: Mapping[str, int]
    """Error code -> rows that it would quarantine."""
    reasons: Mapping[str, int]
    """Why, in words without ticket text -> such rows, the commonest first."""
    reply_chars: int
    """95th percentile of the replies' lengths, characters."""
    example_chars: int
    """95th percentile of subject, body and reply together, characters."""
    mean_chars: float
    """Mean of subject, body and reply together, or of the whole conversation, characters."""
    replies: ReplyVariety
    n_echoes: int
    """Replies that are the customer's text itself."""
    reply_lengths: tuple[int, ...]
    """Characters of each reply."""
    labels: Mapping[str, int]
    """Value of the learned label -> usable tickets; no value leaves this module's callers."""
    n_named: int
    """Usable tickets with the words of their label in the body."""
    n_html: int
    """Tickets with HTML tags or entities in body or reply."""
    steps: tuple[TriedStep, ...]
    probes: Mapping[str, Probe]
    """Column of the file that could be the label -> how well the texts that the steps leave predict it."""
    n_labelled: int
    """Tickets with a label, with and without a reply."""
    n_labelled_replies: int
    """Those with a reply."""
    replies_apart: ReplyRange | None = None
    """How far apart right and wrong replies are; None without labelled replies."""
    slice_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Column to guard -> usable tickets of each of its values."""


def read_tickets(
    profile: Profile,
    source: RowReading,
    *,
    learns: tuple[str, ...],
    needed: tuple[str, ...],
    table: TableSpec,
    labels: Sequence[str] = (),
) -> Tickets:
    """Turn the sample into tickets and count them.

    Args:
        profile: Of a file with at least one readable row.
        learns: Ticket columns that are learned.
        needed: Ticket columns that a usable ticket needs.
        table: What a valid ticket is.
        labels: Columns of the file that could be the label, to be probed.

    Raises:
        DataError: as a run would: TG0204, shapes are mixed.
    """
    maker = TicketMaker(source)
    maker.begin_file(profile.path.name)
    records = map(Record, profile.lines, [None] * profile.n_sampled, profile.rows)
    (batch,) = in_batches(records, max_rows=profile.n_sampled)
    made = maker.make(batch)
    # A run makes ticket_ids while it reads, if the file has none.
    read = [
        {**row, "ticket_id": row.get("ticket_id") or f"row {line}", "source": profile.path.name, "source_line": line}
        for index, (line, row) in enumerate(zip(profile.lines, pa.table(made.columns).to_pylist(), strict=True))
        if index not in made.faults
    ]
    whole = ticket_table(read)
    invalid = {index: (fault.code, fault.reason) for index, fault in invalid_rows(whole, table).items()}
    rows = [row for index, row in enumerate(read) if index not in invalid]
    faults = [*((fault.code, fault.reason) for fault in made.faults.values()), *invalid.values()]
    names = ("subject", "body", "reply", "messages", *learns)
    tickets = [{name: row.get(name) or "" for name in names} for row in rows]
    personal_ids = [name for name in ID_COLUMNS if any(is_personal_id(row[name]) for row in rows if row.get(name))]
    tried = try_steps(whole, table, list(_curation(tickets, learns, personal_ids=personal_ids)))
    kept = tried.tickets.select(list(needed)).to_pylist()
    usable = [ticket for ticket in kept if all(ticket[name] is not None for name in needed)]
    label = next((name for name in learns if name != "reply"), None)
    replies = [ticket["reply"] for ticket in tickets if ticket["reply"]]
    lengths = [
        max(len(ticket["messages"]), len(ticket["subject"]) + len(ticket["body"]) + len(ticket["reply"]))
        for ticket in tickets
    ]
    return Tickets(
        n_usable=len(usable),
        faults=dict(Counter(code for code, _ in faults).most_common()),
        reasons=dict(Counter(_NUMBER.sub("N", reason) for _, reason in faults).most_common()),
        reply_chars=_quantile(replies, 0.95),
        example_chars=_quantile([ticket["subject"] + ticket["body"] + ticket["reply"] for ticket in tickets], 0.95),
        mean_chars=sum(lengths) / max(1, len(lengths)),
        replies=ReplyVariety(n=len(replies), n_distinct=len(set(replies))),
        n_echoes=sum(ticket["reply"] == ticket["body"] for ticket in tickets if ticket["reply"]),
        reply_lengths=tuple(map(len, replies)),
        labels=Counter(ticket[label] for ticket in usable) if label else {},
        n_named=sum(_is_named(ticket[label], ticket["body"]) for ticket in usable) if label else 0,
        n_html=sum(bool(_HTML.search(f"{ticket['body']}\n{ticket['reply']}")) for ticket in tickets),
        steps=tried.steps,
        probes=_probes(profile, tried.tickets, labels),
        n_labelled=sum(bool(ticket[label]) for ticket in tickets) if label else 0,
        n_labelled_replies=sum(bool(ticket[label] and ticket["reply"]) for ticket in tickets) if label else 0,
        replies_apart=reply_range([(ticket[label], ticket["reply"]) for ticket in usable])
        if label and "reply" in learns
        else None,
        slice_sizes=_slice_sizes(tried.tickets, needed),
    )


def _slice_sizes(tickets: pa.Table, needed: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    for name in needed:
        tickets = tickets.filter(pc.is_valid(tickets[name]))
    counts = {name: pc.value_counts(tickets[name].drop_null()).field("counts") for name in GUARDED}
    return {name: tuple(each.to_pylist()) for name, each in counts.items() if len(each)}


def _probes(profile: Profile, tickets: pa.Table, labels: Sequence[str]) -> dict[str, Probe]:
    row_at = dict(zip(profile.lines, profile.rows, strict=True))
    rows = [row_at[line] for line in tickets["source_line"].to_pylist()]
    paths: dict[str, Path] = {name: (name,) if name in profile.top else parse_path(name) or (name,) for name in labels}
    found = {name: [to_text("category", _at(row, path)) for row in rows] for name, path in paths.items()}
    texts = {name: [value if isinstance(value, str) else None for value in values] for name, values in found.items()}
    return probe_labels(tickets, texts)


def _at(row: Mapping[str, object], path: Path) -> object:
    value = walk(row, path)
    return None if value is MISSING else value


def _curation(
    tickets: Sequence[Mapping[str, str]], learns: tuple[str, ...], *, personal_ids: list[str]
) -> Iterator[tuple[Declared, ...]]:
    """The steps to try, each in the forms that may be proposed, the strictest first."""
    bodies = [ticket["body"] for ticket in tickets if ticket["body"]]
    found = _search(tickets)
    personal = ", ".join(f"{kind} in {n:,}" for kind, n in found.kinds.most_common()) or "none found"
    note = f"personal data in {found.n_tickets:,} tickets searched: {personal}"
    if found.own:
        note += "; CHECK: `keep` has what recurs in a third of the replies; the addresses of people are not for it"
    if personal_ids:
        note += f"; {', '.join(personal_ids)} are personal: set TUNEGATE_PSEUDONYM_KEY (`openssl rand -hex 32`)"
    has_names = found.n_names > _FEW_NAMES * found.n_tickets
    if has_names:
        note += f"; CHECK: names of people in {found.n_names:,}, by greetings and signatures: `names` replaces those; "
        note += "`mode: all` also reads the sentences (extra `names`)"
    else:
        note += "; names of people stay: only `names` replaces them, and no greeting or signature showed one"
    redact = {
        "uses": "redact",
        **({"types": [*PATTERN_TYPES, "name"], "names": {"mode": "rules"}} if has_names else {}),
        **({"keep": found.own} if found.own else {}),
        **({"pseudonymise": personal_ids} if personal_ids else {}),
    }
    yield (Declared(redact, note),)
    sample = _spread(bodies)[:LANGUAGE_TEXTS]
    if languages := _languages(sample):
        code, n_texts = languages.most_common(1)[0]
        note = f"{percent(n_texts, languages.total())} of {languages.total():,} texts that are long enough to detect"
        note += f" (of {len(sample):,}) are `{code}`"
        every = {"uses": "language"}
        if languages.total() < max(_MIN_DETECTED, len(sample) / 2):
            yield (Declared(every, f"{note}: too few to leave any language out"),)
        elif n_texts >= _DOMINANT * languages.total():
            yield Declared({**every, "keep": [code]}, note), Declared(every, f"{note}; none is left out")
        else:
            yield (Declared(every, f"{note}, {len(languages)} languages; none is left out"),)
    for column in learns:
        name = "has_reply" if column == "reply" else "has_label"
        yield (Declared({"uses": "rule", "name": name, "keep": f"{column} is not null"}, ""),)
    n_chars = _quantile(bodies, 0.95)
    bounds = {"min_body": min(10, max(1, _quantile(bodies, 0.05) // 2)), "max_body": _limit(n_chars)}
    replies = [ticket["reply"] for ticket in tickets if ticket["reply"]]
    if "reply" in learns:
        bounds["max_reply"] = _limit(_quantile(replies, 0.95))
    yield (Declared({"uses": "length", **bounds}, f"characters; 95 of 100 texts have at most {n_chars:,}"),)
    if "reply" in learns:
        stubs = {"uses": "quality", "drop_stub_replies": True}
        note = "drops replies that answer nothing"
        yield (
            Declared({**stubs, "max_template_leftovers": 0}, f"{note}, and texts with an unfilled {{{{name}}}}"),
            Declared(stubs, note),
        )
    yield (Declared({"uses": "dedup"}, "exact and near duplicates of the customer's text"),)


def _is_named(label: str, text: str) -> bool:
    return len(label) > 2 and label.casefold() in text.casefold()


@dataclass(frozen=True)
class _Personal:
    """What a search found."""

    n_tickets: int
    kinds: Counter[str]
    """Type -> tickets with a value of it."""
    own: list[str]
    """Addresses, numbers and links that recur in the replies."""
    n_names: int
    """Tickets in which rules find the name of a person."""


def _search(tickets: Sequence[Mapping[str, str]]) -> _Personal:
    """Search subjects, bodies and replies for personal data, of tickets all over the file."""
    kinds, in_replies = Counter[str](), Counter[tuple[str, str]]()
    n_tickets = n_replies = n_characters = n_names = 0
    for ticket in _spread(tickets):
        if n_characters > SEARCHED_CHARACTERS:
            break
        n_tickets += 1
        n_replies += bool(ticket["reply"])
        of_ticket: set[str] = set()
        has_name = False
        for name in ("subject", "body", "reply", "messages"):
            text = ticket[name][:20_000]
            n_characters += len(text)
            values = {(each.type, each.key) for each in find_personal(text, PATTERN_TYPES)} if text else set()
            of_ticket |= {kind for kind, _ in values}
            has_name = has_name or next(find_names_by_rules(text), None) is not None
            in_replies.update(value for value in values if name == "reply" and value[0] in _ADDRESSES)
        kinds.update(of_ticket)
        n_names += has_name
    least = max(10, _OWN * n_replies)
    own = sorted(key for (_, key), n in in_replies.items() if n >= least)
    return _Personal(n_tickets, kinds, own, n_names)


def _spread(items: Sequence[T]) -> list[T]:
    """The items in an order in which the first ones come from all over the file."""
    return [item for _, item in sorted(enumerate(items), key=lambda pair: crc32(b"%d" % pair[0]))]


def _languages(bodies: Sequence[str]) -> Counter[str]:
    """ISO 639-1 code -> texts in that language; short texts are not counted."""
    lines = [" ".join(body[: 4 * READ_CHARACTERS].split())[:READ_CHARACTERS] for body in bodies]
    lines = [line for line in lines if len("".join(filter(str.isalpha, line)).encode()) >= MIN_LETTERS]
    codes, _ = detect_languages(pa.chunked_array([pa.array(lines, pa.string())]))
    return Counter(code for code in codes.to_pylist() if code)


def _quantile(texts: Sequence[str], share: float) -> int:
    """The length that `share` of the texts do not exceed, characters; 0 without texts."""
    return int(np.quantile(list(map(len, texts)), share, method="inverted_cdf")) if texts else 0


def _limit(characters: int) -> int:
    """Twice the 95th percentile, in whole hundreds."""
    return max(200, min(20_000, 100 * math.ceil(2 * characters / 100)))
