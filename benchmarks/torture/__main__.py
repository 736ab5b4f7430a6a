"""`make torture`: faults on purpose; afterwards the same digests, a verified champion, nothing acknowledged lost.

QUICK=1 plays a part that CI has time for, SIZE=135m the real model. SEED decides all that is drawn by lot. ONLY plays
the faults whose names hold it (or one of several, with commas), or one try as `NAME#NUMBER`; SCALE multiplies the
tries. RECORD=1 writes `benchmarks/results/torture.md`, of the real model `torture-135m.md`. The last line of stdout is
JSON. Exit code 1 where a try did not recover.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.home import PROJECT, bench_home, describe_machine
from benchmarks.torture import fork
from benchmarks.torture.faults import FAULTS
from benchmarks.torture.homes import Homes, build_homes
from benchmarks.torture.report import again, table, totals
from benchmarks.torture.trial import Fault, Tried, play
from benchmarks.torture.world import big_world, toy_world

RESULTS = PROJECT / "benchmarks" / "results"
MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 2 << 30
"""Bytes of memory that the folders of the toy may take; its thousands of fsyncs cost nothing there."""


def main() -> int:
    """Play what the environment asks for."""
    began, seed = time.monotonic(), int(os.environ.get("SEED") or 20260601)
    size = os.environ.get("SIZE") or "toy"
    for name in [name for name in os.environ if name.startswith(("TUNEGATE_", "PREFECT_", "MLFLOW_"))]:
        if name != "TUNEGATE_CACHE":
            del os.environ[name]
    fork.limit_s = fork.limit_s if size == "toy" else 3600.0
    fork.warm()
    with tempfile.TemporaryDirectory(prefix="torture-", dir=_scratch(size)) as scratch:
        folder = Path(scratch)
        homes = build_homes(folder, toy_world if size == "toy" else big_world)
        skipped = {fault.name: why for fault in FAULTS if (why := fault.needs())}
        tried = list(_played(homes, folder, seed=seed, skipped=skipped))
    rows = table(FAULTS, tried, skipped)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        **totals(tried), "skipped": len(skipped), "seed": seed, "world": size,
        "cpu_s": round(sum(each.ru_utime + each.ru_stime for each in spent)),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }  # fmt: skip
    print("\n".join(rows))
    if os.environ.get("RECORD"):
        name = "torture.md" if size == "toy" else f"torture-{size}.md"
        (RESULTS / name).write_text(
            "\n".join([*_head(size), *rows, "", f"`{json.dumps(figures)}`", ""]), encoding="utf-8"
        )
    print(json.dumps(figures), flush=True)
    return 0 if tried and all(one.is_well for one in tried) else 1


def _played(homes: Homes, folder: Path, *, seed: int, skipped: dict[str, str]) -> Iterator[Tried]:
    for fault in FAULTS:
        if fault.name in skipped:
            continue
        for number in _numbers(fault):
            one = play(fault, number, seed=seed, homes=homes, folder=folder / "try")
            bad = "" if one.is_well else "  FAILED"
            print(f"{fault.name} #{number}: {one.told}, {one.seconds:.1f} s{bad}", file=sys.stderr, flush=True)
            if bad:
                print(again(one, seed=seed), file=sys.stderr, flush=True)
            yield one


def _numbers(fault: Fault) -> range:
    """Which tries of the fault are asked for."""
    names, _, number = os.environ.get("ONLY", "").partition("#")
    if not any(name in fault.name for name in names.split(",")):
        return range(0)
    if number:
        return range(int(number), int(number) + 1)
    n_tries = fault.quick if os.environ.get("QUICK") else fault.full
    return range(math.ceil(n_tries * float(os.environ.get("SCALE") or 1)))


def _scratch(size: str) -> Path:
    usable = size == "toy" and os.access(MEMORY, os.W_OK) and os.statvfs(MEMORY).f_bavail * 4096 > ROOM
    return MEMORY if usable else bench_home() / "scratch"


def _head(size: str) -> list[str]:
    machine = describe_machine()
    asked = "".join(f'{name}="{os.environ[name]}" ' for name in ("QUICK", "ONLY", "SCALE") if os.environ.get(name))
    return [
        "# Faults" if size == "toy" else f"# Faults, SmolLM2-{size.upper()}", "",
        f"`{asked}SIZE={size} make torture`, {machine['time']}; "
        f"{machine['processor']}, {machine['memory']}; {machine['system']}; {machine['libraries']}.", "",
        "Each try: a run under the fault, then one undisturbed run and `reconcile`. `lost`: something that was "
        "acknowledged is gone. `wrong`: a digest of snapshot, adapter, verdict or bundle, the champion, its history or "
        "MLflow's aliases differ from an uninterrupted run's. `stuck`: a run does not end, or the next one fails. "
        "`missed`: of the tries, those whose run was over before the fault came. `no fault`: those and all others in "
        "which nothing happened, such as an operation that the run did not come to; they count as nothing else.", "",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
