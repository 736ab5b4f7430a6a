"""`make bench-scale`: redaction and dedup by `engine: local` and by `engine: ray`, at 200,000 to 5 million tickets.

Ray has two nodes of one processor on this machine, local the same two processors. Each run is a fresh driver; the
nodes stay up. Wall time is the step's, without joining the cluster and looking at its nodes, which is told apart. CPU
seconds of the driver are of its whole process, those of the nodes of all processes of Ray and of its workers. The
digests of what the two engines wrote must be equal. The last line is one JSON object.

QUICK=1: 20,000 and 100,000 tickets. SIZES=200000,1000000: these. RECORD=1: writes `benchmarks/results/scale.md`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.home import PROJECT, bench_home, describe_machine, load
from benchmarks.measure import Sampler, run_measured
from benchmarks.scale_tickets import scale_table

SIZES, QUICK_SIZES, WARM = (200_000, 1_000_000, 5_000_000), (20_000, 100_000), 2_000
STEPS, ENGINES = ("redact", "dedup"), ("local", "ray")
LIMIT_S = 900.0
STORE_BYTES = 4 << 30
BUSY = 3.0
"""Load average from which wall times of two processors compare little."""
SAMPLE_S = 0.3
"""Of nodes and drivers: Ray's processes have hundreds of threads, and looking at them takes time from the measured."""


@dataclass(frozen=True)
class Run:
    """One step by one engine."""

    n_tickets: int
    step: str
    engine: str
    wall_s: float
    join_s: float
    driver_cpu_s: float
    nodes_cpu_s: float
    moved_mb: float
    peak_mb: float
    own_mb: float
    """Of the driver's peak, without what is Ray's store."""
    n_out: int
    digest: str
    told: str = ""
    """Why there is no figure."""


@dataclass(frozen=True)
class Nodes:
    """A running cluster."""

    address: str
    shared: str
    samplers: tuple[Sampler, ...]
    """One for each process of Ray and its workers: nobody waits for these, so that nobody sums up what they used."""

    def cpu_s(self) -> float:
        """Of all its processes so far."""
        return sum(sampler.cpu_s for sampler in self.samplers)


def main() -> None:
    """Run all and tell."""
    quick, home = bool(os.environ.get("QUICK")), bench_home()
    chosen = os.environ.get("SIZES")
    sizes = tuple(map(int, chosen.split(","))) if chosen else QUICK_SIZES if quick else SIZES
    machine = describe_machine()
    with tempfile.TemporaryDirectory(dir=home / "scratch") as scratch, two_nodes(Path(scratch)) as nodes:
        tables = {size: scale_table(size, home / "corpora").root for size in (WARM, *sizes)}
        for step in STEPS:
            for engine in ENGINES:  # compiled kernels and bytecode are there when it counts
                measure(WARM, tables[WARM], step, engine, nodes, Path(scratch))
        runs = []
        for size in sizes:
            for step in STEPS:
                for engine in ENGINES:
                    runs.append(measure(size, tables[size], step, engine, nodes, Path(scratch)))
                    print(as_row(runs[-1]), file=sys.stderr)
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    last = json.dumps({**summary(runs), "machine": machine})
    table = as_table(runs)
    print(f"\n{table}\n\n{told(runs)}\n")
    if os.environ.get("RECORD"):
        record(table, told(runs), machine, last)
    print(last)


def measure(n_tickets: int, table: Path, step: str, engine: str, nodes: Nodes, scratch: Path) -> Run:
    """One run in a process of its own."""
    out = scratch / "out"
    place = [nodes.address, nodes.shared] if engine == "ray" else []
    command = [sys.executable, "-m", "benchmarks.scale_run", step, engine, str(table), str(out), *place]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "0", "TMPDIR": str(scratch)}
    before = nodes.cpu_s()
    cost = run_measured(
        command, limit_s=LIMIT_S, environment=environment, folder=PROJECT, scratch=scratch, every_s=SAMPLE_S
    )
    nodes_cpu_s = nodes.cpu_s() - before if engine == "ray" else 0.0
    shutil.rmtree(out, ignore_errors=True)
    if not cost.complete:
        why = f"over {LIMIT_S:.0f} s" if cost.code is None else cost.stderr.strip().splitlines()[-1][:120]
        return Run(n_tickets, step, engine, 0, 0, 0, 0, 0, cost.peak_mb, cost.own_peak_mb, 0, "", f"did not end: {why}")
    found = json.loads(cost.stdout.splitlines()[-1])
    return Run(
        n_tickets, step, engine, found["step_s"], found["join_s"], cost.cpu_s, nodes_cpu_s, found["moved_mb"],
        cost.peak_mb, cost.own_peak_mb, found["n_out"], found["digest"],
    )  # fmt: skip


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster of two nodes of one processor each."""
    # Workers are nice by default: beside anything else on the machine they would wait, and the local run would not.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    from ray.cluster_utils import Cluster

    before = set(children())
    # Sockets lie in the folder, and their paths may have 107 characters.
    temporary = tempfile.mkdtemp(prefix="tg-ray-", dir="/tmp")
    Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108
    cluster = Cluster()
    for arguments in ({"include_dashboard": False, "temp_dir": temporary}, {}):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, **arguments)
    (folder / "shared").mkdir()
    try:
        samplers = tuple(Sampler(pid, every_s=SAMPLE_S) for pid in set(children()) - before)
        for sampler in samplers:
            sampler.start()
        yield Nodes(cluster.address, f"file://{folder / 'shared'}", samplers)
        for sampler in samplers:
            sampler.stop()
    finally:
        cluster.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def children() -> list[int]:
    """Processes that this one started."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def pairs(runs: list[Run]) -> Iterator[tuple[Run, Run]]:
    """The two engines' runs of one step and size, where both ended."""
    for one, two in zip(runs[::2], runs[1::2], strict=True):
        if not one.told and not two.told:
            yield one, two


