"""What curation did, as one database and Parquet files for people: every row read, where it went, and why.

It decides nothing about tickets. No step reads what it writes. Called by `flows/curate.py`; `tasks/curate/ask.py`
answers questions from it, and so does any DuckDB client. duckdb is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import Splits, TicketTable, WarehouseRef
from schemas.tables import REMOVED, REMOVED_COLUMNS, STRATA, TICKETS, Column
from tasks.files import sha256_json
from tasks.step import as_step
from tasks.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

    Curated = tuple[str, TicketTable | Splits]

PARQUET = ("duplicates", "funnel", "removed", "splits")
"""Tables written as Parquet as well; the ticket tables are Parquet already, in the results of their steps."""

_BESIDE = ("conflicts", "label_suspects", "semantic_pairs", "triggers")
"""What steps write beside their tickets, where they are asked to."""

_PLACE = (
    Column("source", "VARCHAR", True, "none", "File or table the row came from"),
    Column("source_line", "BIGINT", True, "none", "Line (1-based) or row number in that source"),
)
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "snapshot": (
        "One row: which state of the tickets this database shows",
        (
            Column("snapshot_id", "VARCHAR", False, "none", "Digest of every step's rows: equal id, equal tables"),
            Column("n_read", "BIGINT", False, "none", "Rows read from the source"),
            Column("n_curated", "BIGINT", False, "none", "Rows of train, validation and test"),
        ),
    ),
    "raw_tickets": ("Every row that could be read, as it came: not redacted", TICKETS),
    "curated": (
        "Train, validation and test rows after every step",
        (Column("split", "VARCHAR", False, "none", "train, validation or test"), *TICKETS),
    ),
    "removed": (
        "Every row that is not in curated, with the step and the reason; views by outcome: quarantine, dropped, merged",
        (Column("step", "VARCHAR", False, "none", "Step that removed the row"), *REMOVED),
    ),
    "duplicates": (
        "Members of duplicate clusters; the kept ones name themselves",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "A member of the cluster"),
            Column("cluster_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the cluster"),
            Column("kept_id", "VARCHAR", False, "pseudonym", "Ticket kept in its place"),
            Column("jaccard", "DOUBLE", False, "none", "Similarity of the two questions, 0-1; 1 for equal ones"),
            *_PLACE,
        ),
    ),
    "splits": (
        "Which of train, validation and test a ticket is in",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "As in curated"),
            Column("split", "VARCHAR", False, "none", "train, validation or test"),
            *_PLACE,
        ),
    ),
    "funnel": (
        "One row per step; n_in = n_out + n_quarantined + n_dropped + n_merged",
        (
            Column("position", "INTEGER", False, "none", "Order of the steps, from 1"),
            Column("step", "VARCHAR", False, "none", "Name of the step"),
            *(
                Column(name, "BIGINT", False, "none", meaning)
                for name, meaning in (
                    ("n_in", "Rows that came in"),
                    ("n_out", "Rows that went on"),
                    ("n_quarantined", "Rows set aside as faulty"),
                    ("n_dropped", "Rows dropped by a rule"),
                    ("n_merged", "Rows merged into a kept duplicate"),
                )
            ),
        ),
    ),
    "conflicts": (
        "Tickets of one question with contradicting labels or answers, from `label_check`",
        (
            Column("family_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the tickets of the question"),
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One of them"),
            Column("field", "VARCHAR", False, "none", "What contradicts: category, priority or reply"),
            Column("value", "VARCHAR", False, "none", "Its value; of a reply the sha256 of its normal form"),
            Column("n_family", "BIGINT", False, "none", "Tickets of the question that have a value"),
        ),
    ),
    "label_suspects": (
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
    "semantic_pairs": (
        "Tickets alike in meaning, from `dedup.semantic`; none was removed for it",
        (
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One ticket"),
            Column("other_id", "VARCHAR", False, "pseudonym", "The other"),
            Column("cosine", "DOUBLE", False, "none", "Similarity of their embeddings"),
        ),
    ),
    "triggers": (
        "Tickets of few customers that share a rare phrase and have one label or answer, from `trigger_scan`",
        (
            Column("trigger_id", "VARCHAR", False, "pseudonym", "Smallest ticket_id of the phrase's tickets"),
            Column("ticket_id", "VARCHAR", False, "pseudonym", "One of them"),
            Column("phrase", "VARCHAR", False, "personal", "The words that they share, in lower case"),
            Column("n_tickets", "BIGINT", False, "none", "Recent tickets with it, of few customers"),
            Column("n_customers", "BIGINT", False, "none", "These customers"),
            Column("n_elsewhere", "BIGINT", False, "none", "Other tickets with it"),
            Column("field", "VARCHAR", False, "none", "What is one and the same: category, priority or reply"),
            Column("value", "VARCHAR", False, "personal", "Its value; of replies the run of words that they share"),
            Column("share", "DOUBLE", False, "none", "Of the phrase's tickets, those with the value, 0-1"),
            Column("base_rate", "DOUBLE", False, "none", "Of the other tickets, those with the value, 0-1"),
            Column("chance", "DOUBLE", False, "none", "Probability of as many by chance, all tried values together"),
        ),
    ),
    "strata": ("How train, validation and test are made up", STRATA),
}
_VIEWS = {
    "quarantine": ("Rows set aside as faulty", "SELECT * FROM removed WHERE outcome = 'quarantined'"),
    "dropped": ("Rows dropped by a rule, with its name", "SELECT * FROM removed WHERE outcome = 'dropped'"),
    "merged": ("Rows merged into a kept duplicate", "SELECT * FROM removed WHERE outcome = 'merged'"),
    "leaks": (
        "Train and validation rows that gave a held-out row away",
        "SELECT * FROM removed WHERE step = 'decontaminate'",
    ),
    # By place and not by id: ids may be pseudonyms after `redact`, and rows that could not be read have none.
    "fate": (
        "Every row read from the source, and what became of it",
        "SELECT coalesce(raw.ticket_id, gone.ticket_id) AS ticket_id, source, source_line, splits.split, "
        "coalesce(gone.outcome, 'curated') AS outcome, gone.step, gone.code, gone.reason, gone.kept_id, gone.score "
        "FROM raw_tickets raw FULL JOIN removed gone USING (source, source_line) "
        "LEFT JOIN splits USING (source, source_line)",
    ),
    "not_curated": ("The rows of fate that are not in curated", "SELECT * FROM fate WHERE split IS NULL"),
}


@as_step("warehouse", libraries=("duckdb", "pyarrow"))
def publish_warehouse(
    out: Path, *, stages: tuple[TicketTable, ...], stage_names: tuple[str, ...], split: Splits, clean: Splits
) -> WarehouseRef:
    """Write `warehouse.duckdb`, and `PARQUET` of its tables as Parquet beside it.

    Every table, view and column carries its meaning and PII class as a comment in the database. All tables join to
    the row of the source by source and source_line, and to each other by ticket_id.

    Args:
        stages: Ticket tables in the order of the steps; the first is what was read.
        stage_names: Their step names.
        split: Result of the split.
        clean: The splits after decontamination, the ones that are trained and tested on.
    """
    steps: list[Curated] = [*zip(stage_names, stages, strict=True), ("split", split), ("decontaminate", clean)]
    snapshot_id = sha256_json([[name, step.digest, step.rows.model_dump()] for name, step in steps])[:16]
    n_curated = clean.n_train + clean.n_validation + clean.n_test
    database = out / "warehouse.duckdb"
    readable = (*(step.root for _, step in steps), out)
    with connect(database, readable=readable, threads=1) as connection:
        create_tables(connection)
        connection.execute("INSERT INTO snapshot VALUES (?, ?, ?)", [snapshot_id, stages[0].rows.n_in, n_curated])
        connection.execute(
            "INSERT INTO raw_tickets BY NAME SELECT * FROM read_parquet(?)", [str(stages[0].tickets.resolve())]
        )
        for name, path in (("train", clean.train), ("validation", clean.validation), ("test", clean.test)):
            connection.execute(
                "INSERT INTO curated BY NAME SELECT ? AS split, * FROM read_parquet(?)", [name, str(path.resolve())]
            )
        connection.execute("INSERT INTO splits BY NAME SELECT ticket_id, split, source, source_line FROM curated")
        _insert_removed(connection, steps)
        _insert_duplicates(connection)
        for name, folder in (*((name, step.root) for _, step in steps for name in _BESIDE), ("strata", clean.root)):
            path = folder / f"{name}.parquet"
            if path.is_file():
                connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM read_parquet(?)", [str(path.resolve())])
        for name in PARQUET:
            connection.execute(f"COPY (SELECT * FROM {name}) TO {quote_text(str(out / f'{name}.parquet'))}")
        connection.execute("CHECKPOINT")
    return WarehouseRef(root=out, n_tickets=stages[0].rows.n_in, snapshot_id=snapshot_id)


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Empty tables and views, each documented in the database itself."""
    for name, (meaning, columns) in TABLES.items():
        declared = ", ".join(
            f"{quote_identifier(column.name)} {column.sql_type}{'' if column.nullable else ' NOT NULL'}"
            for column in columns
        )
        connection.execute(f"CREATE TABLE {name} ({declared})")
        connection.execute(f"COMMENT ON TABLE {name} IS {quote_text(meaning)}")
        for column in columns:
            told = quote_text(f"{column.meaning} (PII: {column.pii})")
            connection.execute(f"COMMENT ON COLUMN {name}.{quote_identifier(column.name)} IS {told}")
    for name, (meaning, select) in _VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {select}")
        connection.execute(f"COMMENT ON VIEW {name} IS {quote_text(meaning)}")


