"""Publish what curation did as one database and Parquet files: every row read, where it went, and why.

For people: no step reads it. `warehouse_query.py` and any DuckDB client query it; `warehouse_tables.py` declares its
tables. `write_history` adds runs and earlier states, which it reads from the folders of snapshots, so nothing is lost
if the database is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.artifacts import CheckResults, Splits, TicketTable, WarehouseRef
from schemas.data_checks import CheckResult
from schemas.tables import REMOVED_COLUMNS
from tasks.curate.warehouse_tables import TABLES, add_keys, create_tables
from tasks.step import as_step
from tasks.storage.files import sha256_json
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

Curated = tuple[str, TicketTable | Splits]
"""Name of a step, and its result."""

PARQUET = ("duplicates", "funnel", "removed", "splits")
"""Tables written as Parquet as well; the ticket tables are Parquet already, in the results of their steps."""

_WRITTEN_BY_STEPS = ("conflicts", "corrections", "label_suspects", "semantic_pairs", "triggers", "redactions")
"""Tables that steps write next to their tickets, if they are configured to."""
SNAPSHOT = "snapshot.json"
"""In each folder of a snapshot: `snapshot_id`, `made_at`, `run_id` and `config_digest`."""


@as_step("warehouse", libraries=("duckdb", "pyarrow"))
def publish_warehouse(
    out: Path,
    *,
    stages: tuple[TicketTable, ...],
    stage_names: tuple[str, ...],
    split: Splits,
    clean: Splits,
    checks: CheckResults | None = None,
) -> WarehouseRef:
    """Write `warehouse.duckdb`, and the tables of `PARQUET` as Parquet files.

    Every table, view and column has its meaning and PII class as a comment in the database. All tables join to the row
    of the source by source and source_line, and to each other by ticket_id.

    Args:
        stages: Ticket tables in the order of the steps; the first is what was read.
        stage_names: Their step names.
        split: Result of the split.
        clean: The splits after decontamination, which are used for training and testing.
        checks: Results of the pipeline's `checks`.
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
        for name, folder in (
            *((name, step.root) for _, step in steps for name in _WRITTEN_BY_STEPS),
            ("strata", clean.root),
        ):
            path = folder / f"{name}.parquet"
            if path.is_file():
                connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM read_parquet(?)", [str(path.resolve())])
        _insert(connection, "checks", (each.model_dump() for each in (checks.results if checks else ())))
        for name in PARQUET:
            connection.execute(f"COPY (SELECT * FROM {name}) TO {quote_text(str(out / f'{name}.parquet'))}")
        add_keys(connection)
        connection.execute("CHECKPOINT")
    return WarehouseRef(root=out, n_tickets=stages[0].rows.n_in, snapshot_id=snapshot_id)


def publish_partial(out: Path, *, steps: Sequence[Curated], is_redacted: bool) -> Path:
    """Write `warehouse.duckdb` of a curation that has not ended; return its path.

    `curated` has the tickets that the last step left, and no split where there is none yet.

    Args:
        out: The folder.
        steps: The steps so far, `extract` first.
        is_redacted: Whether redaction is among them; if not, `curated` stays empty.
    """
    database, (_, first), (_, last) = out / "warehouse.duckdb", steps[0], steps[-1]
    parts = {"": last.tickets} if isinstance(last, TicketTable) else {
        "train": last.train, "validation": last.validation, "test": last.test
    }  # fmt: skip
    with connect(database, readable=(*(step.root for _, step in steps), out), threads=1) as connection:
        create_tables(connection)
        connection.execute("INSERT INTO snapshot VALUES ('', ?, ?)", [first.rows.n_in, last.rows.n_out])
        if isinstance(first, TicketTable):
            connection.execute(
                "INSERT INTO raw_tickets BY NAME SELECT * FROM read_parquet(?)", [str(first.tickets.resolve())]
            )
        for name, path in parts.items() if is_redacted else ():
            connection.execute(
                "INSERT INTO curated BY NAME SELECT ? AS split, * FROM read_parquet(?)", [name, str(path.resolve())]
            )
        _insert_removed(connection, steps)
        connection.execute("CHECKPOINT")
    return database


def _insert_removed(connection: duckdb.DuckDBPyConnection, steps: Sequence[Curated]) -> None:
    """Fill the tables `removed` and `funnel`."""
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
    """Fill `duplicates` with the rows merged for their similarity and the tickets kept in their place."""
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


def write_history(
    database: Path, *, snapshots: Path, runs: Iterable[Mapping[str, Any]], checks: Sequence[CheckResult]
) -> None:
    """Fill `runs`, `snapshots` and `snapshot_funnel`, and replace the results of checks.

    Args:
        database: A copy of the warehouse that no other process has open.
        snapshots: Folder with a folder per snapshot.
        runs: Rows of `runs`.
        checks: Results as they are now.
    """
    folders = sorted(path.parent for path in snapshots.glob(f"*/{SNAPSHOT}") if not path.parent.name.startswith("."))
    with connect(database, readable=(snapshots,), threads=1) as connection:
        _insert(connection, "runs", runs)
        connection.execute("DELETE FROM checks")
        _insert(connection, "checks", (each.model_dump() for each in checks))
        for folder in folders:
            facts = orjson.loads((folder / SNAPSHOT).read_bytes())
            # The folder's name, since forgetting a customer may have renamed it.
            facts = {**facts, "snapshot_id": folder.name, "funnel": str((folder / "funnel.parquet").resolve())}
            connection.execute(
                "INSERT INTO snapshot_funnel SELECT $snapshot_id, position, step, n_in, n_out, n_quarantined, "
                "n_dropped, n_merged FROM read_parquet($funnel)",
                {"snapshot_id": facts["snapshot_id"], "funnel": facts["funnel"]},
            )
            connection.execute(
                "INSERT INTO snapshots SELECT $snapshot_id, $made_at::TIMESTAMPTZ::TIMESTAMP, $run_id, $config_digest, "
                "arg_min(n_in, position), arg_max(n_out, position) FROM snapshot_funnel "
                "WHERE snapshot_id = $snapshot_id",
                {name: facts[name] for name in ("snapshot_id", "made_at", "run_id", "config_digest")},
            )
        connection.execute("CHECKPOINT")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    columns = TABLES[table].columns
    names = ", ".join(quote_identifier(column.name) for column in columns)
    values = ", ".join("?::TIMESTAMPTZ::TIMESTAMP" if column.sql_type == "TIMESTAMP" else "?" for column in columns)
    for row in rows:
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", [row[column.name] for column in columns])
