"""`make torture`: faults on purpose; afterwards the same digests, a verified champion, nothing acknowledged lost.

QUICK=1 plays a part that CI has time for, SIZE=135m the real model. SEED decides all that is drawn by lot. ONLY plays
the faults whose names hold it (or one of several, with commas), or one try as `NAME#NUMBER`; SCALE multiplies the
tries. RECORD=1 writes `results/torture.md`, of the real model `torture-135m.md`. Exit code 1 where a try did not
recover.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Bench, flag, report
from benchmarks.torture import fork, kills, spoilt, surroundings  # noqa: F401  # they declare the faults, in this order
from benchmarks.torture.homes import Homes, big_world, build_homes, toy_world
from benchmarks.torture.trial import FAULTS, Fault, Tried, again, as_table, play, totals

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 2 << 30
"""Bytes of memory that the folders of the toy may take; its thousands of fsyncs cost nothing there."""
HEAD = (
    "Each try: a run under the fault, then one undisturbed run and `reconcile`. `lost`: something that was "
    "acknowledged is gone. `wrong`: a digest of snapshot, adapter, verdict or bundle, the champion, its history or "
    "MLflow's aliases differ from an uninterrupted run's. `stuck`: a run does not end, or the next one fails. "
    "`missed`: of the tries, those whose run was over before the fault came. `no fault`: those and all others in which "
    "nothing happened, such as an operation that the run did not come to; they count as nothing else."
)


def main() -> int:
    """Play what the environment names."""
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
            report(f"{fault.name} #{number}: {one.done}, {one.seconds:.1f} s{bad}")
            if bad:
                report(again(one, seed=seed))
            yield one


def _numbers(fault: Fault) -> range:
    """Which tries of the fault are wanted."""
    names, _, number = os.environ.get("ONLY", "").partition("#")
    if not any(name in fault.name for name in names.split(",")):
        return range(0)
    if number:
        return range(int(number), int(number) + 1)
    n_tries = fault.quick if flag("QUICK") else fault.full
    return range(math.ceil(n_tries * float(os.environ.get("SCALE") or 1)))


if __name__ == "__main__":
    sys.exit(main())
