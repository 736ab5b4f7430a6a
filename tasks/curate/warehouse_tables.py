"""Tables and views of a pipeline's warehouse: columns, keys, and the meaning and PII class of each.

`create_tables` writes all of it into a database, where any client can read it; `write_markdown` and `write_dbt_sources`
write it for people and for dbt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import StringIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from schemas.tables import REMOVED, STRATA, TICKETS, Column
from tasks.storage.warehouse import quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

DBT_SOURCE = "tunegate"
"""Name of the source in dbt."""


class Table(NamedTuple):
    """A table with its key and its references to other tables."""

    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    """Columns of the primary key."""
    references: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """Column -> table and column in which each of its values occurs; DuckDB adds foreign keys to new tables only."""


class View(NamedTuple):
    """A view: a SELECT over the tables, or over views declared before it."""

    meaning: str
    select: str
    columns: tuple[Column, ...]


_STEP = Column("step", "VARCHAR", False, "none", "Step that removed the row")
_SPLIT = Column("split", "VARCHAR", False, "none", "train, validation or test")
_PLACE = (
    Column("source", "VARCHAR", True, "none", "File or table the row came from"),
    Column("source_line", "BIGINT", True, "none", "Line (1-based) or row number in that source"),
)
_ROWS = tuple(
    Column(name, "BIGINT", False, "none", meaning)
    for name, meaning in (
        ("n_in", "Input rows"),
        ("n_out", "Output rows"),
        ("n_quarantined", "Rows set aside as faulty"),
        ("n_dropped", "Rows dropped by a rule"),
        ("n_merged", "Rows merged into a kept duplicate"),
    )
)
_SNAPSHOT = Column("snapshot_id", "VARCHAR", False, "none", "Digest of every step's rows: equal id, equal tables")
_N_READ = Column("n_read", "BIGINT", False, "none", "Rows read from the source")
_N_CURATED = Column("n_curated", "BIGINT", False, "none", "Rows of train, validation and test")
_CONFIG = Column("config_digest", "VARCHAR", True, "none", "Digest of the pipeline's entry in pipelines.yaml")
_MADE_AT = Column("made_at", "TIMESTAMP", True, "none", "When it was first published, UTC")

TABLES: dict[str, Table] = {
    "snapshot": Table(
        "One row: which state of the tickets this database shows", (_SNAPSHOT, _N_READ, _N_CURATED), ("snapshot_id",)
    ),
    "raw_tickets": Table("Every row that could be read, as it came: not redacted", TICKETS),
    "curated": Table("Train, validation and test rows after every step", (_SPLIT, *TICKETS), ("ticket_id",)),
    "removed": Table(
        "Every row that is not in curated, with the step and the reason; views by outcome: quarantine, dropped, merged",
        (_STEP, *REMOVED),
    ),
    "duplicates": Table(
        "Members of duplicate clusters; the kept ones name themselves",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "A member of the cluster"),
            Column("cluster_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the cluster"),
            Column("kept_id", "VARCHAR", False, "pseudonym", "Ticket kept in its place"),
            Column("jaccard", "DOUBLE", False, "none", "Similarity of the two questions, 0-1; 1 for equal ones"),
            *_PLACE,
        ),
    ),
    "splits": Table(
        "Which of train, validation and test a ticket is in",
        (Column("ticket_id", "VARCHAR", False, "pseudonym", "As in curated"), _SPLIT, *_PLACE),
        ("ticket_id",),
        {"ticket_id": ("curated", "ticket_id")},
    ),
    "funnel": Table(
        "One row per step; n_in = n_out + n_quarantined + n_dropped + n_merged",
        (
            Column("position", "INTEGER", False, "none", "Order of the steps, from 1"),
            Column("step", "VARCHAR", False, "none", "Name of the step"),
            *_ROWS,
        ),
        ("position",),
    ),
    "conflicts": Table(
        "Tickets of one question with contradicting labels or answers, from `label_check`",
        (
            Column("family_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the tickets of the question"),
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One of them"),
            Column("field", "VARCHAR", False, "none", "What contradicts: category, priority or reply"),
            Column("value", "VARCHAR", False, "none", "Its value; of a reply the sha256 of its normal form"),
            Column("n_family", "BIGINT", False, "none", "Tickets of the question that have a value"),
        ),
    ),
    "label_suspects": Table(
        "Tickets whose label is likely to be wrong, from `label_check`; the least likely labels first",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "The ticket"),
            Column("field", "VARCHAR", False, "none", "What is suspect: category or priority"),
            Column("value", "VARCHAR", False, "none", "Its value"),
            Column("confidence", "DOUBLE", False, "none", "Probability of the value, by the other tickets, 0-1"),
            Column("suggested", "VARCHAR", False, "none", "The likeliest value"),
            Column("suggested_confidence", "DOUBLE", False, "none", "Probability of the likeliest value, 0-1"),
        ),
    ),
    "corrections": Table(
        "People's corrections (`curate.corrections`), and what became of each",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "The ticket, as in curated"),
            Column("do", "VARCHAR", False, "none", "set a field, drop the ticket, or keep it in spite of a rule"),
            Column("field", "VARCHAR", True, "none", "Corrected column"),
            Column("rule", "VARCHAR", True, "none", "Rule in spite of which the ticket is kept"),
            Column("state", "VARCHAR", False, "none", "applied, stale (the source has another value) or unknown"),
            Column("by", "VARCHAR", False, "none", "Who decided"),
            Column("at", "VARCHAR", False, "none", "When, UTC, ISO 8601"),
        ),
    ),
    "semantic_pairs": Table(
        "Tickets with similar meaning, from `dedup.semantic`; none was removed for it",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One ticket"),
            Column("other_id", "VARCHAR", False, "pseudonym", "The other"),
            Column("cosine", "DOUBLE", False, "none", "Similarity of their embeddings"),
        ),
    ),
    "triggers": Table(
        "Tickets of few customers that share a rare phrase and have one label or answer, from `trigger_scan`",
        (
            Column("trigger_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the phrase's tickets"),
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One of them"),
            Column("phrase", "VARCHAR", False, "personal", "The words that they share, in lower case"),
            Column("n_tickets", "BIGINT", False, "none", "Recent tickets with it, of few customers"),
            Column("n_customers", "BIGINT", False, "none", "These customers"),
            Column("n_elsewhere", "BIGINT", False, "none", "Other tickets with it"),
            Column("field", "VARCHAR", False, "none", "What is the same in all of them: category, priority or reply"),
            Column("value", "VARCHAR", False, "personal", "Its value; of replies the run of words that they share"),
            Column("share", "DOUBLE", False, "none", "Of the phrase's tickets, those with the value, 0-1"),
            Column("base_rate", "DOUBLE", False, "none", "Of the other tickets, those with the value, 0-1"),
            Column("chance", "DOUBLE", False, "none", "Probability of as many by chance, all tried values together"),
        ),
    ),
    "strata": Table("Composition of train, validation and test", STRATA),
    "redactions": Table(
        "How many values of each type were redacted in a ticket; without the values",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "As after the step `redact`"),
            Column("type", "VARCHAR", False, "none", "Type of personal data, as in `redact.types`"),
            Column("n_values", "BIGINT", False, "none", "Values replaced in its texts"),
        ),
        ("ticket_id", "type"),
    ),
    "checks": Table(
        "Results of the pipeline's `checks`",
        (
            Column("name", "VARCHAR", False, "none", "Name of the check"),
            Column("uses", "VARCHAR", False, "none", "Kind of check: freshness, volume, nulls, ..."),
            Column("checked_table", "VARCHAR", False, "none", "Table that was checked: raw_tickets or curated"),
            Column("severity", "VARCHAR", False, "none", "What a failure does: warn, or fail the run"),
            Column("status", "VARCHAR", False, "none", "passed, failed, error: not computable, or timed: judged later"),
            Column("observed", "DOUBLE", True, "none", "Measured value, in the unit of the message"),
            Column("n_rows", "BIGINT", False, "none", "Rows of the table"),
            Column("n_failing", "BIGINT", True, "none", "Rows at fault; null where rows are not judged one by one"),
            Column("message", "VARCHAR", False, "none", "Measured value and limit in a sentence"),
        ),
        ("name",),
    ),
    "snapshots": Table(
        "One row per published state of the tickets; only in the published database",
        (_SNAPSHOT, _MADE_AT, Column("run_id", "VARCHAR", True, "none", "Run that published it first"), _CONFIG,
         _N_READ, _N_CURATED),
        ("snapshot_id",),
    ),
    "snapshot_funnel": Table(
        "The funnel of each published state; only in the published database",
        (
            Column("snapshot_id", "VARCHAR", False, "none", "As in snapshots"),
            Column("position", "INTEGER", False, "none", "Order of the steps, from 1"),
            Column("step", "VARCHAR", False, "none", "Name of the step"),
            *_ROWS,
        ),
        ("snapshot_id", "position"),
    ),
    "runs": Table(
        "Runs of the pipeline, up to the one that published this database, which is RUNNING in it",
        (
            Column("run_id", "VARCHAR", False, "none", "As in `tunegate runs`"),
            Column("started_at", "TIMESTAMP", False, "none", "Start, UTC"),
            Column("ended_at", "TIMESTAMP", True, "none", "End, UTC"),
            Column("status", "VARCHAR", False, "none", "RUNNING, DONE, FAILED, INTERRUPTED or SKIPPED"),
            Column("verdict", "VARCHAR", True, "none", "PROMOTE, UNCOMPARED, HOLD, BLOCK or ERROR"),
            Column("exit_code", "BIGINT", True, "none", "As of the command"),
            _CONFIG,
        ),
        ("run_id",),
    ),
}  # fmt: skip
"""References point to earlier tables."""

_FATE = (
    Column("ticket_id", "VARCHAR", True, "pseudonym", "Id in the source; null if the row could not be read that far"),
    *_PLACE,
    Column("split", "VARCHAR", True, "none", "train, validation or test; null if it is not in curated"),
    Column("outcome", "VARCHAR", False, "none", "curated, quarantined, dropped or merged"),
    Column("step", "VARCHAR", True, "none", "Step that removed the row"),
    *(column for column in REMOVED if column.name in ("code", "reason", "kept_id", "score")),
)
_CHANGES = tuple(
    Column(name, kind, True, "none", meaning)
    for name, kind, meaning in (
        ("read_change", "DOUBLE", "Change of n_read since the state before, as a share of it"),
        ("curated_change", "DOUBLE", "Change of n_curated since the state before, as a share of it"),
        ("quarantined_share", "DOUBLE", "Quarantined rows of all steps, as a share of n_read"),
        ("dropped_share", "DOUBLE", "Dropped rows of all steps, as a share of n_read"),
        ("merged_share", "DOUBLE", "Merged rows of all steps, as a share of n_read"),
    )
)
_REMOVED = TABLES["removed"].columns
VIEWS: dict[str, View] = {
    "quarantine": View("Rows set aside as faulty", "SELECT * FROM removed WHERE outcome = 'quarantined'", _REMOVED),
    "dropped": View(
        "Rows dropped by a rule, with its name", "SELECT * FROM removed WHERE outcome = 'dropped'", _REMOVED
    ),
    "merged": View("Rows merged into a kept duplicate", "SELECT * FROM removed WHERE outcome = 'merged'", _REMOVED),
    "leaks": View(
        "Train and validation rows that leaked a test row, and train rows that leaked a validation row",
        "SELECT * FROM removed WHERE step = 'decontaminate'",
        _REMOVED,
    ),
    # Joined by place, not by id: ids may be pseudonyms after `redact`, and rows that could not be read have none.
    "fate": View(
        "Every row read from the source, and what happened to it",
        "SELECT coalesce(raw.ticket_id, gone.ticket_id) AS ticket_id, source, source_line, splits.split, "
        "coalesce(gone.outcome, 'curated') AS outcome, gone.step, gone.code, gone.reason, gone.kept_id, gone.score "
        "FROM raw_tickets raw FULL JOIN removed gone USING (source, source_line) "
        "LEFT JOIN splits USING (source, source_line)",
        _FATE,
    ),
    "not_curated": View("The rows of fate that are not in curated", "SELECT * FROM fate WHERE split IS NULL", _FATE),
    "trends": View(
        "Each published state compared with the one before it",
        "SELECT s.snapshot_id, s.made_at, s.n_read, s.n_curated, "
        "s.n_read / nullif(lag(s.n_read) OVER past, 0) - 1 AS read_change, "
        "s.n_curated / nullif(lag(s.n_curated) OVER past, 0) - 1 AS curated_change, "
        "f.n_quarantined / nullif(s.n_read, 0) AS quarantined_share, "
        "f.n_dropped / nullif(s.n_read, 0) AS dropped_share, f.n_merged / nullif(s.n_read, 0) AS merged_share "
        "FROM snapshots s LEFT JOIN (SELECT snapshot_id, "
        "sum(n_quarantined) AS n_quarantined, sum(n_dropped) AS n_dropped, sum(n_merged) AS n_merged "
        "FROM snapshot_funnel GROUP BY snapshot_id) f USING (snapshot_id) WINDOW past AS (ORDER BY s.made_at, "
        "s.snapshot_id) ORDER BY s.made_at, s.snapshot_id",
        (_SNAPSHOT, _MADE_AT, _N_READ, _N_CURATED, *_CHANGES),
    ),
}


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create empty tables and views, each documented in the database itself; `add_keys` once they are filled."""
    for name, table in TABLES.items():
        declared = ", ".join(
            f"{quote_identifier(column.name)} {column.sql_type}{'' if column.nullable else ' NOT NULL'}"
            for column in table.columns
        )
        connection.execute(f"CREATE TABLE {name} ({declared})")
        connection.execute(f"COMMENT ON TABLE {name} IS {quote_text(table.meaning)}")
        _comment(connection, name, table.columns)
    for name, view in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {view.select}")
        connection.execute(f"COMMENT ON VIEW {name} IS {quote_text(view.meaning)}")
        _comment(connection, name, view.columns)


