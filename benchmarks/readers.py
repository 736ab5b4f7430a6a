"""`make bench-read`: reading JSON Lines beside others, as ratios on one core, and the rows each loses of a broken file.

The file holds generated tickets, every value text, every row with the same keys: the easiest there is, so that nobody
fails on it. Its broken twin has every hundredth line cut in half. Each reader runs in a process of its own with one
thread, ROUNDS times, and its least CPU time counts (user and system, imports left out). Ours includes the file's
sha256, mapping to ticket columns, the check of every value's type, UTC times and the places of bad rows; the others
make the table they make by themselves, without any of these. QUICK=1: a small file. `--record` or RECORD=1: writes
`benchmarks/results/readers.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.home import PROJECT, bench_home, describe_machine, load

N_TICKETS, N_QUICK = 200_000, 20_000
ROUNDS = 5
LIMIT_S = 300
BREAK_EVERY = 100
COLUMNS = (
    "ticket_id", "customer_id", "thread_id", "created_at", "updated_at", "product", "channel", "subject", "body",
    "reply", "category", "priority", "reference",
)  # fmt: skip
Counts = dict[str, int]
"""`rows`: good rows in the result; `ghosts`: rows in it that no good line stands for; `told`: bad rows with a place."""


def read_tunegate(path: Path) -> Counts:
    from schemas.source import FilesSource
    from tasks.curate.extract import fingerprint_source
    from tasks.curate.readers.columns import TicketMaker
    from tasks.curate.readers.gather import Gathered
    from tasks.curate.readers.read_jsonl import read_jsonl

    source = FilesSource(kind="files", paths=(path.name,))
    fingerprint_source(source, root=path.parent)
    gathered = Gathered(TicketMaker(source))
    gathered.read(path.name, path.stem, read_jsonl(path))
    return {"rows": gathered.tickets().num_rows, "ghosts": 0, "told": gathered.removed().num_rows}


def read_orjson(path: Path) -> Counts:
    import orjson

    n_rows = n_told = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                orjson.loads(line)
                n_rows += 1
            except orjson.JSONDecodeError:
                n_told += 1
    return {"rows": n_rows, "ghosts": 0, "told": n_told}


def read_pyarrow(path: Path) -> Counts:
    import pyarrow.json

    table = pyarrow.json.read_json(path, read_options=pyarrow.json.ReadOptions(use_threads=False))
    return {"rows": table.num_rows, "ghosts": 0, "told": 0}


def read_pandas(path: Path) -> Counts:
    import pandas as pd

    return {"rows": len(pd.read_json(path, lines=True)), "ghosts": 0, "told": 0}


def read_polars(path: Path) -> Counts:
    import polars  # type: ignore[import-not-found]  # measured where it is installed

    return {"rows": len(polars.read_ndjson(path)), "ghosts": 0, "told": 0}


def read_datasets(path: Path) -> Counts:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        return {"rows": len(loaded), "ghosts": 0, "told": 0}


def read_duckdb(path: Path, *, ignore_errors: bool = False) -> Counts:
    import duckdb

    columns = ", ".join(f"{name}: 'VARCHAR'" for name in COLUMNS)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            f"create table t as from read_json(?, format = 'newline_delimited', columns = {{{columns}}}, "
            f"ignore_errors = {ignore_errors})",
            [str(path)],
        )
        row = connection.execute("select count(ticket_id), count(*) - count(ticket_id) from t").fetchone()
    assert row is not None
    return {"rows": int(row[0]), "ghosts": int(row[1]), "told": 0}


def read_duckdb_lenient(path: Path) -> Counts:
    return read_duckdb(path, ignore_errors=True)


READERS: dict[str, tuple[str, Callable[[Path], Counts]]] = {
    "tunegate": ("orjson", read_tunegate),
    "duckdb": ("duckdb", read_duckdb),
    "duckdb ignore_errors": ("duckdb", read_duckdb_lenient),
    "pyarrow.json": ("pyarrow", read_pyarrow),
    "polars": ("polars", read_polars),
    "pandas": ("pandas", read_pandas),
    "datasets": ("datasets", read_datasets),
    "orjson.loads alone": ("orjson", read_orjson),
}
"""Name -> the distribution whose version is shown, and how it reads."""


def main() -> None:
    """Run one reader, as a child of this program, or all of them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--one", nargs=2, metavar=("READER", "FILE"))
    options.add_argument("--record", action="store_true", default=bool(os.environ.get("RECORD")))
    chosen = options.parse_args()
    if chosen.one:
        print(json.dumps(run_here(chosen.one[0], Path(chosen.one[1]))))
        return
    quick = bool(os.environ.get("QUICK"))
    n_tickets = int(os.environ.get("TICKETS") or (N_QUICK if quick else N_TICKETS))
    machine = describe_machine()
    whole, broken = make_files(n_tickets, bench_home() / "corpora")
    results = {name: measure(name, whole, broken) for name in READERS}
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    size_mb = whole.stat().st_size / 1e6
    with whole.open("rb") as stream:
        n_lines = sum(1 for _ in stream)
    n_good = n_lines - n_lines // BREAK_EVERY
    table, summary = as_table(results, size_mb, n_good), summarised(results, size_mb, n_good)
    last = json.dumps({"benchmark": "readers", "mb": round(size_mb, 1), **summary, "machine": machine})
    head = f"{n_lines:,} lines, {size_mb:.0f} MB; in the broken file {n_lines - n_good:,} of them are cut in half."
    print(f"\n{head}\n\n{table}\n")
    if chosen.record:
        record(head, table, machine, last)
    print(last)


