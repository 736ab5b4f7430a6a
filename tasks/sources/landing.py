"""`ingest.duckdb`: rows of a service as they arrived, each with its state, and the position reached.

A page and the position after it are committed together, so after a kill reading resumes after the last complete page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.storage.failpoint import reach
from tasks.storage.files import whole_file
from tasks.storage.warehouse import connect, quote_text
from tasks.tickets.row_fault import is_row_fault, row_fault

if TYPE_CHECKING:
    import duckdb

FILE = "ingest.duckdb"
FAULTY = "faulty"
"""State of a placeholder for a row that could not be used, and stream of placeholders without a key."""
TABLES = {
    "rows": "stream VARCHAR, key VARCHAR, parent VARCHAR, status VARCHAR, version VARCHAR, fetched VARCHAR, "
    "state VARCHAR, content VARCHAR",
    "marks": "name VARCHAR, value VARCHAR",
}
_AT_A_TIME = 4096
_NOT_OLDER = (
    "(length(coalesce(a.version, '')), coalesce(a.version, '')) >= "
    "(length(coalesce(r.version, '')), coalesce(r.version, ''))"
)
"""The arrived row `a` and the stored row `r`."""
_COLUMNS = ("stream", "key", "parent", "status", "version", "fetched", "state", "content")


@dataclass(frozen=True, slots=True)
class LandedRow:
    """One row of a stream.

    Attributes:
        key: Unique in its stream.
        parent: Key of the row in another stream to which it belongs.
        status: Decides, without reading `content`, if more of it is fetched.
        version: Increases when the row changes; an older version never replaces a newer one.
        fetched: Version for which everything below the row was fetched.
        state: `live`, `deleted` or `redacted` upstream, or `faulty` for a placeholder.
        content: JSON; None if nothing may be kept.
    """

    stream: str
    key: str
    content: str | None
    parent: str | None = None
    status: str | None = None
    version: str | None = None
    fetched: str | None = None
    state: str = "live"


def reason_of(error: Exception) -> str:
    """Why a row that raised is not used; an error that no row can cause is raised again."""
    if not is_row_fault(error):
        raise error
    return row_fault(error, "ingest")[1]


class Landing:
    """An open `ingest.duckdb`; made by `open_landing` and `read_landing`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, skips: Callable[[LandedRow], bool] | None = None) -> None:
        self._connection, self._skips = connection, skips
        self._due: dict[str, str] = {}

    def mark(self, name: str) -> str | None:
        """The value stored under this name."""
        found = self.query("SELECT value FROM marks WHERE name = ?", name)
        return found[0][0] if found else None

    def note(self, name: str, value: str) -> None:
        """Set a mark with the next commit."""
        if self.mark(name) != value:
            self._due[name] = value

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return self._connection.execute(sql, values).fetchall()

    def each(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a SELECT, a few thousand in memory at a time; run no other query meanwhile."""
        found = self._connection.execute(sql)
        while some := found.fetchmany(_AT_A_TIME):
            yield from some

    @contextmanager
    def step(self, **marks: str | None) -> Iterator[None]:
        """One transaction: what the block writes, and these marks; None removes a mark."""
        self._connection.execute("BEGIN")
        try:
            yield
            for name, value in {**self._due, **marks}.items():
                self._connection.execute("DELETE FROM marks WHERE name = ?", [name])
                if value is not None:
                    self._connection.execute("INSERT INTO marks VALUES (?, ?)", [name, value])
            reach("ingest.written")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        self._due = {}
        reach("ingest.committed")

    def put(self, rows: list[LandedRow]) -> None:
        """Store rows of one page. Inside `step`.

        Rows that are older than the stored ones, or equal to them, change nothing. Rows of forgotten customers are
        skipped and removed. Where a text is removed, the mark `replaced` records that its bytes are still in the file.
        """
        newest = {
            (row.stream, row.key): row
            for row in sorted(rows, key=lambda row: (len(row.version or ""), row.version or ""))
        }
        if self._skips is not None:
            gone = [place for place, row in newest.items() if self._skips(row)]
            self.drop(gone)
            for place in gone:
                del newest[place]
        table = pa.table({name: [getattr(row, name) for row in newest.values()] for name in _COLUMNS},
                         schema=pa.schema([(name, pa.string()) for name in _COLUMNS]))  # fmt: skip
        self._connection.register("arrived", table)
        same = "r.stream = a.stream AND r.key = a.key"
        differs = "(r.content, r.state, r.parent, r.status) IS DISTINCT FROM (a.content, a.state, a.parent, a.status)"
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE changed AS SELECT a.*, "
            "r.content IS NOT NULL AND r.content IS DISTINCT FROM a.content AS loses_text "
            f"FROM arrived a LEFT JOIN rows r ON {same} "
            f"WHERE r.key IS NULL OR ({_NOT_OLDER} AND ({differs} OR r.version IS DISTINCT FROM a.version))"
        )
        self._connection.execute(f"DELETE FROM rows r USING changed a WHERE {same}")
        self._connection.execute(f"INSERT INTO rows SELECT {', '.join(_COLUMNS)} FROM changed")
        ((n_lost,),) = self.query("SELECT count(*) FILTER (loses_text) FROM changed")
        self._connection.unregister("arrived")
        if n_lost:
            self._replaced()

    def remove(self, stream: str, *, parent: str) -> None:
        """Remove all rows of a stream with this parent. Inside `step`."""
        if self.query("SELECT 1 FROM rows WHERE stream = ? AND parent = ? LIMIT 1", stream, parent):
            self._connection.execute("DELETE FROM rows WHERE stream = ? AND parent = ?", [stream, parent])
            self._replaced()

    def drop(self, rows: Iterable[tuple[str, str]]) -> None:
        """Take rows by stream and key, with everything that belongs to them. Inside `step`."""
        for stream, key in rows:
            if self.query("SELECT 1 FROM rows WHERE stream = ? AND key = ?", stream, key):
                self._connection.execute("DELETE FROM rows WHERE stream = ? AND key = ?", [stream, key])
                self._replaced()
            if stream == "ticket":
                self.remove("comment", parent=key)

    def clear(self, stream: str) -> None:
        """Remove all rows of a stream. Inside `step`."""
        self._connection.execute("DELETE FROM rows WHERE stream = ?", [stream])

    def set_fetched(self, stream: str, key: str) -> None:
        """Record that everything below this row was fetched for its version. Inside `step`."""
        self._connection.execute("UPDATE rows SET fetched = version WHERE stream = ? AND key = ?", [stream, key])

    def digest(self) -> str:
        """sha256 of the rows' content, whatever the order in which they arrived and however often."""
        fields = "stream, key, coalesce(parent, ''), coalesce(status, ''), state, coalesce(content, '')"
        row = f"sha256(concat_ws(chr(31), {fields}))"
        found = self.query(f"SELECT sha256(coalesce(string_agg({row}, '' ORDER BY stream, key), '')) FROM rows")
        return str(found[0][0])

    def finish(self, *, at: str) -> str:
        """Record that everything has arrived, and the digest of it."""
        digest = self.digest()
        with self.step(complete=digest, finished_at=at):
            pass
        reach("ingest.finished")
        return digest

    def _replaced(self) -> None:
        self._connection.execute("DELETE FROM marks WHERE name = 'replaced'")
        self._connection.execute("INSERT INTO marks VALUES ('replaced', 'yes')")


@contextmanager
def open_landing(folder: Path, *, skips: Callable[[LandedRow], bool] | None = None) -> Iterator[Landing]:
    """The folder's `ingest.duckdb`, created if it is missing.

    Args:
        skips: True for an arriving row that is not stored.

    Raises:
        LockedError: TG0520, another process ingests the same source.
        StorageError: TG0519, the file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with connect(folder / FILE, threads=1) as connection:
        (folder / FILE).chmod(0o600)
        for name, columns in TABLES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        yield Landing(connection, skips)


@contextmanager
def read_landing(folder: Path, *, complete: bool = True) -> Iterator[Landing | None]:
    """The same for reading; None if nothing was ingested or, with `complete`, not completely."""
    path = folder / FILE
    if not path.is_file() or not path.stat().st_size:
        yield None
        return
    with connect(path, read_only=True, threads=1) as connection:
        tables = {name for (name,) in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        landing = Landing(connection)
        yield landing if tables >= TABLES.keys() and (not complete or landing.mark("complete")) else None


def rewrite_if_replaced(folder: Path) -> bool:
    """Remove the bytes of removed texts; returns whether there were any. Readers keep the file that they have open.

    DuckDB leaves the bytes of replaced and removed rows in its file, so the file is rewritten without them: at the end
    of an ingestion, and first after a kill.
    """
    for left in folder.glob(f".{FILE}.*"):
        left.unlink()
    with open_landing(folder) as landing:
        if landing.mark("replaced") is None:
            return False
    path = folder / FILE
    with whole_file(path, mode=0o600) as rewritten:
        with connect(rewritten, readable=(folder,), threads=1) as connection:
            connection.execute(f"ATTACH {quote_text(str(path.resolve()))} AS old (READ_ONLY)")
            for name, columns in TABLES.items():
                connection.execute(f"CREATE TABLE {name} ({columns})")
                kept = " WHERE name <> 'replaced'" if name == "marks" else ""
                connection.execute(f"INSERT INTO {name} SELECT * FROM old.{name}{kept}")
            connection.execute("DETACH old")
            connection.execute("CHECKPOINT")
        reach("ingest.rewritten")
    return True
