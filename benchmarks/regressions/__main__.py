"""`make bench-regressions`: planted regressions through whole runs; each must be stopped by the part declared for it.

QUICK=1 plays the scenes in the toy world, within two minutes. TRIAL=1 plays all of the help desk at a size that only
proves that it runs, with one seed of the five. Without them SmolLM2 learns the shipped help desk: the scenes, then
five predeclared seeds of a neutral retrain and of twice the data, all of them told. RECORD=1 writes
`benchmarks/results/regressions.md`. KEEP=1 keeps the results of complete steps under BENCH_HOME: a campaign that was
cut off goes on where it was, and its minutes are those of all its parts that came to an end. The last line of stdout
is JSON. Exit code 1 where a scene did not end as declared.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.home import PROJECT, bench_home, describe_machine
from benchmarks.regressions.helpdesk import FULL, TRIAL, helpdesk_world
from benchmarks.regressions.play import Played, play
from benchmarks.regressions.report import parts_table, scenes_table, seeds_table
from benchmarks.regressions.scenes import CHAMPION, SCENES, SEEDS, TWICE
from benchmarks.regressions.worlds import World, toy_world

MINUTES = "minutes"
"""File of a kept campaign: what its parts took so far."""
RESULT = PROJECT / "benchmarks" / "results" / "regressions.md"


def main() -> int:
    """Play what the environment asks for."""
    quick, trial = bool(os.environ.get("QUICK")), bool(os.environ.get("TRIAL"))
    began = time.monotonic()
    with workspace() as folder:
        world = toy_world(folder) if quick else helpdesk_world(TRIAL if trial else FULL)
        seeds = () if quick else SEEDS[:1] if trial else SEEDS
        config = world.write(folder, seeds=seeds)
        played = [told(play(scene, config)) for scene in SCENES]
        tables = [*scenes_table(played), "", *parts_table(played)]
        figures: dict[str, object] = {
            "world": world.name, "trial": trial, "as_declared": sum(one.as_declared for one in played),
            "scenes": len(played), "champion_kept": {one.champion for one in played} == {"1"},
        }  # fmt: skip
        if not quick:
            lines, rates = play_seeds(config, seeds)
            tables, figures = [*tables, "", *lines], {**figures, **rates}
    figures["minutes"] = round(minutes_before() + (time.monotonic() - began) / 60, 1)
    if os.environ.get("KEEP"):
        (bench_home() / "regressions" / MINUTES).write_text(str(figures["minutes"]))
    print("\n".join(tables))
    if os.environ.get("RECORD") and not trial:
        RESULT.write_text("\n".join([*head(world, quick=quick), *tables, "", f"`{json.dumps(figures)}`", ""]))
    print(json.dumps(figures), flush=True)
    kept = figures["champion_kept"] and all(one.as_declared for one in played)
    return 0 if kept or trial else 1


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder, gone afterwards; with KEEP=1 one that stays, empty but for the results of complete steps.

    The ledger starts anew in both, so that the scenes meet the same history.
    """
    if not os.environ.get("KEEP"):
        with tempfile.TemporaryDirectory(dir=bench_home() / "scratch") as scratch:
            yield Path(scratch)
        return
    folder = bench_home() / "regressions"
    for old in (*folder.glob("*"), *folder.glob(".tunegate/*")):
        if old.name not in (".tunegate", "store", MINUTES):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    folder.mkdir(exist_ok=True)
    yield folder


def minutes_before() -> float:
    """What the earlier parts of a kept campaign took."""
    noted = bench_home() / "regressions" / MINUTES
    return float(noted.read_text()) if os.environ.get("KEEP") and noted.is_file() else 0.0


def play_seeds(config: Path, chosen: Sequence[int]) -> tuple[list[str], dict[str, object]]:
    """All predeclared seeds, judged against the champion of the scenes; none of them is promoted in the ledger."""
    lines, figures = [], {}
    for kind, scene in (("neutral", CHAMPION), ("twice", TWICE)):
        ended = {
            seed: told(play(scene, config, pipeline=f"{kind}-{seed}", promotes=False), name=f"{kind}-{seed}")
            for seed in chosen
        }
        table, found = seeds_table(kind, ended)
        lines, figures = [*lines, *table, ""], {**figures, kind: found}
    return lines[:-1], figures


def told(one: Played, *, name: str = "") -> Played:
    """Say on stderr how a candidate ended."""
    sys.stderr.write(
        f"{name or one.scene.name}: {one.decision.verdict}, {100 * one.exact:.1f} % right, {one.wall_s:.0f} s\n"
    )
    sys.stderr.flush()
    return one


def head(world: World, *, quick: bool) -> list[str]:
    """What the figures mean nothing without."""
    machine = describe_machine()
    command = "QUICK=1 make bench-regressions" if quick else "make bench-regressions"
    where = f"{machine['time']}; {machine['processor']}, {machine['memory']}; {machine['system']}"
    return [
        "# Planted regressions", "", f"`{command}`, world `{world.name}`, {where}.", "",
        "Each candidate meets the same champion. `right` is the share of held-out tickets whose fields are all right. "
        "A fault may show in more than one part of the gate; `said by` is the one declared beforehand.", "",
        "Expected: a neutral retrain is promoted by `improve` in at most 5 of 100; `rule_alone_expected` is how often "
        "that rule would promote at the flips measured over all five seeds together.", "",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
