"""What a file of tickets holds: counts and kinds of values per column, and what a run would make of its rows.

Everything is read by a run's own readers, so that what is said to parse does parse. Only counts leave this module,
never a text. It knows nothing of what a column is for (`tasks/start/roles.py` does).
"""

from __future__ import annotations

import glob
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from zlib import crc32

from schemas.curation_steps import RedactionType
from schemas.errors import ConfigError, DataError
from schemas.source import FilesSource
from tasks.curate.extract import reader_of
from tasks.curate.readers.columns import TicketMaker
from tasks.curate.readers.records import Batch, Fault, Record, in_batches
from tasks.curate.readers.source_files import file_format, find_files
from tasks.curate.readers.values import to_rating, to_time
from tasks.curate.redaction.personal import find_personal
from tasks.curate.scores.stub_replies import is_stub

SAMPLE_ROWS = 2000
"""Between this and twice as many rows of a large file are looked at, spread evenly over it; all rows are counted."""
SEARCHED_TEXTS = 300
"""Bodies searched for personal data and for their language."""
_DEPTH = 4
_ITEMS = (0, 1)
"""Items of a list that are looked into: what a customer wrote first, and the first answer."""
_MAX_PATHS = 400
_YEARS = (1990, 2100)
"""A number outside these years is an id, not a time since 1970."""
_PERSONAL: tuple[RedactionType, ...] = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
_TAG = re.compile(r"(?i)<(?:p|br|div|span|table|a|ul|li|b|strong)\b[^<>]{0,200}>")


@dataclass
class ColumnFacts:
    """One column, or one path into nested rows."""

    name: str
    n_filled: int = 0
    n_times: int = 0
    """Values that are a time as the readers take it."""
    n_numbers: int = 0
    n_texts: int = 0
    n_emails: int = 0
    n_phones: int = 0
    lengths: list[int] = field(default_factory=list)
    """Characters of each text."""
    counts: Counter[int] = field(default_factory=Counter)
    """Hash of a value -> how often it occurs."""

    @property
    def n_distinct(self) -> int:
        return len(self.counts)

    @property
    def median_chars(self) -> int:
        return int(median(self.lengths)) if self.lengths else 0

    @property
    def personal_share(self) -> float:
        """Share of the values that hold an e-mail address or a phone number, 0-1."""
        return self.share(max(self.n_emails, self.n_phones))

    def share(self, n: int) -> float:
        """Of the filled values, 0-1."""
        return n / self.n_filled if self.n_filled else 0.0

    def add(self, value: object) -> None:
        """Count one value; blank ones count as absent."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        self.n_filled += 1
        self.counts[hash(value)] += 1
        self.n_times += _is_time(value)
        self.n_numbers += isinstance(to_rating("rating", value), float)
        if isinstance(value, str):
            self.n_texts += 1
            self.lengths.append(len(value))
            if len(value) <= 200:
                found = {each.type for each in find_personal(value, ("email", "phone"))}
                self.n_emails += "email" in found
                self.n_phones += "phone" in found


@dataclass(frozen=True)
class Look:
    """A file, looked at."""

    path: Path
    n_rows: int
    """Rows in the file, unreadable ones included."""
    unreadable: Mapping[str, int]
    """Error code -> rows of the file that no reader can make sense of."""
    lines: tuple[int, ...]
    """Where each row of the sample begins in the file."""
    rows: tuple[Mapping[str, object], ...]
    """The sample, as read."""
    columns: Mapping[str, ColumnFacts]
    """Columns of the rows in their order, and paths into those that are nested."""
    top: tuple[str, ...]
    """Names that rows have at their top."""

    @property
    def n_looked(self) -> int:
        return len(self.rows)


def look_at(path: Path) -> Look:
    """Read the file: all rows are counted, some are looked at.

    Raises:
        ConfigError: TG0130, its suffix names no format; one of another trainer's settings is refused as such.
        DataError: TG0201 to TG0204, the file is absent, damaged or has no usable header; TG0221, it holds no row.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(
            f"{path.name} holds settings, not tickets; settings of other trainers are not read",
            code="TG0130",
            where=str(path),
            hint="give the file of tickets that it names (axolotl: `datasets`, LLaMA-Factory: dataset_info.json): "
            "tunegate init --from DATA.jsonl",
        )
    source = FilesSource(kind="files", paths=(glob.escape(str(path.absolute())),))
    (file,) = find_files(source, root=path.absolute().parent)
    sample, unreadable, n_rows = _Sample(), Counter[str](), 0
    for batch in reader_of(file_format(file, "auto"))(file.path):
        n_rows += len(batch)
        unreadable.update(each.content.code for each in batch.faulty if isinstance(each.content, Fault))
        sample.add(batch)
    if not n_rows:
        raise DataError("the file holds no row", code="TG0221", where=str(path), hint="a header alone tells too little")
    rows = tuple(row for _, _, row in sample.kept)
    return Look(
        path=path,
        n_rows=n_rows,
        unreadable=dict(unreadable.most_common()),
        lines=tuple(line for _, line, _ in sample.kept),
        rows=rows,
        columns=_facts(rows),
        top=tuple(dict.fromkeys(name for row in rows for name in row)),
    )


