"""What a file of tickets holds: counts and kinds of values per column, and what a run would make of its rows.

Everything is read by a run's own readers, so that what is said to parse does parse. Only counts leave this module,
never a text. It knows nothing of what a column is for (`tasks/start/roles.py` does).
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from zlib import crc32

import numpy as np
import pyarrow as pa

from schemas.curation_steps import RedactionType
from schemas.errors import ConfigError, DataError
from schemas.source import FilesSource
from tasks.curate.extract import reader_of
from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, detect_languages
from tasks.curate.readers.columns import TicketMaker
from tasks.curate.readers.records import Fault, Record, in_batches
from tasks.curate.readers.source_files import file_format, find_files
from tasks.curate.readers.values import to_rating, to_time
from tasks.curate.redaction.personal import find_personal
from tasks.curate.scores.stub_replies import is_stub

SAMPLE_ROWS = 2000
"""Between this and twice as many rows of a large file are looked at, spread evenly over it; all rows are counted."""
SEARCHED_TEXTS = 300
"""Bodies searched for personal data and for their language."""
_DEPTH = 4
_ITEMS = 2
"""Items of a list that are looked into: what a customer wrote first, and the first answer."""
_MAX_PATHS = 400
_YEARS = (1990, 2100)
"""A number outside these years is an id, not a time since 1970."""
_PERSONAL: tuple[RedactionType, ...] = ("email", "phone", "card", "iban", "national_id", "ip", "url", "secret")
_TAG = re.compile(r"(?i)<(?:p|br|div|span|table|a|ul|li|b|strong)\b[^<>]{0,200}>")


@dataclass(frozen=True)
class ColumnFacts:
    """Values of one column in the sample, or of one path into nested rows; blank ones count as absent."""

    name: str
    is_top: bool
    """Rows have the name at their top."""
    n_rows: int
    """Rows looked at; a nested path may be absent in some."""
    n_filled: int
    n_distinct: int
    median_chars: int
    """Characters of the texts."""
    kinds: Counter[str]
    """`text`, `time`, `number`, `email`, `phone` -> values that are (the last two: hold) one."""

    @property
    def personal_share(self) -> float:
        """Share of the values that hold an e-mail address or a phone number, 0-1."""
        return max(self.kinds["email"], self.kinds["phone"]) / max(1, self.n_filled)


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
    top: tuple[str, ...]
    """Names that rows have at their top."""
    columns: Mapping[str, ColumnFacts]
    """Columns of the rows in their order, and paths into those that are nested."""

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
    n_rows = n_seen = mask = 0
    unreadable: Counter[str] = Counter()
    sample: list[tuple[int, int, Mapping[str, object]]] = []
    for batch in reader_of(file_format(file, "auto"))(file.path):
        n_rows += len(batch)
        unreadable.update(each.content.code for each in batch.faulty if isinstance(each.content, Fault))
        for index, line in enumerate(batch.lines):
            # Every row is kept, then about every second, every fourth and so on. A hash of the row's number chooses,
            # so that nothing that repeats in a file can hide between the steps.
            mark = crc32(b"%d" % n_seen)
            n_seen += 1
            if not mark & mask:
                sample.append((mark, int(line), batch.rows.pick(index, batch.rows.names(index))))
            if len(sample) >= 2 * SAMPLE_ROWS:
                mask = 2 * mask + 1
                sample = [each for each in sample if not each[0] & mask]
    if not n_rows:
        raise DataError("the file holds no row", code="TG0221", where=str(path), hint="a header alone tells too little")
    rows = tuple(row for _, _, row in sample)
    top = tuple(dict.fromkeys(name for row in rows for name in row))
    leaves = _leaves_by_path(rows)
    return Look(
        path=path,
        n_rows=n_rows,
        unreadable=dict(unreadable.most_common()),
        lines=tuple(line for _, line, _ in sample),
        rows=rows,
        top=top,
        columns={name: _facts(name, values, name in top, len(rows)) for name, values in leaves.items()},
    )


def _leaves_by_path(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for row in rows:
        for name, value in row.items():
            for path, leaf in _leaves(name, value, _DEPTH):
                if path in found or len(found) < _MAX_PATHS:
                    found.setdefault(path, []).append(leaf)
    return found


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Values that are neither object nor list, each under its path; what lies deeper than `depth` is left out."""
    inner: Iterable[tuple[str, object]]
    if isinstance(value, dict):
        inner = ((f".{key}", each) for key, each in value.items() if re.fullmatch(r"[^.\[\]]+", str(key)))
    elif isinstance(value, list):
        inner = ((f"[{place}]", each) for place, each in enumerate(value[:_ITEMS]))
    else:
        yield path, value
        return
    for step, each in inner if depth else ():
        yield from _leaves(path + step, each, depth - 1)