def add_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the primary keys to filled tables.

    Rows that are inserted into a table with a key are written twice, and the file keeps the space: half as large again.
    """
    for name, table in TABLES.items():
        if table.key:
            connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(map(quote_identifier, table.key))})")


def _comment(connection: duckdb.DuckDBPyConnection, name: str, columns: tuple[Column, ...]) -> None:
    for column in columns:
        comment = quote_text(f"{column.meaning} (PII: {column.pii})")
        connection.execute(f"COMMENT ON COLUMN {name}.{quote_identifier(column.name)} IS {comment}")


def write_markdown() -> str:
    """Return the dictionary with a section per table and view."""
    return "\n".join(["# Tables of the warehouse", "", *_sections()])


def _sections() -> Iterator[str]:
    for kind, relations in (("table", TABLES), ("view", VIEWS)):
        for name, relation in relations.items():
            yield f"## `{name}` ({kind})"
            yield f"\n{relation.meaning}."
            if isinstance(relation, Table) and relation.key:
                yield f"Primary key: {', '.join(f'`{each}`' for each in relation.key)}."
            yield "\n| column | type | null | PII | meaning |\n|---|---|---|---|---|"
            for column in relation.columns:
                null = "yes" if column.nullable else "no"
                yield f"| `{column.name}` | {column.sql_type} | {null} | {column.pii} | {column.meaning} |"
            yield ""


def write_dbt_sources() -> str:
    """Return a dbt `sources.yml` with the tables and views, their tests and PII classes."""
    document = {
        "version": 2,
        "sources": [
            {
                "name": DBT_SOURCE,
                "description": "Warehouse of a tunegate pipeline; attach warehouse.duckdb under this name",
                "database": "warehouse",
                "schema": "main",
                "tables": [_dbt_table(name, each) for name, each in (TABLES | VIEWS).items()],
            }
        ],
    }
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _dbt_table(name: str, relation: Table | View) -> dict[str, Any]:
    key = relation.key if isinstance(relation, Table) else ()
    references = relation.references if isinstance(relation, Table) else {}
    return {
        "name": name,
        "description": relation.meaning,
        "columns": [
            _dbt_column(each, unique=key == (each.name,), reference=references.get(each.name))
            for each in relation.columns
        ],
    }


def _dbt_column(column: Column, *, unique: bool, reference: tuple[str, str] | None) -> dict[str, Any]:
    tests: list[Any] = [*(["not_null"] if not column.nullable else []), *(["unique"] if unique else [])]
    if reference is not None:
        table, target = reference
        tests.append({"relationships": {"to": f"source('{DBT_SOURCE}', '{table}')", "field": target}})
    return {
        "name": column.name,
        "description": column.meaning,
        "data_type": column.sql_type,
        "meta": {"pii": column.pii},
        **({"data_tests": tests} if tests else {}),
    }
