"""`make bench-scale`: redaction with `engine: local` and `engine: ray`, for 200,000 to 5 million tickets.

Ray has two nodes with one processor each on this machine, local the same two processors. Each run is a new driver (this
file with ENGINE TABLE OUT [ADDRESS SHARED]); the nodes stay up. Wall time is the step's; joining the cluster and
checking its nodes is shown separately. CPU seconds of the driver cover its whole process, those of the nodes all
processes of Ray and its workers. The digests of both engines' results must be equal.

QUICK=1: 20,000 and 100,000 tickets. SIZES=200000,1000000: these sizes. RECORD=1: write `results/scale.md`.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import PROJECT, Bench, Sampler, children, report, run_measured, table
from benchmarks.tickets import scale_table
from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RedactStep
from tasks.cluster.ray_spread import RaySpread
from tasks.compute.spread import ClusterPlace
from tasks.curate.redact import redact_tickets
from tasks.storage.sealed_folder import seal

SIZES, QUICK_SIZES, WARM = (200_000, 1_000_000, 5_000_000), (20_000, 100_000), 2_000
ENGINES = ("local", "ray")
LIMIT_S = 900.0
STORE_BYTES = 4 << 30
BUSY = 3.0
"""Load average above which wall times on two processors are hard to compare."""
SAMPLE_S = 0.3
"""Sampling interval: Ray's processes have hundreds of threads, so sampling takes time from the measured run."""


@dataclass(frozen=True)
class Run:
    """The step by one engine."""

    n_tickets: int
    engine: str
    wall_s: float
    join_s: float
    driver_cpu_s: float
    nodes_cpu_s: float
    moved_mb: float
    peak_mb: float
    own_mb: float
    """The driver's peak without Ray's store."""
    n_out: int
    digest: str
    failure: str = ""
    """Why there is no figure."""


@dataclass(frozen=True)
class Nodes:
    """A running cluster."""

    address: str
    shared: str
    samplers: tuple[Sampler, ...]
    """One for each process of Ray and its workers, since no process waits for these and sums up their costs."""

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(sampler.cpu_s for sampler in self.samplers)


def main() -> None:
    """Run the step with both engines at every size."""
    bench = Bench.begin("scale")
    chosen = os.environ.get("SIZES")
    sizes = tuple(map(int, chosen.split(","))) if chosen else QUICK_SIZES if bench.quick else SIZES
    with bench.scratch() as scratch, two_nodes(scratch) as nodes:
        tables = {size: scale_table(size, bench.home / "corpora").root for size in (WARM, *sizes)}
        runs = []
        for size, engine in ((size, engine) for size in (WARM, *sizes) for engine in ENGINES):
            runs.append(measure(size, tables[size], engine, nodes, scratch))
            report(" ".join(map(str, as_row(runs[-1]))))
    runs = runs[len(ENGINES) :]  # the first are warm-up, which compiles kernels and bytecode
    bench.finish("One process and a cluster", f"{as_table(runs)}\n\n{conclusions(runs)}", summary(runs))


def measure(n_tickets: int, tickets: Path, engine: str, nodes: Nodes, scratch: Path) -> Run:
    """One run in a new process."""
    out = scratch / "out"
    place = [nodes.address, nodes.shared] if engine == "ray" else []
    command = [sys.executable, "-m", "benchmarks.scale", engine, tickets, out, *place]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": "0", "TMPDIR": str(scratch)}
    before = nodes.cpu_s()
    cost = run_measured(
        command, limit_s=LIMIT_S, environment=environment, folder=PROJECT, scratch=scratch, every_s=SAMPLE_S
    )
    nodes_cpu_s = nodes.cpu_s() - before if engine == "ray" else 0.0
    shutil.rmtree(out, ignore_errors=True)
    if not cost.complete:
        why = f"failed: {cost.failure}"
        return Run(n_tickets, engine, 0, 0, 0, 0, 0, cost.peak_mb, cost.own_peak_mb, 0, "", why)
    found = json.loads(cost.stdout.splitlines()[-1])
    return Run(
        n_tickets, engine, found["step_s"], found["join_s"], cost.cpu_s, nodes_cpu_s, found["moved_mb"],
        cost.peak_mb, cost.own_peak_mb, found["n_out"], found["digest"],
    )  # fmt: skip


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster of two nodes with one processor each."""
    # Ray's workers are niced by default: on a busy machine they would wait, and the local run would not.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    from ray.cluster_utils import Cluster

    before = set(children())
    # The folder has sockets, whose paths may have at most 107 characters.
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


def pairs(runs: list[Run]) -> Iterator[tuple[Run, Run]]:
    """The two engines' runs of each size, if both succeeded."""
    for one, two in zip(runs[::2], runs[1::2], strict=True):
        if not one.failure and not two.failure:
            yield one, two


