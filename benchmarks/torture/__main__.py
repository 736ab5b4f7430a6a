"""`make torture`: inject faults, then check for equal digests, a verified champion and no lost acknowledged work.

QUICK=1: a part that CI has time for. SIZE=135m: the real model. SEED: seeds all random draws. ONLY: only faults whose
names contain it (or one of several, with commas), or one try as `NAME#NUMBER`. SCALE: multiplies the tries. RECORD=1:
write `results/torture.md`, or `torture-135m.md` for the real model. Exit code 1 if a try does not recover.
"""

import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Bench, flag, report
from benchmarks.torture import fork, kills, spoilt, surroundings  # noqa: F401  # importing them declares the faults, in this order
from benchmarks.torture.homes import Homes, big_world, build_homes, toy_world
from benchmarks.torture.trial import FAULTS, Fault, Tried, again, as_table, play, totals

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 2 << 30
"""Memory for the toy world's folders, bytes; in memory its thousands of fsyncs cost nothing."""
HEAD = (
    "Each try: a run under the fault, then one undisturbed run and `reconcile`. `lost`: something that was "
    "acknowledged is missing. `wrong`: a digest of snapshot, adapter, verdict or bundle, the champion, its history or "
    "MLflow's aliases differ from an uninterrupted run's. `stuck`: a run does not end, or the next one fails. "
    "`missed`: tries whose run ended before the fault. `no fault`: these and all other tries in which nothing "
    "happened, such as an operation that the run did not reach; they count as nothing else."
)


def main() -> int:
    """Play the faults that the environment selects."""
    began, seed = time.monotonic(), int(os.environ.get("SEED") or 20260601)
    size = os.environ.get("SIZE") or "toy"
    bench = Bench.begin("torture")
    for name in [name for name in os.environ if name.startswith(("TUNEGATE_", "PREFECT_", "MLFLOW_"))]:
        if name != "TUNEGATE_CACHE":
            del os.environ[name]
    fork.limit_s = fork.limit_s if size == "toy" else 3600.0
    fork.warm()
    usable = size == "toy" and os.access(MEMORY, os.W_OK) and os.statvfs(MEMORY).f_bavail * 4096 > ROOM
    with tempfile.TemporaryDirectory(prefix="torture-", dir=MEMORY if usable else bench.home / "scratch") as scratch:
        folder = Path(scratch)
        homes = build_homes(folder, toy_world if size == "toy" else big_world)
        skipped = {fault.name: why for fault in FAULTS if (why := fault.needs())}
        tried = list(_played(homes, folder, seed=seed, skipped=skipped))
    spent = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        **totals(tried), "skipped": len(skipped), "seed": seed, "world": size,
        "cpu_s": round(sum(each.ru_utime + each.ru_stime for each in spent)),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }  # fmt: skip
    title, page = ("Faults", "torture") if size == "toy" else (f"Faults, SmolLM2-{size.upper()}", f"torture-{size}")
    bench.finish(title, as_table(FAULTS, tried, skipped), figures, page=page, head=HEAD)
    return 0 if tried and all(one.is_well for one in tried) else 1


def _played(homes: Homes, folder: Path, *, seed: int, skipped: dict[str, str]) -> Iterator[Tried]:
    for fault in FAULTS:
        if fault.name in skipped:
            continue
        for number in _numbers(fault):
            one = play(fault, number, seed=seed, homes=homes, folder=folder / "try")
            bad = "" if one.is_well else "  FAILED"
            report(f"{fault.name} #{number}: {one.action}, {one.seconds:.1f} s{bad}")
            if bad:
                report(again(one, seed=seed))
            yield one


def _numbers(fault: Fault) -> range:
    """The tries of the fault to play."""
    names, _, number = os.environ.get("ONLY", "").partition("#")
    if not any(name in fault.name for name in names.split(",")):
        return range(0)
    if number:
        return range(int(number), int(number) + 1)
    n_tries = fault.quick if flag("QUICK") else fault.full
    return range(math.ceil(n_tries * float(os.environ.get("SCALE") or 1)))


if __name__ == "__main__":
    sys.exit(main())
