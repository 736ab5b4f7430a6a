"""`make bench-dedup`: every engine on every corpus, each run a fresh process from Parquet to its answer, then judged.

Rounds are interleaved: each round goes through all engines, in another order, so that a slow minute of the machine
falls on all. The last line of the output is one JSON object. It knows nothing of the engines' insides
(`benchmarks/engines/`). QUICK=1: 200k tickets, rensa's modes alone. RECORD=1: writes `benchmarks/results/dedup.md`.
SIZES=20k,flood: these corpora only.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.accuracy import first_of_each, pair_accuracy, planted_share, removal_accuracy, share_of
from benchmarks.contestants import LIMIT_S, Engine, plan
from benchmarks.corpus import SIZES, Size, corpus_file
from benchmarks.home import PROJECT, bench_home, describe_machine, interpreters, load, pinned
from benchmarks.measure import Cost, run_measured
from benchmarks.oracle import oracle_clusters
from benchmarks.report import LEGEND, Accuracy, Result, corpus_table, figures, record

FULL = ("20k", "200k", "1m", "flood")
ENGINES_FOLDER = PROJECT / "benchmarks" / "engines"


def main() -> None:
    """Run what the environment asks for."""
    quick, home = bool(os.environ.get("QUICK")), bench_home()
    names = ("200k",) if quick else tuple(filter(None, os.environ.get("SIZES", "").split(","))) or FULL
    machine = describe_machine()
    tables, lines = {}, {}
    with tempfile.TemporaryDirectory(dir=home / "scratch") as scratch:
        pythons, missing = interpreters({each.environment for name in names for each in plan(name, quick=quick)}, home)
        _warm_up({engine for name in names for engine in plan(name, quick=quick)}, pythons, home, Path(scratch))
        for name in names:
            results = run_corpus(SIZES[name], pythons, missing, home, Path(scratch), quick=quick)
            tables[name] = corpus_table(results, SIZES[name].n_tickets)
            lines[name] = figures(results, SIZES[name].n_tickets)
            print(f"\n## {name}\n\n{tables[name]}\n", flush=True)
    machine["load"] = f"{machine['load']} at the start, {load()} at the end"
    last = json.dumps({**lines["200k" if "200k" in lines else names[0]], "corpora": lines, "machine": machine})
    print(LEGEND)
    if os.environ.get("RECORD"):
        path = PROJECT / "benchmarks" / "results" / "dedup.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(record(machine, tables, last, _peer_versions(set(pythons))))
        print(f"wrote {path.relative_to(PROJECT)}")
    print(last)


def run_corpus(
    size: Size, pythons: dict[str, Path], missing: dict[str, str], home: Path, scratch: Path, *, quick: bool
) -> list[Result]:
    """Every engine its rounds on one corpus, one process at a time."""
    corpus = corpus_file(size, home / "corpora")
    truth = oracle_clusters(corpus, n_tickets=size.n_tickets)
    rounds = plan(size.name, quick=quick)
    costs: dict[Engine, list[Cost]] = defaultdict(list)
    answers: dict[Engine, list[bytes]] = defaultdict(list)
    accuracy: dict[Engine, Accuracy] = {}
    for number in range(max(rounds.values())):
        engines = list(rounds)
        for engine in engines[number % len(engines) :] + engines[: number % len(engines)]:
            if number >= rounds[engine] or engine.environment in missing:
                continue
            if costs[engine] and not costs[engine][-1].complete:
                continue  # it failed once, and would again
            answer = scratch / "answer.parquet"
            answer.unlink(missing_ok=True)
            cost = _run(engine, pythons, corpus, answer, scratch, LIMIT_S[size.name])
            costs[engine].append(cost)
            print(
                f"{size.name} round {number + 1} {engine.name}: {_outcome(cost, LIMIT_S[size.name])}",
                file=sys.stderr,
                flush=True,
            )
            if cost.complete:
                answers[engine].append(answer.read_bytes())
                if engine not in accuracy:
                    accuracy[engine] = judge(answer, engine, truth, corpus)
    return [
        Result(
            engine,
            tuple(costs[engine]),
            accuracy.get(engine),
            missing.get(engine.environment) or _told(costs[engine], LIMIT_S[size.name]),
            len(set(answers[engine])) <= 1,
        )
        for engine in rounds
    ]


def judge(answer: Path, engine: Engine, truth: np.ndarray, corpus: Path) -> Accuracy:
    """Compare an answer with the exact one."""
    table = pq.read_table(answer).sort_by("id")
    if engine.gives == "cluster":
        clusters = table["cluster"].to_numpy()
        planted = pq.read_table(corpus, columns=["original", "kind", "jaccard"])
        told = (planted["original"].to_numpy(), np.array(planted["kind"].to_pylist()), planted["jaccard"].to_numpy())
        return Accuracy(
            pair_accuracy(clusters, truth),
            removal_accuracy(first_of_each(clusters), truth),
            _or_none(planted_share(clusters, *told, 0.7, 0.8)),
            _or_none(planted_share(clusters, *told, 0.65, 0.7)),
            len(np.unique(clusters)),
        )
    if engine.gives == "keep":
        keep = np.zeros(len(truth), dtype=bool)
        if "keep" in table.column_names:
            keep[:] = table["keep"].to_numpy()
        else:
            keep[table["id"].to_numpy()] = True  # the floor names those that stay
        return Accuracy(None, removal_accuracy(keep, truth), None, None, None)
    flags = table["flag"].to_numpy()
    return Accuracy(None, share_of(flags, np.bincount(truth, minlength=len(truth))[truth] > 1), None, None, None)


def _run(engine: Engine, pythons: dict[str, Path], corpus: Path, answer: Path, scratch: Path, limit_s: float) -> Cost:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONHASHSEED": "0"}
    if engine.environment == "project":
        environment["PYTHONPATH"] = str(PROJECT)
    script = str(ENGINES_FOLDER / engine.script)
    command = [str(pythons[engine.environment]), script, engine.mode, str(corpus), str(answer)]
    return run_measured(command, limit_s=limit_s, environment=environment, folder=scratch, scratch=scratch)


def _warm_up(engines: set[Engine], pythons: dict[str, Path], home: Path, scratch: Path) -> None:
    """Each once on 2,000 tickets: compiled kernels and bytecode are there when it counts."""
    corpus = corpus_file(SIZES["2k"], home / "corpora")
    for engine in sorted(engines, key=lambda engine: engine.name):
        if engine.environment in pythons:
            _run(engine, pythons, corpus, scratch / "answer.parquet", scratch, LIMIT_S["2k"])


def _outcome(cost: Cost, limit_s: float) -> str:
    if cost.complete:
        return f"{cost.wall_s:.2f} s wall, {cost.cpu_s:.2f} s CPU, {cost.peak_mb:,.0f} MB"
    return _told([cost], limit_s)


def _told(costs: list[Cost], limit_s: float) -> str:
    if not costs or costs[-1].complete:
        return ""
    if costs[-1].code is None:
        return f"over {limit_s:.0f} s"
    reason = costs[-1].stderr.strip().splitlines()
    return f"failed ({costs[-1].code}): {reason[-1][:120] if reason else 'without a word'}"


def _peer_versions(environments: set[str]) -> dict[str, str]:
    """The peers' own versions out of their lists."""
    packages = {"fastsketch": "fastsketchlsh"}
    return {
        packages.get(name, name): pinned(name)[packages.get(name, name)] for name in sorted(environments - {"project"})
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


if __name__ == "__main__":
    if not Path("/proc/self/stat").exists():
        sys.exit("the benchmarks read /proc: they need Linux")
    main()