def enough_processors(one: Run, two: Run) -> float | None:
    """Estimated number of processors from which Ray would be faster: its driver's seconds plus the nodes' share.

    It ignores the network and the overlap of driver and nodes. The local run counts with its wall seconds, or with its
    CPU seconds if these are fewer, as on a busy machine. None if the driver alone takes longer.
    """
    left = min(one.wall_s, one.driver_cpu_s) - two.driver_cpu_s
    return two.nodes_cpu_s / left if left > 0 else None


def summary(runs: list[Run]) -> dict[str, Any]:
    """The figures of the last line."""
    figures: dict[str, Any] = {}
    for one, two in pairs(runs):
        enough = enough_processors(one, two)
        figures[f"redact_{one.n_tickets}"] = {
            "local_wall_s": round(one.wall_s, 2), "ray_wall_s": round(two.wall_s, 2),
            "local_cpu_s": round(one.driver_cpu_s, 2), "ray_cpu_s": round(two.driver_cpu_s + two.nodes_cpu_s, 2),
            "moved_mb": round(two.moved_mb), "equal": one.digest == two.digest,
            "ratio_wall": round(one.wall_s / two.wall_s, 2),
            "pays_from_processors": enough and round(enough, 1),
        }  # fmt: skip
    return {"equal": all(one.digest == two.digest for one, two in pairs(runs)), "steps": figures}


def conclusions(runs: list[Run]) -> str:
    """Where Ray starts to pay off, from these figures."""
    lines = []
    if max(os.getloadavg()) > BUSY:
        lines.append(
            "- The machine was busy (see load): wall times depend on how much of it each engine got, and more "
            "processes get more. The estimates of processors below use CPU seconds."
        )
    faster = ", ".join(f"{one.n_tickets:,}" for one, two in pairs(runs) if two.wall_s < one.wall_s)
    on_two = f"faster at {faster} tickets" if faster else "slower at every size"
    estimates = []
    for one, two in pairs(runs):
        enough = enough_processors(one, two)
        what = "never: the driver alone takes longer" if enough is None else f"{enough:.1f}"
        estimates.append(f"{one.n_tickets:,} tickets: {what}")
    lines.append(
        f"- On the same two processors Ray was {on_two}. Estimated number of node processors from which it would be "
        f"faster: {'; '.join(estimates)}."
    )
    return "\n".join(lines)


def as_table(runs: list[Run]) -> str:
    """One row per run; `equal` says whether both engines wrote the same bytes."""
    equal = {two: "yes" if one.digest == two.digest else "NO" for one, two in pairs(runs)}
    names = (
        "tickets", "engine", "wall s", "join s", "CPU s driver", "CPU s nodes", "moved MB", "peak MB",
        "without the store", "equal",
    )  # fmt: skip
    return table(names, [[*as_row(run), equal.get(run, "")] for run in runs])


def as_row(run: Run) -> list[object]:
    """A row without the last column."""
    first = [f"{run.n_tickets:,}", run.engine]
    if run.failure:
        return [*first, run.failure, *[""] * 6]
    seconds = (run.wall_s, run.join_s, run.driver_cpu_s, run.nodes_cpu_s)
    return [
        *first, *(f"{each:.1f}" for each in seconds), *(f"{mb:,.0f}" for mb in (run.moved_mb, run.peak_mb, run.own_mb)),
    ]  # fmt: skip


# One run, in its own process as the driver


class CountingSpread(RaySpread):
    """Counts the bytes of parts' inputs and outputs in Ray's object store, each object once."""

    moved = 0

    def each(self, work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for result in super().each(work, self._counted(parts)):
            self.moved += n_bytes(result)
            yield result

    def _counted(self, parts: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for part in parts:
            self.moved += sum(map(n_bytes, part))
            yield part


def n_bytes(thing: Any) -> int:
    """Size when pickled."""
    buffers: list[pickle.PickleBuffer] = []
    return len(pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)) + sum(b.raw().nbytes for b in buffers)


def run_step(engine: str, table_folder: str, out: str, *place: str) -> None:
    """Run the step with one engine and print its cost as JSON."""
    spread = CountingSpread(ClusterPlace(*place)) if engine == "ray" else None
    started = time.perf_counter()
    if spread is not None:
        spread.get_ready()
    joined = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True)
    rows = RowCounts(n_in=0, n_out=0)  # counts of earlier steps do not matter here
    tickets = TicketTable(root=Path(table_folder), rows=rows)
    result = redact_tickets(tickets=tickets, step=RedactStep(uses="redact"), out=folder, spread=spread)
    done = time.perf_counter()
    cost = {"join_s": joined - started, "step_s": done - joined, "moved_mb": spread.moved / 1e6 if spread else 0.0}
    print(json.dumps({**cost, "n_out": result.rows.n_out, "digest": seal(folder), "notes": result.notes}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_step(*sys.argv[1:])
    else:
        main()
