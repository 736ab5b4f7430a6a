"""`make bench-read`: compare readers of JSON Lines on one core, and count the rows that each loses in a broken file.

The file has generated tickets with text values only and the same keys in every row: the easiest case, so that every
reader can read it. In its broken copy every hundredth line is cut in half. Each reader runs in its own process with one
thread, ROUNDS times, and its smallest CPU time counts (user and system, without imports). Ours includes the file's
sha256, mapping to ticket columns, checking every value's type, UTC times and the places of bad rows; the others create
their default table, without any of these. QUICK=1: a small file. RECORD=1: write `results/readers.md`.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import PROJECT, Bench, report, run_measured, table, version_of

N_TICKETS, N_QUICK = 200_000, 20_000
ROUNDS = 5
LIMIT_S = 300.0
BREAK_EVERY = 100
COLUMNS = (
    "ticket_id", "customer_id", "thread_id", "created_at", "updated_at", "product", "channel", "subject", "body",
    "reply", "category", "priority", "reference",
)  # fmt: skip


def counts(n_rows: int, *, ghosts: int = 0, reported: int = 0) -> dict[str, int]:
    """`rows`: good rows in the result; `ghosts`: rows without a good line; `reported`: bad rows with their place."""
    return {"rows": n_rows, "ghosts": ghosts, "reported": reported}


def read_tunegate(path: Path) -> dict[str, int]:
    from schemas.source import FilesSource
    from tasks.curate.gather import Gathered
    from tasks.sources.readers.columns import TicketMaker
    from tasks.sources.readers.read_jsonl import read_jsonl
    from tasks.sources.registry import fingerprint_source

    source = FilesSource(kind="files", paths=(path.name,))
    fingerprint_source(source, root=path.parent)
    gathered = Gathered(TicketMaker(source))
    gathered.read(path.name, path.stem, read_jsonl(path))
    return counts(gathered.tickets().num_rows, reported=gathered.removed().num_rows)


def read_orjson(path: Path) -> dict[str, int]:
    import orjson

    n_rows = n_bad = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                orjson.loads(line)
                n_rows += 1
            except orjson.JSONDecodeError:
                n_bad += 1
    return counts(n_rows, reported=n_bad)


def read_pyarrow(path: Path) -> dict[str, int]:
    import pyarrow.json

    options = pyarrow.json.ReadOptions(use_threads=False)
    return counts(pyarrow.json.read_json(path, read_options=options).num_rows)


def read_pandas(path: Path) -> dict[str, int]:
    import pandas as pd

    return counts(len(pd.read_json(path, lines=True)))


def read_polars(path: Path) -> dict[str, int]:
    import polars  # type: ignore[import-not-found]  # measured if it is installed

    return counts(len(polars.read_ndjson(path)))


def read_datasets(path: Path) -> dict[str, int]:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        return counts(len(datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)))


def read_duckdb(path: Path, *, ignore_errors: bool = False) -> dict[str, int]:
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
    return counts(int(row[0]), ghosts=int(row[1]))


def read_duckdb_lenient(path: Path) -> dict[str, int]:
    return read_duckdb(path, ignore_errors=True)


READERS: dict[str, tuple[str, Callable[[Path], dict[str, int]]]] = {
    "tunegate": ("orjson", read_tunegate),
    "duckdb": ("duckdb", read_duckdb),
    "duckdb ignore_errors": ("duckdb", read_duckdb_lenient),
    "pyarrow.json": ("pyarrow", read_pyarrow),
    "polars": ("polars", read_polars),
    "pandas": ("pandas", read_pandas),
    "datasets": ("datasets", read_datasets),
    "orjson.loads alone": ("orjson", read_orjson),
}
"""Name -> the distribution whose version is shown, and the reader."""


def main() -> None:
    """Read both files with every reader."""
    bench = Bench.begin("read")
    n_tickets = int(os.environ.get("TICKETS") or (N_QUICK if bench.quick else N_TICKETS))
    files = make_files(n_tickets, bench.home / "corpora")
    with bench.scratch() as scratch:
        results = {name: measure(name, files, scratch) for name in READERS}
    size_mb = files["whole"].stat().st_size / 1e6
    with files["whole"].open("rb") as stream:
        n_lines = sum(1 for _ in stream)
    n_good = n_lines - n_lines // BREAK_EVERY
    size = f"{n_lines:,} lines, {size_mb:.0f} MB; in the broken file {n_lines - n_good:,} of them are cut in half."
    bench.finish(
        "Reading JSON Lines", f"{size}\n\n{as_table(results, size_mb, n_good)}",
        {"benchmark": "readers", "mb": round(size_mb, 1), **summary(results, size_mb, n_good)},
        page="readers", head=" ".join((__doc__ or "").partition("\n\n")[2].split()),
    )  # fmt: skip


def make_files(n_tickets: int, folder: Path) -> dict[str, Path]:
    """The file and its broken copy, created once."""
    from schemas.source import GeneratedSource
    from tasks.sources.helpdesk import generate_tickets

    whole, broken = folder / f"read-{n_tickets}.jsonl", folder / f"read-{n_tickets}-broken.jsonl"
    if not broken.exists():
        source = GeneratedSource(kind="generated", n_tickets=n_tickets, n_customers=max(10, n_tickets // 8))
        lines = [line.rstrip(b"\n") for line in generate_tickets(source) if is_plain(line)]
        whole.write_bytes(b"".join(line + b"\n" for line in lines))
        cut = [line[: len(line) // 2] if number % BREAK_EVERY == 0 else line for number, line in enumerate(lines, 1)]
        broken.write_bytes(b"".join(line + b"\n" for line in cut))
    return {"whole": whole, "broken": broken}


def is_plain(line: bytes) -> bool:
    """Whether the line is an object with every column, all of them text, and valid times."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or tuple(row) != COLUMNS:
            return False
        if not all(isinstance(row[name], str) for name in COLUMNS):
            return False
        return all(datetime.fromisoformat(row[name]) for name in ("created_at", "updated_at"))
    except ValueError:
        return False


