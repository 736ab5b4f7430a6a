"""`make bench-curate`: CPU seconds of every curation step over 200,000 generated tickets, and of the stage.

The stage runs `ROUNDS` times, each in a fresh process (`benchmarks/stage.py`); the table shows medians, the last line
is one JSON object. QUICK=1: 20,000 tickets, one round. RECORD=1: writes `benchmarks/results/curate.md`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.home import PROJECT, bench_home, describe_machine, load
from benchmarks.measure import Cost, run_measured
from benchmarks.tickets import ticket_files

N_TICKETS, N_QUICK, N_WARM = 200_000, 20_000, 500
ROUNDS = 3
BAR_CPU_S = 20.0
"""The stage's goal at 200,000 tickets: redaction to decontamination, without reading and validating."""
LIMIT_S = 900.0
Lines = list[dict[str, object]]


def main() -> None:
    """Run the stage and tell."""
    quick, home = bool(os.environ.get("QUICK")), bench_home()
    n_tickets = int(os.environ.get("TICKETS") or (N_QUICK if quick else N_TICKETS))
    machine = describe_machine()
    run_once(N_WARM, home)  # compiled kernels and bytecode are there when it counts
    runs = [run_once(n_tickets, home) for _ in range(1 if quick else ROUNDS)]
    lines = _medians([lines for lines, _ in runs])
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    last = json.dumps({**summary(lines, [cost for _, cost in runs], n_tickets), "machine": machine})
    table = as_table(lines, n_tickets)
    print(f"\n## {n_tickets:,} tickets, {len(runs)} rounds\n\n{table}\n")
    if os.environ.get("RECORD"):
        path = PROJECT / "benchmarks" / "results" / "curate.md"
        path.parent.mkdir(exist_ok=True)
        facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
        told = "Written by `make bench-curate RECORD=1`; what the figures mean: `benchmarks/README.md`."
        head = f"{n_tickets:,} tickets, medians of {len(runs)} rounds."
        path.write_text(f"# The curation stage\n\n{told}\n\n{facts}\n\n{head}\n\n{table}\n\n```json\n{last}\n```\n")
        print(f"wrote {path.relative_to(PROJECT)}")
    print(last)


def run_once(n_tickets: int, home: Path) -> tuple[Lines, Cost]:
    """The stage in a process of its own; what each step cost, and the process as a whole."""
    files = ticket_files(n_tickets, home / "corpora")
    with tempfile.TemporaryDirectory(dir=home / "scratch") as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "0", "TMPDIR": scratch}
        command = [sys.executable, "-m", "benchmarks.stage", *map(str, files), str(out)]
        cost = run_measured(command, limit_s=LIMIT_S, environment=environment, folder=PROJECT, scratch=Path(scratch))
    if not cost.complete:
        told = f"over {LIMIT_S:.0f} s" if cost.code is None else cost.stderr
        sys.exit(f"the stage did not end with {n_tickets} tickets: {told}")
    return json.loads(cost.stdout.splitlines()[-1]), cost


def summary(lines: Lines, costs: list[Cost], n_tickets: int) -> dict[str, object]:
    """The figures of the last line; `cpu_s` is the sum the bar is about."""
    cpu_s = sum(line["cpu_s"] or 0.0 for line in lines if line["counts"])
    return {
        "n_tickets": n_tickets,
        "cpu_s": round(cpu_s, 2),
        "bar_cpu_s": BAR_CPU_S if n_tickets == N_TICKETS else None,
        "within_bar": cpu_s <= BAR_CPU_S if n_tickets == N_TICKETS else None,
        "tickets_per_cpu_s": round(n_tickets / cpu_s),
        "tickets_per_s": round(n_tickets / sum(line["wall_s"] or 0.0 for line in lines if line["counts"])),
        "process_cpu_s": round(median(cost.cpu_s for cost in costs), 2),
        "peak_mb": round(median(cost.peak_mb for cost in costs)),
        "not_there": [line["step"] for line in lines if line["told"]],
        "steps": {str(line["step"]): line["cpu_s"] for line in lines},
    }


def as_table(lines: Lines, n_tickets: int) -> str:
    """A line for each step; those apart are not in the sum."""
    rows = ["| step | CPU s | wall s | tickets per CPU-s | in | out |", "|---|---|---|---|---|---|"]
    for line in lines:
        name = str(line["step"]) + ("" if line["counts"] else " (apart)")
        if line["told"]:
            rows.append(f"| {name} | {line['told']} | | | | |")
            continue
        speed = f"{line['n_in'] / max(line['cpu_s'], 1e-3):,.0f}"
        rows.append(
            f"| {name} | {line['cpu_s']:.2f} | {line['wall_s']:.2f} | {speed} | {line['n_in']:,} | {line['n_out']:,} |"
        )
    cpu_s, wall_s = (sum(line[key] or 0.0 for line in lines if line["counts"]) for key in ("cpu_s", "wall_s"))
    missing = ", without the steps that are not there" if any(line["told"] for line in lines) else ""
    rows.append(f"| **stage{missing}** | **{cpu_s:.2f}** | {wall_s:.2f} | {n_tickets / cpu_s:,.0f} | {n_tickets:,} | |")
    if n_tickets == N_TICKETS:
        rows.append(f"| bar | {BAR_CPU_S:.2f} | | | | |")
    return "\n".join(rows)


def _medians(runs: list[Lines]) -> Lines:
    """Each step's median over the rounds."""
    merged = []
    for same in zip(*runs, strict=True):
        line = dict(same[0])
        for key in ("cpu_s", "wall_s"):
            if line[key] is not None:
                line[key] = round(median(each[key] for each in same), 3)
        merged.append(line)
    return merged


if __name__ == "__main__":
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmarks read /proc: they need Linux")
    main()