def _facts(name: str, values: Sequence[object], is_top: bool, n_rows: int) -> ColumnFacts:
    filled = [value for value in values if value is not None and not (isinstance(value, str) and not value.strip())]
    lengths = [len(value) for value in filled if isinstance(value, str)]
    return ColumnFacts(
        name=name,
        is_top=is_top,
        n_rows=n_rows,
        n_filled=len(filled),
        n_distinct=len(set(filled)),
        median_chars=int(median(lengths or [0])),
        kinds=Counter(kind for value in filled for kind in _kinds_of(value)),
    )


def _kinds_of(value: object) -> Iterator[str]:
    """What one value can be taken for, as the readers take it."""
    if isinstance(value, str):
        yield "text"
        # In a longer text an address is something that a ticket says, not what its column is for.
        yield from {found.type for found in find_personal(value, ("email", "phone"))} if len(value) <= 200 else ()
    if not isinstance(value, str) or len(value) <= 40:
        time = to_time("created_at", value)
        if isinstance(time, datetime) and _YEARS[0] <= time.year < _YEARS[1]:
            yield "time"
    if isinstance(to_rating("rating", value), float):
        yield "number"


@dataclass(frozen=True)
class Tickets:
    """What the sample comes to as tickets, under a mapping of its columns."""

    n_usable: int
    """Tickets with a body and something to learn, each question once."""
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
        look: A file with at least one row that can be read.
        source: How a run would read the file.
        learns: Ticket columns of which a ticket needs all to be of use, in addition to its body.

    Raises:
        DataError: as a run would: TG0204, shapes are mixed.
    """
    maker = TicketMaker(source)
    maker.begin_file(look.path.name)
    records = map(Record, look.lines, [None] * look.n_looked, look.rows)
    (batch,) = in_batches(records, max_rows=look.n_looked)
    made = maker.make(batch)
    rows = pa.table(made.columns).to_pylist()
    tickets = [row for index, row in enumerate(rows) if index not in made.faults]
    bodies = [ticket["body"] for ticket in tickets if ticket.get("body")]
    replies = [ticket["reply"] for ticket in tickets if ticket.get("reply")]
    usable = (ticket for ticket in tickets if all(ticket.get(name) for name in ("body", *learns)))
    spoken = [f"{ticket.get('body') or ''}\n{ticket.get('reply') or ''}" for ticket in tickets]
    examples = [sum(len(ticket.get(name) or "") for name in ("subject", "body", "reply")) for ticket in tickets]
    searched = bodies[:SEARCHED_TEXTS]
    kinds = (dict.fromkeys(found.type for found in find_personal(body[:20_000], _PERSONAL)) for body in searched)
    return Tickets(
        n_usable=len({" ".join(ticket["body"].lower().split()) for ticket in usable}),
        faults=dict(Counter(fault.code for fault in made.faults.values()).most_common()),
        body_chars=_quantile(list(map(len, bodies)), 0.95),
        shortest_body=_quantile(list(map(len, bodies)), 0.05),
        reply_chars=_quantile(list(map(len, replies)), 0.95),
        example_chars=_quantile(examples, 0.95),
        n_searched=len(searched),
        personal=dict(Counter(kind for of_body in kinds for kind in of_body).most_common()),
        languages=_languages(searched),
        n_leftovers=sum("{{" in text for text in spoken),
        n_html=sum(bool(_TAG.search(text)) for text in spoken),
        n_stubs=sum(len(reply) < 80 and is_stub(reply) for reply in replies),
    )


def _quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that `share` of the values do not exceed; 0 of none."""
    return int(np.quantile(values, share, method="inverted_cdf")) if values else 0


def _languages(bodies: Sequence[str]) -> dict[str, int]:
    lines = [" ".join(body[: 4 * READ_CHARACTERS].split())[:READ_CHARACTERS] for body in bodies]
    lines = [line for line in lines if sum(map(str.isalpha, line)) >= MIN_LETTERS]
    codes, _ = detect_languages(pa.chunked_array([pa.array(lines, pa.string())]))
    return dict(Counter(code for code in codes.to_pylist() if code).most_common())
