"""Which customer an ingested row belongs to: rows of forgotten customers are skipped, or removed later.

Rows of an `ingest.duckdb` are removed one by one; a local copy of a remote file is removed as a whole. Where to find
the customer is stored with the rows (a mark in the file, `reading.json`): removing rows must work without the pipeline.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.compute as pc

from schemas.errors import TunegateError
from schemas.file_reading import FileReading
from tasks.privacy.hashes import Forgotten
from tasks.sources.copies import FILES, READING
from tasks.sources.formats import SourceFile, file_format, reader_of
from tasks.sources.landing import LandedRow, Landing, open_landing, read_landing, rewrite_if_replaced
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.paths import MISSING, parse_path, walk
from tasks.sources.readers.records import RowBatch
from tasks.sources.readers.values import to_text
from tasks.sources.zendesk_conversation import AGENTS
from tasks.storage.files import sha256_file

MARK = "row_owner"
UNREAD = "\0unread"
"""Owner of rows of a copy that could not be read; no id contains a NUL."""
REQUESTER = "requester_id"


@dataclass(frozen=True)
class RowOwner:
    """Where a row names its customer.

    Attributes:
        column: Column of the row, or a path into it.
        in_key: Place of the customer among the columns of the key; None if it is not among them.
        ticket_in_key: The same for the ticket's id; a key that is not a list is the ticket's id itself.
    """

    column: str
    in_key: int | None = None
    ticket_in_key: int | None = None

    def customer(self, stream: str, key: str, content: str | None) -> str | None:
        """The customer id as extraction reads it, or None. A comment belongs to its author, unless that is an agent."""
        if stream == "faulty":
            return None
        value: object = MISSING
        if content is not None:
            row: dict[str, Any] = orjson.loads(content)
            if stream != "comment":
                value = walk(row, parse_path(self.column) or (self.column,))
            elif self.column == REQUESTER and row.get("role") not in AGENTS:
                value = row.get("author_id")
        if value is MISSING and self.in_key is not None:  # the row is deleted upstream, or could not be stored
            value = orjson.loads(key)[self.in_key]
        text = None if value is MISSING else to_text("customer_id", value)
        return text if isinstance(text, str) else None

    def is_gone(self, stream: str, key: str, content: str | None, forgotten: Forgotten) -> bool:
        """True for a row of a forgotten customer, or of a forgotten ticket."""
        ticket = None
        if stream == "ticket":
            ticket = key
        elif stream == "row" and self.ticket_in_key is not None:
            ticket = str(orjson.loads(key)[self.ticket_in_key])
        return forgotten.is_gone("ticket", ticket) or forgotten.is_gone("customer", self.customer(stream, key, content))

    def skips(self, row: LandedRow, forgotten: Forgotten) -> bool:
        """True for an arriving row that must not be stored."""
        return self.is_gone(row.stream, row.key, row.content, forgotten)


def note_owner(landing: Landing, owner: RowOwner) -> None:
    """Store the owner with the rows; no page is committed without it."""
    landing.note(MARK, orjson.dumps(asdict(owner)).decode())


def landed_customers(database: Path) -> list[tuple[str, int]]:
    """Each customer of an `ingest.duckdb`, complete or not, with the number of their rows and comments.

    Raises:
        LockedError: TG0520, the source is being ingested now.
    """
    with read_landing(database.parent, complete=False) as landing:
        if landing is None:
            return []
        owner, found = _noted(landing), Counter[str]()
        for stream, key, content in landing.each("SELECT stream, key, content FROM rows"):
            customer = owner.customer(stream, key, content)
            if customer is not None:
                found[customer] += 1
    return sorted(found.items())


def remove_landed(database: Path, forgotten: Forgotten) -> None:
    """Remove the rows of forgotten customers and their bytes; after a kill, a second call completes it.

    Raises:
        LockedError: TG0520, the source is being ingested now.
    """
    with open_landing(database.parent) as landing:
        owner = _noted(landing)
        rows = landing.each("SELECT stream, key, content FROM rows")
        gone = [(stream, key) for stream, key, text in rows if owner.is_gone(stream, key, text, forgotten)]
        with landing.step():
            landing.drop(gone)
        if landing.mark("complete") is not None:
            with landing.step(complete=landing.digest()):
                pass
    rewrite_if_replaced(database.parent)


def _noted(landing: Landing) -> RowOwner:
    noted = landing.mark(MARK)
    if noted is not None:
        return RowOwner(**orjson.loads(noted))
    is_zendesk = landing.query("SELECT 1 FROM rows WHERE stream = 'ticket' LIMIT 1")
    return RowOwner(REQUESTER if is_zendesk else "customer_id")


def all_copies(ingest: Path) -> list[Path]:
    """Every local copy of a remote file, below the folder of all pipelines' sources."""
    return sorted(ingest.glob(f"*/*/{FILES}/*"))


def reading_digest(copy: Path) -> str:
    """Digest of the copy's reading settings, with which the same bytes may name other customers."""
    reading = copy.parent.parent / READING
    return sha256_file(reading)[:8] if reading.is_file() else "unknown"


def copy_customers(copy: Path) -> list[tuple[str, int]]:
    """Each customer of a copy with the number of their rows, as extraction reads them; `UNREAD` counts the others."""
    found = Counter[str]()
    try:
        reading: dict[str, Any] = orjson.loads((copy.parent.parent / READING).read_bytes())
        settings = FileReading(**reading)
        maker = TicketMaker(settings)
        maker.begin_file(copy.name)
        for batch in reader_of(file_format(SourceFile(copy.name, copy), settings.format), settings.csv)(copy):
            _count(maker, batch, found)
    except (TunegateError, OSError, ValueError):  # a run reports the error; here the copy counts as unread
        found[UNREAD] += 1
    return sorted(found.items())


def _count(maker: Any, batch: RowBatch, found: Counter[str]) -> None:
    made = maker.make(batch)
    found[UNREAD] += len(batch.faulty)
    for index in made.faults:
        found[made.customers.get(index) or UNREAD] += 1
    if "customer_id" in made.columns:
        for each in pc.value_counts(made.columns["customer_id"].drop_null()).to_pylist():
            found[str(each["values"])] += each["counts"]
    if not found[UNREAD]:
        del found[UNREAD]
