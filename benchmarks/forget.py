"""`make bench-forget`: how long `tunegate data forget CUSTOMER --plan` takes in a workspace of a million rows.

The program's own store creates the workspace: five ticket tables of N rows each as curation leaves them, two splits,
encoded examples, a snapshot and a published warehouse; texts are short, since the plan reads none. It measures the
creation of the index (a run does that, table by table), the plan inside one process, and the whole command. QUICK=1:
fewer rows. RECORD=1: write `results/forget.md`.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import PROJECT, Bench, load, run_measured, table
from flows.graph.keys import KeyParts
from flows.graph.store import Store
from flows.ledger.open import open_ledger
from flows.privacy.index import HomeGraph, update_index
from flows.privacy.keys import hashes_of, load_hashes
from flows.privacy.trace import Tracer
from flows.workspace.settings import Settings, load_settings
from schemas.artifacts import Artifact, DatasetRef, RowCounts, Splits, TicketTable
from tasks.curate.rows import TICKETS_ARROW, write_removed, write_tickets
from tasks.storage.files import sha256_json
from tasks.storage.warehouse import connect, quote_text

N_ROWS, N_QUICK = 1_000_000, 20_000
ROWS_PER_CUSTOMER = 10
ROUNDS = 5
LIMIT_S = 300.0
CUSTOMER = "c00077"
CONFIG = """version: 1
pipelines:
  big:
    source: {kind: files, paths: [tickets.jsonl]}
    train: {base_model: "file:none", method: lora}
    gates: {rules: [{metric: format, value_threshold: 0.0}]}
    register: {name: big}
"""


def main() -> None:
    """Create the workspace, index it, and plan."""
    bench = Bench.begin("forget")
    n_rows = N_QUICK if bench.quick else N_ROWS
    folder = bench.home / f"forget-{n_rows}"
    settings = make_workspace(folder, n_rows)
    hashes = load_hashes(settings)
    index_s, index_cpu_s = _timed(
        lambda: update_index(settings, HomeGraph(settings.home, open_ledger(settings)), hashes)
    )
    plans = [_timed(lambda: plan_forgetting(settings)) for _ in range(ROUNDS)]
    with bench.scratch() as scratch:
        commands = [_command(folder, scratch) for _ in range(ROUNDS)]
    size = sum(file.stat().st_size for file in (settings.home / "index").rglob("*.parquet"))
    seconds = {
        "the plan, in one process, CPU": [cpu_s for _, cpu_s in plans],
        "the plan, in one process, wall": [wall_s for wall_s, _ in plans],
        "`tunegate data forget CUSTOMER --plan`, wall": [wall_s for wall_s, _ in commands],
        "the same, CPU": [cpu_s for _, cpu_s in commands],
    }
    rows = [
        [name, f"{median(each):.2f} s", ", ".join(f"{value:.2f}" for value in sorted(each)), load()]
        for name, each in seconds.items()
    ]
    summary = (
        f"{n_rows:,} rows of {n_rows // ROWS_PER_CUSTOMER:,} customers in each of 5 ticket tables, in 2 splits, a "
        f"snapshot and a warehouse; creating the index took {index_cpu_s:.1f} s of CPU ({index_s:.1f} s wall), and it "
        f"has {size / 2**20:.1f} MiB."
    )
    names = ("plan_cpu_s", "plan_s", "command_s", "command_cpu_s")
    figures = {name: round(median(each), 3) for name, each in zip(names, seconds.values(), strict=True)}
    bench.finish(
        "Finding a customer", f"{summary}\n\n{table(['what', 'median', 'of', 'load'], rows)}",
        {"n_rows": n_rows, **figures, "index_cpu_s": round(index_cpu_s, 2), "index_mib": round(size / 2**20, 1)},
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def plan_forgetting(settings: Settings) -> None:
    """Find one customer's tickets, which must be all of them."""
    owner, forgotten = hashes_of(CUSTOMER, [], load_hashes(settings))
    held = Tracer(settings, forgotten).holdings(owner, forgotten)
    assert held.n_tickets == ROWS_PER_CUSTOMER, held


def _command(folder: Path, scratch: Path) -> tuple[float, float]:
    """Wall seconds and CPU seconds."""
    config = folder / "pipelines.yaml"
    command = [sys.executable, "-m", "flows.cli", "data", "forget", CUSTOMER, "--plan", "--config", config]
    cost = run_measured(command, limit_s=LIMIT_S, environment=os.environ, folder=PROJECT, scratch=scratch)
    if not cost.complete:
        sys.exit(f"tunegate data forget --plan: {cost.failure}")
    return cost.wall_s, cost.cpu_s