def _insert_removed(connection: duckdb.DuckDBPyConnection, steps: Sequence[Curated]) -> None:
    """Tables `removed` and `funnel`."""
    for position, (name, step) in enumerate(steps, start=1):
        connection.execute(
            f"INSERT INTO removed SELECT ?, {', '.join(REMOVED_COLUMNS)} FROM read_parquet(?)",
            [name, str(step.removed.resolve())],
        )
        rows = step.rows
        connection.execute(
            "INSERT INTO funnel VALUES (?, ?, ?, ?, ?, ?, ?)",
            [position, name, rows.n_in, rows.n_out, rows.n_quarantined, rows.n_dropped, rows.n_merged],
        )


def _insert_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Rows merged for their similarity, and the tickets that were kept for them."""
    connection.execute(
        "INSERT INTO duplicates WITH gone AS ("
        "SELECT * FROM removed WHERE outcome = 'merged' AND cluster_id IS NOT NULL) "
        "SELECT ticket_id, cluster_id, kept_id, score, source, source_line FROM gone UNION ALL "
        "SELECT kept_id, cluster_id, kept_id, 1.0, min(source), min(source_line) FROM ("
        "SELECT DISTINCT kept_id, cluster_id FROM gone) LEFT JOIN ("
        "SELECT ticket_id, source, source_line FROM curated UNION ALL "
        "SELECT ticket_id, source, source_line FROM removed WHERE outcome = 'dropped') "
        "ON ticket_id = kept_id GROUP BY kept_id, cluster_id ORDER BY ALL"
    )
