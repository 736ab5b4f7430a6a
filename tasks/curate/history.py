"""Complete a published warehouse: runs, earlier states of the tickets, and checks judged by the clock.

Earlier states come from the folders of snapshots, so nothing is lost if the database is. Called by
`flows/run/publish.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from schemas.data_checks import CheckResult
from tasks.curate.warehouse_tables import TABLES
from tasks.warehouse import connect, quote_identifier

SNAPSHOT = "snapshot.json"
"""In each folder of a snapshot: `snapshot_id`, `made_at`, and since this table exists `run_id` and `config_digest`."""


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
    folders = [folder for folder in folders if (folder / "funnel.parquet").is_file()]
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
                {name: facts.get(name) for name in ("snapshot_id", "made_at", "run_id", "config_digest")},
            )
        connection.execute("CHECKPOINT")


def _insert(connection: Any, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    columns = TABLES[table].columns
    names = ", ".join(quote_identifier(column.name) for column in columns)
    values = ", ".join("?::TIMESTAMPTZ::TIMESTAMP" if column.sql_type == "TIMESTAMP" else "?" for column in columns)
    for row in rows:
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", [row[column.name] for column in columns])
