"""Whose the rows are that were brought in: those of forgotten customers are left out, or taken away later.

Rows of an `ingest.duckdb` are removed one by one; a local copy of a remote file goes as a whole. Where the customer is
found is noted beside the rows (a mark in the file, `reading.json`): who removes rows knows no pipeline. Called by
`bring.py` and by `flows/privacy/`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import TunegateError
from schemas.remote_source import RemoteSource, ZendeskSource
from schemas.source import FilesSource
from tasks.curate.ingest.conversation import AGENTS
from tasks.curate.ingest.copies import FILES, READING
from tasks.curate.ingest.landing import Landing, Row, open_landing, read_landing, rewrite_if_replaced
from tasks.curate.readers.paths import MISSING, parse_path, walk
from tasks.curate.readers.records import Batch
from tasks.curate.readers.values import to_text
from tasks.files import sha256_file

if TYPE_CHECKING:
    from tasks.forget.hashes import Forgotten

MARK = "whose"
UNREAD = "\0unread"
"""Stands for the owner of rows of a copy that could not be read: no id holds a NUL."""
_REQUESTER = "requester_id"


@dataclass(frozen=True)
class Whose:
    """Where the customer of a row stands.

    Attributes:
        column: Column of the row, or a path into it.
        in_key: Place of the customer among the columns of the key; null where it is not part of it.
        ticket_in_key: The same of the ticket's id; a key that is no list is the ticket's id itself.
    """

    column: str
    in_key: int | None = None
    ticket_in_key: int | None = None

    def customer(self, stream: str, key: str, content: str | None) -> str | None:
        """The id as extraction reads it; null where there is none. A comment is its author's, unless an agent's."""
        if stream == "faulty":
            return None
        value: object = MISSING
        if content is not None:
            row: dict[str, Any] = orjson.loads(content)
            if stream != "comment":
                value = walk(row, parse_path(self.column) or (self.column,))
            elif self.column == _REQUESTER and row.get("role") not in AGENTS:
                value = row.get("author_id")
        if value is MISSING and self.in_key is not None:  # of a row that is gone, or that could not be kept
            value = orjson.loads(key)[self.in_key]
        text = None if value is MISSING else to_text("customer_id", value)
        return text if isinstance(text, str) else None

    def is_gone(self, stream: str, key: str, content: str | None, forgotten: Forgotten) -> bool:
        """Is it a row of a forgotten customer, or on a ticket of theirs?"""
        ticket = None
        if stream == "ticket":
            ticket = key
        elif stream == "row" and self.ticket_in_key is not None:
            ticket = str(orjson.loads(key)[self.ticket_in_key])
        return forgotten.is_gone("ticket", ticket) or forgotten.is_gone("customer", self.customer(stream, key, content))

    def leaves(self, row: Row, forgotten: Forgotten) -> bool:
        """The same of a row that arrives."""
        return self.is_gone(row.stream, row.key, row.content, forgotten)


def whose_of(source: RemoteSource) -> Whose:
    """Where the source's columns say that the customer stands."""
    if isinstance(source, ZendeskSource):
        return Whose(source.columns.get("customer_id", _REQUESTER))
    customer, ticket = (source.columns.get(name, name) for name in ("customer_id", "ticket_id"))
    places = {name: place for place, name in enumerate(source.key)}
    return Whose(customer, places.get(customer), places.get(ticket))


def note_whose(landing: Landing, whose: Whose) -> None:
    """Keep it with the rows: no page is committed without it."""
    landing.note(MARK, orjson.dumps(asdict(whose)).decode())


def landed_customers(database: Path) -> list[tuple[str, int]]:
    """Each customer of an `ingest.duckdb`, complete or not, with the number of their rows and comments.

    Raises:
        LockedError: TG0520, the source is being brought in right now.
    """
    with read_landing(database.parent, complete=False) as landing:
        if landing is None:
            return []
        whose, found = _noted(landing), Counter[str]()
        for stream, key, content in landing.each("SELECT stream, key, content FROM rows"):
            customer = whose.customer(stream, key, content)
            if customer is not None:
                found[customer] += 1
    return sorted(found.items())


def remove_landed(database: Path, forgotten: Forgotten) -> None:
    """Take the rows of forgotten customers out, their bytes as well. Killed anywhere, done again it comes to its end.

    Raises:
        LockedError: TG0520, the source is being brought in right now.
    """
    with open_landing(database.parent) as landing:
        whose = _noted(landing)
        rows = landing.each("SELECT stream, key, content FROM rows")
        gone = [(stream, key) for stream, key, text in rows if whose.is_gone(stream, key, text, forgotten)]
        with landing.step():
            landing.drop(gone)
        if landing.mark("complete") is not None:
            with landing.step(complete=landing.digest()):
                pass
    rewrite_if_replaced(database.parent)


def _noted(landing: Landing) -> Whose:
    noted = landing.mark(MARK)
    if noted is not None:
        return Whose(**orjson.loads(noted))
    is_zendesk = landing.ask("SELECT 1 FROM rows WHERE stream = 'ticket' LIMIT 1")
    return Whose(_REQUESTER if is_zendesk else "customer_id")


def all_copies(ingest: Path) -> list[Path]:
    """Every copy below the folder of all pipelines' sources."""
    return sorted(ingest.glob(f"*/remote_files-*/{FILES}/*"))


def reading_digest(copy: Path) -> str:
    """Changes with how the copy is read; the same bytes name other customers by other columns."""
    reading = copy.parent.parent / READING
    return sha256_file(reading)[:8] if reading.is_file() else "unknown"


def copy_customers(copy: Path) -> list[tuple[str, int]]:
    """Each customer of a copy with the number of their rows, read as in extraction; `UNREAD` counts the others."""
    from tasks.curate.extract import reader_of
    from tasks.curate.readers.columns import TicketMaker
    from tasks.curate.readers.source_files import SourceFile, file_format

    found = Counter[str]()
    try:
        reading: dict[str, Any] = orjson.loads((copy.parent.parent / READING).read_bytes())
        source = FilesSource(kind="files", paths=(copy.name,), **reading)
        maker = TicketMaker(source)
        maker.begin_file(copy.name)
        for batch in reader_of(file_format(SourceFile(copy.name, copy), source.format))(copy):
            _count(maker, batch, found)
    except (TunegateError, OSError, ValueError):  # the run reports it; here it counts as unread
        found[UNREAD] += 1
    return sorted(found.items())


def _count(maker: Any, batch: Batch, found: Counter[str]) -> None:
    import pyarrow.compute as pc

    made = maker.make(batch)
    found[UNREAD] += len(batch.faulty)
    for index in made.faults:
        found[made.customers.get(index) or UNREAD] += 1
    if "customer_id" in made.columns:
        for each in pc.value_counts(made.columns["customer_id"].drop_null()).to_pylist():
            found[str(each["values"])] += each["counts"]
    if not found[UNREAD]:
        del found[UNREAD]