def make_files(n_tickets: int, folder: Path) -> tuple[Path, Path]:
    """The file and its broken twin, made once."""
    from schemas.source import GeneratedSource
    from tasks.curate.helpdesk import generate_tickets

    whole, broken = folder / f"read-{n_tickets}.jsonl", folder / f"read-{n_tickets}-broken.jsonl"
    if not broken.exists():
        source = GeneratedSource(kind="generated", n_tickets=n_tickets, n_customers=max(10, n_tickets // 8))
        lines = [line.rstrip(b"\n") for line in generate_tickets(source) if is_plain(line)]
        whole.write_bytes(b"".join(line + b"\n" for line in lines))
        cut = [line[: len(line) // 2] if number % BREAK_EVERY == 0 else line for number, line in enumerate(lines, 1)]
        broken.write_bytes(b"".join(line + b"\n" for line in cut))
    return whole, broken


def is_plain(line: bytes) -> bool:
    """An object with every column, each of them text, and with times that are in the calendar."""
    try:
        row = json.loads(line)
        if (
            not isinstance(row, dict)
            or tuple(row) != COLUMNS
            or not all(isinstance(row[name], str) for name in COLUMNS)
        ):
            return False
        return all(datetime.fromisoformat(row[name]) for name in ("created_at", "updated_at"))
    except ValueError:
        return False


def run_here(name: str, path: Path) -> dict[str, Any]:
    """Least CPU seconds of ROUNDS readings, and what came of the last."""
    _, read = READERS[name]
    times = []
    counts: Counts = {}
    try:
        for _ in range(ROUNDS):
            start = time.process_time()
            counts = read(path)
            times.append(time.process_time() - start)
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    except Exception as error:
        return {"refused": type(error).__name__}
    return {"cpu_s": min(times), **counts}


def measure(name: str, whole: Path, broken: Path) -> dict[str, Any]:
    """Both files through one reader, each in a process of its own."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_IO_THREADS"), "1")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **single, **offline, "PYTHONPATH": str(PROJECT)}
    found: dict[str, Any] = {}
    for kind, path in (("whole", whole), ("broken", broken)):
        command = [sys.executable, "-m", "benchmarks.readers", "--one", name, str(path)]
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        lines = done.stdout.strip().splitlines()
        found[kind] = json.loads(lines[-1]) if done.returncode == 0 and lines else {"refused": "it crashed"}
    print(f"{name}: {found}", flush=True)
    return found


def as_table(results: dict[str, dict[str, Any]], size_mb: float, n_good: int) -> str:
    """One line per reader."""
    ours = results["tunegate"]["whole"]["cpu_s"]
    lines = [
        "| reader | version | MB/s of one core | its CPU time by ours | broken file: good rows lost | ghost rows "
        "| bad rows told with their place |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (distribution, _) in READERS.items():
        whole, broken = results[name]["whole"], results[name]["broken"]
        if "skipped" in whole:
            lines.append(f"| {name} | | skipped: {whole['skipped']} | | | | |")
            continue
        if "cpu_s" not in whole:
            lines.append(f"| {name} | {version_of(distribution)} | refused: {whole['refused']} | | | | |")
            continue
        speed, ratio = size_mb / whole["cpu_s"], whole["cpu_s"] / ours
        if "refused" in broken:
            fate = f"all {n_good:,} ({broken['refused']}) | 0 | 0"
        else:
            fate = f"{n_good - broken['rows']:,} | {broken['ghosts']:,} | {broken['told']:,}"
        lines.append(f"| {name} | {version_of(distribution)} | {speed:.0f} | {ratio:.2f} | {fate} |")
    return "\n".join(lines)


def summarised(results: dict[str, dict[str, Any]], size_mb: float, n_good: int) -> dict[str, Any]:
    """The figures of the table by reader."""
    measured = {name: each for name, each in results.items() if "cpu_s" in each["whole"]}
    ours = measured["tunegate"]["whole"]["cpu_s"]
    return {
        "mb_per_s": {name: round(size_mb / each["whole"]["cpu_s"], 1) for name, each in measured.items()},
        "cpu_time_by_ours": {name: round(each["whole"]["cpu_s"] / ours, 2) for name, each in measured.items()},
        "good_rows_lost": {name: n_good - each["broken"].get("rows", 0) for name, each in measured.items()},
        "ghost_rows": {name: each["broken"].get("ghosts", 0) for name, each in measured.items()},
        "bad_rows_told": {name: each["broken"].get("told", 0) for name, each in measured.items()},
        "skipped": sorted(name for name in results if name not in measured),
    }


def version_of(distribution: str) -> str:
    """Its version, or nothing."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return ""


def record(head: str, table: str, machine: dict[str, str], last: str) -> None:
    """Write `benchmarks/results/readers.md`."""
    path = PROJECT / "benchmarks" / "results" / "readers.md"
    path.parent.mkdir(exist_ok=True)
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    assert __doc__ is not None
    told = " ".join(__doc__.partition("\n\n")[2].split())
    path.write_text(
        f"# Reading JSON Lines\n\nWritten by `make bench-read RECORD=1`. {told}\n\n{facts}\n\n{head}\n\n{table}\n\n"
        f"```json\n{last}\n```\n"
    )
    print(f"wrote {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