def enough_processors(one: Run, two: Run) -> float | None:
    """From how many processors Ray would be faster: its driver's seconds, and the nodes' shared among them.

    An estimate: it leaves out the network, and that the driver overlaps with the nodes. The local run counts with its
    wall seconds, or with its CPU seconds where these are less, as on a machine that others use too. None where the
    driver alone takes longer.
    """
    left = min(one.wall_s, one.driver_cpu_s) - two.driver_cpu_s
    return two.nodes_cpu_s / left if left > 0 else None


def summary(runs: list[Run]) -> dict[str, Any]:
    """The figures of the last line."""
    figures: dict[str, Any] = {}
    for one, two in pairs(runs):
        enough = enough_processors(one, two)
        figures[f"{one.step}_{one.n_tickets}"] = {
            "local_wall_s": round(one.wall_s, 2), "ray_wall_s": round(two.wall_s, 2),
            "local_cpu_s": round(one.driver_cpu_s, 2), "ray_cpu_s": round(two.driver_cpu_s + two.nodes_cpu_s, 2),
            "moved_mb": round(two.moved_mb), "equal": one.digest == two.digest,
            "ratio_wall": round(one.wall_s / two.wall_s, 2),
            "pays_from_processors": enough and round(enough, 1),
        }  # fmt: skip
    return {"equal": all(one.digest == two.digest for one, two in pairs(runs)), "steps": figures}


def told(runs: list[Run]) -> str:
    """Where Ray starts to pay, from these figures."""
    lines = []
    if max(os.getloadavg()) > BUSY:
        lines.append(
            "- The machine was busy (load above): wall times say how much of it each engine got, and more processes "
            "get more. What follows about processors is from CPU seconds."
        )
    for step in STEPS:
        of_step = [(one, two) for one, two in pairs(runs) if one.step == step]
        faster = [one.n_tickets for one, two in of_step if two.wall_s < one.wall_s]
        on_two = f"faster at {', '.join(f'{n:,}' for n in faster)} tickets" if faster else "slower at every size"
        estimates = []
        for one, two in of_step:
            enough = enough_processors(one, two)
            what = "never: the driver alone takes longer" if enough is None else f"{enough:.1f}"
            estimates.append(f"{one.n_tickets:,} tickets: {what}")
        lines.append(
            f"- {step}: on the same two processors Ray was {on_two}. Processors of nodes from which it would be "
            f"faster, as estimated: {'; '.join(estimates)}."
        )
    return "\n".join(lines)


def as_table(runs: list[Run]) -> str:
    head = "| tickets | step | engine | wall s | join s | CPU s driver | CPU s nodes | moved MB | peak MB "
    head += "| without the store | equal |"
    return "\n".join([head, "|" + "---|" * 11, *map(as_row, marked(runs))])


def marked(runs: list[Run]) -> Iterator[tuple[Run, str]]:
    equal = {two: "yes" if one.digest == two.digest else "NO" for one, two in pairs(runs)}
    for run in runs:
        yield run, equal.get(run, "")


def as_row(run: Run | tuple[Run, str]) -> str:
    run, equal = run if isinstance(run, tuple) else (run, "")
    if run.told:
        return f"| {run.n_tickets:,} | {run.step} | {run.engine} | {run.told} | | | | | | | |"
    return (
        f"| {run.n_tickets:,} | {run.step} | {run.engine} | {run.wall_s:.1f} | {run.join_s:.1f} "
        f"| {run.driver_cpu_s:.1f} | {run.nodes_cpu_s:.1f} | {run.moved_mb:,.0f} | {run.peak_mb:,.0f} "
        f"| {run.own_mb:,.0f} | {equal} |"
    )


def record(table: str, told_: str, machine: dict[str, str], last: str) -> None:
    """Write the result's page."""
    path = PROJECT / "benchmarks" / "results" / "scale.md"
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    head = "Written by `make bench-scale RECORD=1`; what the figures mean: `benchmarks/README.md`."
    path.write_text(f"# One process and a cluster\n\n{head}\n\n{facts}\n\n{table}\n\n{told_}\n\n```json\n{last}\n```\n")
    print(f"wrote {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmarks read /proc: they need Linux")
    main()