class _Sample:
    """Every row, then about every second, every fourth and so on: never more than twice `SAMPLE_ROWS`.

    Chosen by a hash of the row's number, so that nothing that repeats in a file can hide between the steps.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[int, int, Mapping[str, object]]] = []
        """Hash, line and row of each."""
        self._mask = 0
        self._n_seen = 0

    def add(self, batch: Batch) -> None:
        for index in range(len(batch.rows)):
            mark = crc32(b"%d" % self._n_seen)
            self._n_seen += 1
            if mark & self._mask:
                continue
            self.kept.append((mark, int(batch.lines[index]), batch.rows.pick(index, batch.rows.names(index))))
            if len(self.kept) >= 2 * SAMPLE_ROWS:
                self._mask = 2 * self._mask + 1
                self.kept = [each for each in self.kept if not each[0] & self._mask]


def _facts(rows: Iterable[Mapping[str, object]]) -> dict[str, ColumnFacts]:
    found: dict[str, ColumnFacts] = {}
    for row in rows:
        for name, value in row.items():
            for path, leaf in _leaves(name, value, _DEPTH):
                if path in found or len(found) < _MAX_PATHS:
                    found.setdefault(path, ColumnFacts(path)).add(leaf)
    return found


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Values that are neither object nor list, each under its path; what lies deeper than `depth` is left out."""
    if isinstance(value, dict):
        for key, inner in value.items() if depth else ():
            if isinstance(key, str) and re.fullmatch(r"[^.\[\]]+", key):
                yield from _leaves(f"{path}.{key}", inner, depth - 1)
    elif isinstance(value, list):
        for place in _ITEMS if depth else ():
            if place < len(value):
                yield from _leaves(f"{path}[{place}]", value[place], depth - 1)
    else:
        yield path, value


def _is_time(value: object) -> bool:
    if isinstance(value, str) and len(value) > 40:
        return False
    time = to_time("created_at", value)
    return isinstance(time, datetime) and _YEARS[0] <= time.year < _YEARS[1]


@dataclass(frozen=True)
class Tickets:
    """What the sample comes to as tickets, under a mapping of its columns."""

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
    """Kind of personal data -> searched bodies that hold it."""
    languages: Mapping[str, int]
    """ISO 639-1 -> searched bodies in it, the most common first; short ones have none."""
    n_leftovers: int
    """Tickets with an unfilled `{{name}}` in body or reply."""
    n_stubs: int
    """Replies that answer nothing."""
    n_html: int
    """Tickets whose body or reply holds HTML tags."""


def read_tickets(look: Look, source: FilesSource, *, learns: tuple[str, ...]) -> Tickets:
    """Make tickets of the sample and count.

    Args:
        source: How a run would read the file.
        learns: Ticket columns of which a ticket needs all to be of use, in addition to its body.

    Raises:
        DataError: as a run would: TG0204 shapes are mixed, TG0204; TG0221, no row could be read.
    """
    maker = TicketMaker(source)
    maker.begin_file(look.path.name)
    faults: Counter[str] = Counter()
    tickets: list[dict[str, str]] = []
    for batch in in_batches(map(Record, look.lines, [None] * look.n_looked, look.rows)):
        made = maker.make(batch)
        faults.update(fault.code for fault in made.faults.values())
        names = [name for name in ("subject", "body", "reply", *learns) if name in made.columns]
        columns = {name: made.columns[name].to_pylist() for name in names}
        tickets += [
            {name: values[index] or "" for name, values in columns.items()}
            for index in range(len(batch.rows))
            if index not in made.faults
        ]
    if not tickets and not faults:
        raise DataError("no row could be read", code="TG0221", where=str(look.path))
    bodies = [ticket["body"] for ticket in tickets if ticket.get("body")]
    replies = [ticket["reply"] for ticket in tickets if ticket.get("reply")]
    usable = {
        " ".join(ticket["body"].lower().split())
        for ticket in tickets
        if all(ticket.get(name) for name in ("body", *learns))
    }
    spoken = [f"{ticket.get('body', '')}\n{ticket.get('reply', '')}" for ticket in tickets]
    searched = bodies[:SEARCHED_TEXTS]
    kinds = ({found.type: None for found in find_personal(body[:20_000], _PERSONAL)} for body in searched)
    personal = Counter(kind for of_body in kinds for kind in of_body)
    return Tickets(
        n_read=len(tickets) + sum(faults.values()),
        n_usable=len(usable),
        faults=dict(faults.most_common()),
        body_chars=quantile(map(len, bodies), 0.95),
        shortest_body=quantile(map(len, bodies), 0.05),
        reply_chars=quantile(map(len, replies), 0.95),
        example_chars=quantile(
            (sum(len(ticket.get(name, "")) for name in ("subject", "body", "reply")) for ticket in tickets), 0.95
        ),
        n_searched=len(searched),
        personal=dict(personal.most_common()),
        languages=_languages(searched),
        n_leftovers=sum("{{" in text for text in spoken),
        n_html=sum(bool(_TAG.search(text)) for text in spoken),
        n_stubs=sum(len(reply) < 80 and is_stub(reply) for reply in replies),
    )


def quantile(values: Iterable[int], share: float) -> int:
    """The smallest value that `share` of the values do not exceed; 0 of none.

    >>> quantile([1, 2, 3, 4, 100], 0.8), quantile([], 0.5)
    (4, 0)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


def _languages(bodies: Sequence[str]) -> dict[str, int]:
    import pyarrow as pa

    from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, detect_languages

    lines = [" ".join(body[: 4 * READ_CHARACTERS].split())[:READ_CHARACTERS] for body in bodies]
    lines = [line for line in lines if sum(map(str.isalpha, line)) >= MIN_LETTERS]
    if not lines:
        return {}
    languages, _ = detect_languages(pa.chunked_array([pa.array(lines, pa.string())]))
    return dict(Counter(code for code in languages.to_pylist() if code).most_common())
