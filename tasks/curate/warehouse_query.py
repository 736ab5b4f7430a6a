"""Query a published warehouse: what was removed, what became of a ticket, examples of rows.

The database is opened read-only and locked down, so that a query can read it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, StorageError
from schemas.report import RemovedExample
from tasks.curate.redact import masked_form, masked_place, masked_value, redact_row
from tasks.curate.redaction.personal import ID_COLUMNS, LABEL_COLUMNS, is_personal_id
from tasks.curate.sql.predicate import check_predicate
from tasks.curate.warehouse_tables import TABLES, VIEWS
from tasks.storage.warehouse import QUESTION_MEMORY, QUESTION_TIMEOUT_S, connect, in_bounds, quote_identifier

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
SampleTable = Literal["curated", "raw_tickets"]
_MEMORY = f"{QUESTION_MEMORY // 2}B"
MAX_TEXT = 280
"""Characters of an example."""
_MAX_REASONS = 3
_EXAMPLES = (
    "WITH chosen AS (SELECT *, row_number() OVER (PARTITION BY step, outcome, code "
    "ORDER BY sha256(concat_ws(chr(0), source, source_line, byte_offset))) AS n FROM removed QUALIFY n <= {n_rows}) "
    "SELECT step, outcome, code, reason, source, source_line, raw.subject, raw.body, raw.reference FROM chosen "
    "JOIN funnel USING (step) LEFT JOIN raw_tickets raw USING (source, source_line) ORDER BY position, code, n"
)


@dataclass(frozen=True)
class Lineage:
    """What became of the rows of one ticket id.

    Attributes:
        fates: One per row of the source with the id (see view `fate`).
        steps: The steps in order; the row passed those before the one that removed it.
        merged_into_it: Tickets that were merged into this one.
        corrections: What people decided about it (table `corrections`).
    """

    ticket_id: str
    snapshot_id: str
    fates: tuple[Row, ...]
    steps: tuple[str, ...]
    merged_into_it: tuple[Row, ...]
    corrections: tuple[Row, ...]


def snapshot_of(database: Path) -> str:
    """Return the id of the state that the database shows."""
    return str(query_rows(database, "SELECT snapshot_id FROM snapshot")[0]["snapshot_id"])


def funnel_of(database: Path) -> list[Row]:
    """Return one row per step, in order."""
    return query_rows(database, "SELECT * EXCLUDE (position) FROM funnel ORDER BY position")


def reasons_of(database: Path) -> list[Row]:
    """Return how many rows each code removed, by step."""
    return query_rows(
        database,
        "SELECT step, outcome, code, any_value(reason) AS example, count(*) AS n_rows FROM removed "
        "JOIN funnel USING (step) GROUP BY position, step, outcome, code ORDER BY position, n_rows DESC, code",
    )


def removed_examples(database: Path, *, redact: RedactStep, n_rows: int) -> list[RemovedExample]:
    """Return examples of removed rows by step and code, redacted; the same rows for the same warehouse.

    All are redacted by the pipeline's settings and by the default ones, since some were removed before `redact`. Texts
    that are no longer kept, and lines that could not be read, are empty.

    Args:
        redact: The settings of the pipeline.
        n_rows: Number of examples per step and code.
    """
    redactions = (redact, RedactStep(uses="redact"))
    return [_example(row, redactions) for row in query_rows(database, _EXAMPLES.format(n_rows=int(n_rows)))]


def _example(row: Row, redactions: Iterable[RedactStep]) -> RemovedExample:
    texts = {name: row[name] for name in ("subject", "body", "reference")}
    for redact in redactions:
        texts, _ = redact_row(texts, redact)
    text = " / ".join(text for text in (texts["subject"], texts["body"]) if text)
    return RemovedExample(
        **{name: row[name] for name in ("step", "outcome", "code")},
        reason=masked_place(row["reason"]),  # it may say where an equal row is
        where=f"{masked_place(row['source'])}:{row['source_line']}" if row["source"] else "",
        text=text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}...",
    )


def quarantine_of(database: Path, *, limit: int) -> list[Row]:
    """Return the first quarantined rows, by place in the source."""
    return query_rows(
        database,
        "SELECT step, code, source, source_line, byte_offset, field, check_name, value, reason, ticket_id "
        f"FROM quarantine ORDER BY source, source_line LIMIT {int(limit)}",
    )


def select_rows(database: Path, sql: str, *, limit: int) -> list[Row]:
    """Return the rows of one SELECT over the warehouse's tables and views, at most `limit`.

    Raises:
        ConfigError: TG0125, it is not one SELECT, or DuckDB refuses it: the connection reads only the warehouse.
        SecurityError: TG0837, it takes too long or too much memory.
    """
    import duckdb

    with _opened(database, memory_limit=_MEMORY) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ConfigError("a query must be one SELECT", code="TG0125", where="--sql")
            rows = _in_bounds(connection, lambda: connection.sql(sql).limit(limit), where="--sql")
        except duckdb.Error as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(
                f"DuckDB refuses the query: {first[:300]}",
                code="TG0125",
                where="--sql",
                hint=f"tables: {', '.join(TABLES)}; views: {', '.join(VIEWS)}",
            ) from None
    return rows


def unfinished_sample(
    database: Path, *, redactions: Sequence[RedactStep], where: str | None, n_rows: int, seed: int
) -> list[Row]:
    """Return rows of a curation that failed, redacted: those that its last step left, or as read if there are none.

    Raises:
        ConfigError, SecurityError: as `sample_rows`.
    """
    n_curated = query_rows(database, "SELECT count(*) AS n FROM curated")[0]["n"]
    table: SampleTable = "curated" if n_curated else "raw_tickets"
    rows = sample_rows(database, table=table, where=where, n_rows=n_rows, seed=seed)
    for redact in redactions:
        rows = [redact_row(row, redact)[0] for row in rows]
    return [masked_row(row) for row in rows]


def common_faults(database: Path, *, redactions: Sequence[RedactStep]) -> list[Row]:
    """Return the three commonest reasons for which rows were removed, each with three rows of which only a form shows.

    Rows without a text are not shown; of those that the reader refused none is kept. Letters and digits of the rows are
    replaced, so that an error may print them: `Where is 4711?` is `xxxxx xx 9999?`.
    """
    reasons = sorted(reasons_of(database), key=lambda row: -row["n_rows"])[:_MAX_REASONS]
    examples = removed_examples(database, redact=redactions[0], n_rows=_MAX_REASONS)
    return [
        {
            **reason,
            "rows": [
                (each.where, masked_form(each.text))
                for each in examples
                if each.text
                and (each.step, each.outcome, each.code) == (reason["step"], reason["outcome"], reason["code"])
            ],
        }
        for reason in reasons
    ]


def sample_rows(database: Path, *, table: SampleTable, where: str | None, n_rows: int, seed: int) -> list[Row]:
    """Return rows of a ticket table for which the predicate is TRUE, in the order of a hash of seed and place.

    In rows of `curated`, personal data in labels, ids and references is replaced by placeholders.

    Raises:
        ConfigError: the predicate does not parse or names an unknown column.
        SecurityError: the predicate reaches beyond its row, or TG0837, takes too long or too much memory.
    """
    keep = check_predicate(where, where="--where") if where else "TRUE"
    sql = (
        f"SELECT * FROM {quote_identifier(table)} WHERE ({keep}) "
        f"ORDER BY sha256(concat_ws(chr(0), '{int(seed)}', source, source_line)) LIMIT {int(n_rows)}"
    )
    with _opened(database, memory_limit=_MEMORY) as connection:
        rows = _in_bounds(connection, lambda: connection.sql(sql), where="--where")
    return rows if table == "raw_tickets" else [masked_row(row) for row in rows]


def masked_row(row: Row) -> Row:
    """Mask what is no text of the ticket; its texts are shown as the pipeline has redacted them."""
    masked = dict(row)
    for name in (*ID_COLUMNS, *LABEL_COLUMNS, "reference"):
        value = row.get(name)
        if value and (name in LABEL_COLUMNS or is_personal_id(value)):
            masked[name] = masked_value(value)
    return masked


def lineage_of(database: Path, ticket_id: str) -> Lineage | None:
    """Return what became of a ticket, by its id in the source or its pseudonym; None if there is no such id."""
    places = "SELECT (source, source_line) FROM {} WHERE ticket_id = $id"
    named = " OR ".join(
        ["ticket_id = $id", *(f"(source, source_line) IN ({places.format(name)})" for name in ("curated", "removed"))]
    )
    with _opened(database) as connection:

        def query(sql: str, **values: object) -> tuple[Row, ...]:
            return tuple(connection.sql(sql, params=values).to_arrow_table().to_pylist())

        fates = query(f"SELECT * FROM fate WHERE {named} ORDER BY source, source_line", id=ticket_id)
        if not fates:
            return None
        merged = query(
            "SELECT ticket_id, step, code, score FROM merged WHERE kept_id = $id ORDER BY score DESC, ticket_id",
            id=ticket_id,
        )
        steps = query("SELECT step FROM funnel ORDER BY position")
        corrections = query(
            "SELECT * FROM corrections WHERE ticket_id = $id OR ticket_id IN (SELECT c.ticket_id FROM curated c "
            "JOIN fate f USING (source, source_line) WHERE f.ticket_id = $id) ORDER BY \"at\", \"do\", field, rule",
            id=ticket_id,
        )  # fmt: skip
        snapshot = query("SELECT snapshot_id FROM snapshot")[0]["snapshot_id"]
    return Lineage(ticket_id, str(snapshot), fates, tuple(str(row["step"]) for row in steps), merged, corrections)


def customer_fates(database: Path, names: Sequence[str]) -> tuple[Row, ...]:
    """Return what became of each ticket of a customer, by the id in the source or a pseudonym; in order of place."""
    mine = "SELECT source, source_line FROM {} WHERE list_contains($names::VARCHAR[], customer_id)"
    places = " UNION ".join(mine.format(table) for table in ("raw_tickets", "curated"))
    sql = f"SELECT * FROM fate WHERE (source, source_line) IN ({places}) ORDER BY source, source_line"
    return tuple(query_rows(database, sql, names=list(names)))


def _in_bounds(
    connection: duckdb.DuckDBPyConnection, query: Callable[[], duckdb.DuckDBPyRelation], *, where: str
) -> list[Row]:
    """Run a user's query within the limits of time and memory."""

    def answer() -> list[Row]:
        rows: list[Row] = query().to_arrow_table().to_pylist()
        return rows

    return in_bounds(connection, answer, where=where, timeout_s=QUESTION_TIMEOUT_S, memory=QUESTION_MEMORY)


def query_rows(database: Path, sql: str, **values: object) -> list[Row]:
    """Return the rows of a query of ours.

    Raises:
        StorageError: TG0519, it is no DuckDB file of a version that is read, or lacks a table or column that this one
            of tunegate writes.
    """
    import duckdb

    with _opened(database) as connection:
        try:
            rows: list[Row] = connection.sql(sql, params=values).to_arrow_table().to_pylist()
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            lacks = str(error).partition("\n")[0].partition("Error: ")[2]
            raise StorageError(
                f"the warehouse was written by another version of tunegate: {lacks}", code="TG0519", where=str(database)
            ) from error
    return rows


@contextmanager
def _opened(database: Path, *, memory_limit: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, for reading.

    Raises:
        StorageError: TG0519, it is no DuckDB file of a version that is read.
    """
    try:
        with connect(database, read_only=True, memory_limit=memory_limit) as connection:
            yield connection
    except StorageError as error:
        if error.code == "TG0519":
            error.hint = error.hint or "`tunegate data curate PIPELINE` writes it again"
        raise