def read_here(name: str, path: Path) -> dict[str, Any]:
    """Smallest CPU seconds of ROUNDS readings, and the last result; runs in its own process."""
    _, read = READERS[name]
    times = []
    found: dict[str, int] = {}
    try:
        for _ in range(ROUNDS):
            start = time.process_time()
            found = read(path)
            times.append(time.process_time() - start)
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    except Exception as error:
        return {"refused": type(error).__name__}
    return {"cpu_s": min(times), **found}


def measure(name: str, files: dict[str, Path], scratch: Path) -> dict[str, Any]:
    """Read both files with one reader."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_IO_THREADS"), "1")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **single, **offline, "PYTHONPATH": str(PROJECT)}
    found: dict[str, Any] = {}
    for kind, path in files.items():
        command = [sys.executable, "-m", "benchmarks.read", name, path]
        cost = run_measured(command, limit_s=LIMIT_S, environment=environment, folder=PROJECT, scratch=scratch)
        lines = cost.stdout.strip().splitlines()
        crashed = {"refused": "it crashed" if cost.code is not None else cost.failure}
        found[kind] = json.loads(lines[-1]) if cost.complete and lines else crashed
    report(f"{name}: {found}")
    return found


def as_table(results: dict[str, dict[str, Any]], size_mb: float, n_good: int) -> str:
    """One row per reader."""
    ours = results["tunegate"]["whole"]["cpu_s"]
    rows: list[list[object]] = []
    for name, (distribution, _) in READERS.items():
        whole, broken = results[name]["whole"], results[name]["broken"]
        if "skipped" in whole:
            rows.append([name, "", f"skipped: {whole['skipped']}"])
        elif "cpu_s" not in whole:
            rows.append([name, version_of(distribution), f"refused: {whole['refused']}"])
        else:
            refused = [f"all {n_good:,} ({broken.get('refused')})", 0, 0]
            fate = refused if "refused" in broken else [
                f"{n_good - broken['rows']:,}", f"{broken['ghosts']:,}", f"{broken['reported']:,}",
            ]  # fmt: skip
            speed, ratio = f"{size_mb / whole['cpu_s']:.0f}", f"{whole['cpu_s'] / ours:.2f}"
            rows.append([name, version_of(distribution), speed, ratio, *fate])
    names = (
        "reader", "version", "MB/s on one core", "its CPU time over ours", "broken file: good rows lost", "ghost rows",
        "bad rows reported with their place",
    )  # fmt: skip
    return table(names, rows)


def summary(results: dict[str, dict[str, Any]], size_mb: float, n_good: int) -> dict[str, Any]:
    """The table's figures by reader."""
    measured = {name: each for name, each in results.items() if "cpu_s" in each["whole"]}
    ours = measured["tunegate"]["whole"]["cpu_s"]
    return {
        "mb_per_s": {name: round(size_mb / each["whole"]["cpu_s"], 1) for name, each in measured.items()},
        "cpu_time_by_ours": {name: round(each["whole"]["cpu_s"] / ours, 2) for name, each in measured.items()},
        "good_rows_lost": {name: n_good - each["broken"].get("rows", 0) for name, each in measured.items()},
        "ghost_rows": {name: each["broken"].get("ghosts", 0) for name, each in measured.items()},
        "bad_rows_reported": {name: each["broken"].get("reported", 0) for name, each in measured.items()},
        "skipped": sorted(name for name in results if name not in measured),
    }


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(read_here(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