def make_workspace(folder: Path, n_rows: int) -> Settings:
    """Create it once; a later call with the same number of rows reuses it, without its index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipelines.yaml").write_text(CONFIG)
    settings = replace(load_settings(folder / "pipelines.yaml"), home=folder / ".tunegate")
    for file in (settings.home / "index").rglob("*.parquet") if (settings.home / "index").exists() else ():
        file.unlink()
    ledger = open_ledger(settings)
    if not ledger.exists():  # results without one are refused
        ledger.accept("new", reason="the benchmark makes the results", actor="benchmarks.forget")
    if (folder / "made").exists():
        return settings
    table = _tickets(n_rows)
    made: Artifact | None = None
    for step in ("extract", "validate", "redact", "rules", "dedup"):
        made = _keep(settings, step, made, lambda out: _table(table, out), TicketTable)
    splits = _keep(settings, "split", made, lambda out: _splits(table, out), Splits)
    clean = _keep(settings, "decontaminate", splits, lambda out: _splits(table, out), Splits)
    _keep(settings, "encode", clean, lambda out: _examples(table, out), DatasetRef)
    _publish(settings, clean)
    (folder / "made").touch()
    return settings


def _tickets(n_rows: int) -> pa.Table:
    numbers = range(n_rows)
    columns: dict[str, object] = {
        name: pa.nulls(n_rows, TICKETS_ARROW.field(name).type) for name in TICKETS_ARROW.names
    }
    columns |= {
        "ticket_id": [f"t{number:07d}" for number in numbers],
        "customer_id": [f"c{number % (n_rows // ROWS_PER_CUSTOMER):05d}" for number in numbers],
        "body": [f"body of ticket {number}" for number in numbers],
        "reply": [f"reply to ticket {number}" for number in numbers],
        "source": ["tickets.jsonl"] * n_rows,
        "source_line": list(numbers),
    }
    return pa.table(columns, schema=TICKETS_ARROW)


def _keep(settings: Settings, step: str, before: Artifact | None, make: Any, kind: type[Artifact]) -> Artifact:
    inputs = {} if before is None else {"before": before.digest}
    parts = KeyParts(step=step, function="benchmark", inputs=inputs, params={}, code={}, libraries={})
    return Store(settings.home).obtain(step, sha256_json([step]), kind, make, parts=parts).artifact


def _table(table: pa.Table, out: Path) -> TicketTable:
    write_removed([], out)
    n_rows = write_tickets(table, out)
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def _splits(table: pa.Table, out: Path) -> Splits:
    n_test = table.num_rows // 10
    write_removed([], out)
    parts = {
        "test": table.slice(0, n_test),
        "validation": table.slice(n_test, n_test),
        "train": table.slice(2 * n_test),
    }
    counts = {f"n_{name}": write_tickets(part, out, name=f"{name}.parquet") for name, part in parts.items()}
    return Splits(root=out, rows=RowCounts(n_in=table.num_rows, n_out=table.num_rows), **counts)


def _examples(table: pa.Table, out: Path) -> DatasetRef:
    ids = table.select(["ticket_id"]).slice(2 * (table.num_rows // 10))
    (out / "train").mkdir()
    with (
        pa.OSFile(str(out / "train" / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, ids.schema) as writer,
    ):
        writer.write_table(ids)
    return DatasetRef(
        root=out, n_train=ids.num_rows, n_validation=0, n_tokens=1, n_supervised=1, n_dropped=0, max_tokens=1
    )


def _publish(settings: Settings, clean: Artifact) -> None:
    snapshot = settings.home / "warehouse" / "big" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (snapshot / f"{name}.parquet").hardlink_to(clean.root / f"{name}.parquet")
    pq.write_table(pa.table({"a": [1]}), snapshot / "funnel.parquet")
    raw = settings.home / "store" / "extract" / sha256_json(["extract"]) / "tickets.parquet"
    (snapshot / "raw_tickets.parquet").hardlink_to(raw)
    with connect(settings.home / "warehouse" / "big" / "warehouse.duckdb", readable=(settings.home,)) as db:
        source = f"read_parquet({quote_text(str(raw))})"
        db.execute(f"CREATE TABLE raw_tickets AS SELECT * FROM {source}")
        db.execute(f"CREATE TABLE curated AS SELECT 'train' AS split, * FROM {source}")


if __name__ == "__main__":
    main()
