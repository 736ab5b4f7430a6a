"""Home folders as they are before each stage, and what an uninterrupted run leaves: made once, copied for each try."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture import fork
from benchmarks.torture.injected import count_operations
from benchmarks.torture.truth import Truth, read_truth
from benchmarks.torture.world import PIPELINE
from flows.engine import keys
from flows.session import STAGES, Session
from flows.settings import load_settings
from schemas.load import load_file

HOME = ".tunegate"
MIB = 1 << 20


@dataclass(frozen=True)
class Stage:
    """What there is to be hit in a stage."""

    seconds: float
    """Wall time, undisturbed."""
    n_operations: int
    """File operations that change something, of the run and its training process."""
    n_made: int
    """Results that are made, not reused."""


@dataclass(frozen=True)
class Homes:
    """The copies and the truth."""

    folder: Path
    golden: Truth
    stages: Mapping[str, Stage]
    mib: int
    """What a finished home takes on the disk, MiB."""

    def copy(self, stage: str, target: Path) -> Path:
        """A new folder with everything done that comes before the stage."""
        shutil.copytree(self.folder / stage, target)
        return target


def environment(place: Path) -> dict[str, str]:
    """What a run in the place has set."""
    around = place.parent
    return {
        "TUNEGATE_HOME": str(place / HOME), "TUNEGATE_CACHE": str(around / "cache"),
        "XDG_STATE_HOME": str(around / "state"), "TMPDIR": str(around / "tmp"),
    }  # fmt: skip


def build_homes(folder: Path, write_world: Callable[[Path], None]) -> Homes:
    """Write the world into `folder`, run it once without a stop and once stage by stage.

    Raises:
        RuntimeError: it does not run undisturbed.
    """
    world = folder / "world"
    world.mkdir()
    write_world(world)
    first = folder / STAGES[0]
    shutil.copytree(world, first, ignore=shutil.ignore_patterns("base"))
    (first / HOME).mkdir(mode=0o700)
    _make_store(first / HOME)
    whole = folder / "whole"
    shutil.copytree(first, whole)
    ended = _run(whole, folder)
    fork.warm(next(ack["names"] for ack in ended.acks if ack["kind"] == "loaded"))
    _read_sources(whole)
    stages: dict[str, Stage] = {}
    place = folder / "steps"
    shutil.copytree(first, place)
    for stage, after in zip(STAGES, (*STAGES[1:], "done"), strict=True):
        ended = _run(place, folder, until=stage)
        shutil.copytree(place, folder / after)
        stages[stage] = Stage(
            ended.seconds,
            sum(ack["n"] for ack in ended.acks if ack["kind"] == "operations"),
            sum(ack["kind"] == "step" and not ack["reused"] for ack in ended.acks),
        )
    return Homes(folder, read_truth(whole / HOME), stages, mib=-(-used_bytes(whole / HOME) // MIB))


def used_bytes(folder: Path) -> int:
    """What its files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _run(place: Path, folder: Path, *, until: str = "release") -> fork.Ended:
    said = folder / "said.txt"
    work = fork.pipeline_run(count_operations(place), until=until)
    ended = fork.start(place, said, work, environ=environment(place)).wait()
    if ended.code:
        raise RuntimeError(f"the undisturbed run ended with {ended.code}:\n{ended.said[-3000:]}")
    return ended


def _make_store(home: Path) -> None:
    """An empty MLflow store: making one takes seconds, copying it none."""
    pid = os.fork()
    if not pid:
        from tasks.release.tracking import choose_uri, open_client

        try:
            open_client(choose_uri("", None, home=home)).search_experiments()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _read_sources(place: Path) -> None:
    """Keep the digests of all source files in memory: computing them anew in each run would be half of a try."""
    keys.module_digests = functools.cache(keys.module_digests)
    config = place / "pipelines.yaml"
    spec = load_file(config).get(PIPELINE)
    session = Session(spec, load_settings(config), root=place, run_id="none")
    for steps in session.stages.values():
        for step in steps:
            keys.code_digests(step.run)
