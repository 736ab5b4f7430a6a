"""`make bench-dedup`: run every engine on every corpus, each in a new process from Parquet to answer, and score it.

It knows nothing of the engines' code (`engines/dedup.py`), nor of how the exact answer is found (`dedup_corpus.py`).
QUICK=1: 200k tickets, only rensa's modes. RECORD=1: write `results/dedup.md`. SIZES=20k,flood: only these corpora.
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks.dedup_corpus import SIZES, Size, corpus_file, oracle_clusters
from benchmarks.measure import (
    ENGINES,
    Bench,
    Cost,
    interpreters,
    isolated,
    pinned,
    report,
    rotated,
    rounded,
    run_measured,
    table,
)

FULL = ("20k", "200k", "1m", "flood")
Gives = Literal["cluster", "keep", "flag"]
"""`cluster`: an id on every ticket. `keep`: which tickets stay. `flag`: which tickets have a partner."""


@dataclass(frozen=True)
class Engine:
    """One way to find duplicates."""

    name: str
    mode: str
    environment: str
    """`project`, or the name of a list in `benchmarks/peers/`."""
    gives: Gives
    role: Literal["ours", "peer", "made", "floor"]
    """`made`: not a product; we built it from parts of others."""
    rounds: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Corpus -> number of runs; it does not run on other corpora."""
    note: str = ""
    left_out: str = ""
    """Why it does not run on larger corpora."""


FAST = {"20k": 3, "200k": 5, "1m": 3, "flood": 3}
RENSA = {"20k": 3, "200k": 3, "1m": 1, "flood": 1}

CONTESTANTS = (
    Engine("tunegate", "join", "project", "cluster", "ours", FAST, "exact"),
    Engine("DuckDB GROUP BY hash", "floor", "project", "keep", "floor", FAST, "exact copies"),
    Engine("DuckDB exact labels", "exact", "project", "cluster", "floor", FAST, "exact copies"),
    Engine("rensa LSH clusters", "clusters", "rensa", "cluster", "peer", RENSA, "estimated J"),
    Engine("rensa inline", "inline", "rensa", "keep", "peer", RENSA, "estimated J"),
    Engine("rensa C-MinHash inline", "c-minhash", "rensa", "keep", "peer", RENSA, "estimated J"),
    Engine("rensa flags matrix", "flags", "rensa", "flag", "peer", RENSA, "no check"),
    Engine("rensa rho flags", "rho", "rensa", "flag", "peer", RENSA, "samples, 8 bands, no check"),
    Engine("rensa flags, DuckDB words", "hashed", "rensa", "flag", "made", RENSA, "no check"),
    Engine(
        "DuckDB SQL MinHash", "minhash", "project", "cluster", "made",
        {"20k": 3, "200k": 1, "flood": 1}, "16 bands of 4, exact check",
        "1m would take minutes, and it is not a product",
    ),
    Engine(
        "FastSketchLSH", "clusters", "fastsketch", "cluster", "peer",
        {"20k": 1, "200k": 1}, "estimated J",
        "1m would need about 14 GB; the flood compares all pairs of its 10,000 copies in Python",
    ),
    Engine(
        "datasketch", "clusters", "datasketch", "cluster", "peer",
        {"20k": 1, "200k": 1}, "estimated J",
        "1m would need about 13 GB; the flood compares all pairs of its 10,000 copies in Python",
    ),
    Engine(
        "text-dedup", "own", "text-dedup", "cluster", "peer",
        {"20k": 1, "200k": 1}, "its own 14 bands of 9, no check", "1m would take ten minutes and about 35 GB",
    ),
    Engine(
        "text-dedup checked", "checked", "text-dedup", "cluster", "peer",
        {"20k": 1}, "its own bands, check_false_positive", "200k costs as much as unchecked",
    ),
    Engine(
        "text-dedup 32x4 checked", "wide", "text-dedup", "cluster", "peer",
        {"20k": 1}, "32 bands of 4, check_false_positive", "200k does not finish in half an hour",
    ),
    Engine(
        "datatrove", "own", "datatrove", "cluster", "peer",
        {"20k": 1, "200k": 1}, "5-grams, 14 bands of 8, no check: FineWeb's settings",
        "1m would take about twenty minutes",
    ),
    Engine(
        "datatrove 32x4", "wide", "datatrove", "cluster", "peer",
        {"20k": 1}, "3-grams, no check",
        "200k would cost as much as datatrove above, and unchecked wide bands only merge more",
    ),
    Engine(
        "semhash", "clusters", "semhash", "cluster", "peer",
        {"20k": 1, "200k": 1}, "wordllama, cosine 0.97: judges meaning, so the oracle only indicates",
        "1m would take about twenty minutes",
    ),
)  # fmt: skip

ABSENT = (
    "NeMo Curator 1.4.0: its fuzzy deduplication imports cudf and rapidsmpf (`stages/deduplication/fuzzy/minhash.py`), "
    "so it needs a GPU.",
)
"""Peers that do not run at all, with the reason."""

LIMIT_S = {"2k": 120.0, "20k": 240.0, "200k": 420.0, "1m": 420.0, "flood": 180.0}
"""Wall seconds after which a run is stopped and shown as `over N s`."""

QUICK = {"tunegate": 3, "DuckDB GROUP BY hash": 3}
"""Rounds at 200k with QUICK=1; rensa's modes run once, all others not at all."""


def not_run() -> list[str]:
    """Every engine that is missing somewhere, with the reason."""
    return [*(f"{engine.name}: {engine.left_out}." for engine in CONTESTANTS if engine.left_out), *ABSENT]


def plan(corpus: str, *, quick: bool) -> dict[Engine, int]:
    """Engine -> rounds on this corpus."""
    if not quick:
        return {engine: engine.rounds[corpus] for engine in CONTESTANTS if corpus in engine.rounds}
    chosen = [engine for engine in CONTESTANTS if engine.name in QUICK or engine.environment == "rensa"]
    return {engine: QUICK.get(engine.name, 1) for engine in chosen}


COLUMNS = (
    "engine", "gives", "rounds", "wall s", "CPU s", "tickets per CPU-s", "peak MB", "pair P", "pair R", "removal P",
    "removal R", "R[.7,.8)", "FP[.65,.7)", "clusters",
)  # fmt: skip
LEGEND = (
    "pair P, R: precision and recall of pairs in one cluster, against the exact answer. removal P, R: of the tickets "
    "removed, the share of which a duplicate stays, and of those to remove, the share that is removed (for `flag`: of "
    "the tickets flagged as having a partner). R[.7,.8): share of the planted copies with J in that band that are "
    "found. FP[.65,.7): planted pairs just below the threshold that are joined anyway, by a chain or by error."
)


class Share(NamedTuple):
    """Precision and recall, 0-1."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of an answer; None for figures that this kind of answer does not allow."""

    pairs: Share | None
    removals: Share
    found: float | None = None
    wrong: float | None = None
    n_clusters: int | None = None


@dataclass(frozen=True)
class Result:
    """All rounds of one engine on one corpus."""

    engine: Engine
    costs: tuple[Cost, ...]
    accuracy: Accuracy | None
    reason: str = ""
    """Why there is no figure."""
    repeats: bool = True
    """Whether every round gave the same answer."""

    @property
    def wall_s(self) -> float:
        return median(cost.wall_s for cost in self.costs)

    @property
    def cpu_s(self) -> float:
        return median(cost.cpu_s for cost in self.costs)

    @property
    def peak_mb(self) -> float:
        return median(cost.peak_mb for cost in self.costs)


def main() -> None:
    """Run what the environment names."""
    bench = Bench.begin("dedup")
    names = ("200k",) if bench.quick else tuple(filter(None, os.environ.get("SIZES", "").split(","))) or FULL
    tables, lines = [], {}
    planned = {engine for name in names for engine in plan(name, quick=bench.quick)}
    with bench.scratch() as scratch:
        pythons, missing = interpreters({engine.environment for engine in planned}, bench.home)
        warm = corpus_file(SIZES["2k"], bench.home / "corpora")
        for engine in sorted(planned, key=lambda engine: engine.name):
            if engine.environment in pythons:  # warm-up: compile kernels and bytecode
                _run(engine, pythons, warm, scratch, LIMIT_S["2k"])
        for name in names:
            results = run_corpus(SIZES[name], pythons, missing, bench, scratch)
            tables.append(f"## {name}\n\n{corpus_table(results, SIZES[name].n_tickets)}")
            lines[name] = figures(results, SIZES[name].n_tickets)
    peers = ", ".join(f"{package} {number}" for package, number in _peer_versions(set(pythons)).items())
    notes = "Not run:\n\n" + "\n".join(f"- {reason}" for reason in not_run())
    main_corpus = lines["200k" if "200k" in lines else names[0]]
    bench.finish(
        "Deduplication", "\n\n".join([*tables, LEGEND, notes]), {**main_corpus, "corpora": lines},
        head=f"- peers: {peers}",
    )  # fmt: skip


def run_corpus(
    size: Size, pythons: dict[str, Path], missing: dict[str, str], bench: Bench, scratch: Path
) -> list[Result]:
    """Run all rounds of every engine on one corpus, one process at a time."""
    corpus = corpus_file(size, bench.home / "corpora")
    truth = oracle_clusters(corpus, n_tickets=size.n_tickets)
    rounds = plan(size.name, quick=bench.quick)
    costs: dict[Engine, list[Cost]] = defaultdict(list)
    answers: dict[Engine, list[bytes]] = defaultdict(list)
    accuracy: dict[Engine, Accuracy] = {}
    for number in range(max(rounds.values())):
        for engine in rotated(list(rounds), number):
            if number >= rounds[engine] or engine.environment in missing:
                continue
            if costs[engine] and not costs[engine][-1].complete:
                continue  # it failed before and would fail again
            cost, answer = _run(engine, pythons, corpus, scratch, LIMIT_S[size.name])
            costs[engine].append(cost)
            spent = f"{cost.wall_s:.2f} s wall, {cost.cpu_s:.2f} s CPU, {cost.peak_mb:,.0f} MB"
            report(f"{size.name} round {number + 1} {engine.name}: {cost.failure or spent}")
            if cost.complete:
                answers[engine].append(answer.read_bytes())
                if engine not in accuracy:
                    accuracy[engine] = judge(answer, engine, truth, corpus)
    reasons = {engine: costs[engine][-1].failure for engine in rounds if costs[engine]}
    return [
        Result(
            engine, tuple(costs[engine]), accuracy.get(engine),
            missing.get(engine.environment) or reasons.get(engine, ""), len(set(answers[engine])) <= 1,
        )
        for engine in rounds
    ]  # fmt: skip


def _run(engine: Engine, pythons: dict[str, Path], corpus: Path, scratch: Path, limit_s: float) -> tuple[Cost, Path]:
    answer = scratch / "answer.parquet"
    answer.unlink(missing_ok=True)
    library = engine.environment if engine.environment != "project" else engine.name.split()[0].lower()
    command = [pythons[engine.environment], ENGINES / "dedup.py", library, engine.mode, corpus, answer]
    environment = isolated(scratch, own=engine.environment == "project")
    return run_measured(command, limit_s=limit_s, environment=environment, folder=scratch, scratch=scratch), answer


# Accuracy of an answer


def judge(answer: Path, engine: Engine, truth: np.ndarray, corpus: Path) -> Accuracy:
    """Compare an answer with the exact one."""
    answers = pq.read_table(answer).sort_by("id")
    if engine.gives == "cluster":
        clusters = answers["cluster"].to_numpy()
        planted = pq.read_table(corpus, columns=["original", "kind", "jaccard"])
        facts = (planted["original"].to_numpy(), np.array(planted["kind"].to_pylist()), planted["jaccard"].to_numpy())
        found, wrong = (planted_share(clusters, *facts, *band) for band in ((0.7, 0.8), (0.65, 0.7)))
        return Accuracy(
            pair_accuracy(clusters, truth), removal_accuracy(first_of_each(clusters), truth),
            None if np.isnan(found) else found, None if np.isnan(wrong) else wrong, len(np.unique(clusters)),
        )  # fmt: skip
    if engine.gives == "keep":
        keep = np.zeros(len(truth), dtype=bool)
        if "keep" in answers.column_names:
            keep[:] = answers["keep"].to_numpy()
        else:
            keep[answers["id"].to_numpy()] = True  # the floor lists those that stay
        return Accuracy(None, removal_accuracy(keep, truth))
    return Accuracy(None, share_of(answers["flag"].to_numpy(), np.bincount(truth, minlength=len(truth))[truth] > 1))


def pair_accuracy(clusters: np.ndarray, truth: np.ndarray) -> Share:
    """Precision and recall of pairs in one cluster. An engine that joins nothing has precision 1."""
    both = _n_pairs(np.stack([clusters, truth], axis=1))
    return Share(_over(both, _n_pairs(clusters)), _over(both, _n_pairs(truth)))


def removal_accuracy(keep: np.ndarray, truth: np.ndarray) -> Share:
    """Precision and recall of removed tickets.

    A removal is right if the ticket's true cluster keeps another ticket; a cluster that keeps none has lost one.
    """
    n_removed = int((~keep).sum())
    n_lost = len(np.unique(truth)) - len(np.unique(truth[keep]))
    n_right = n_removed - n_lost
    return Share(_over(n_right, n_removed), _over(n_right, len(truth) - len(np.unique(truth))))


def share_of(chosen: np.ndarray, right: np.ndarray) -> Share:
    """Precision and recall of a yes or no for each ticket."""
    both = int((chosen & right).sum())
    return Share(_over(both, int(chosen.sum())), _over(both, int(right.sum())))


def first_of_each(clusters: np.ndarray) -> np.ndarray:
    """True for one ticket of each cluster, the one that would be kept."""
    keep = np.zeros(len(clusters), dtype=bool)
    keep[np.unique(clusters, return_index=True)[1]] = True
    return keep


def planted_share(
    clusters: np.ndarray, original: np.ndarray, kind: np.ndarray, jaccard: np.ndarray, low: float, high: float
) -> float:
    """Share of the planted near copies with low <= J < high that are in their original's cluster; NaN without any."""
    place = np.full(int(original.max()) + 1, -1)
    is_original = kind == "original"
    place[original[is_original]] = np.flatnonzero(is_original)
    chosen = np.flatnonzero((kind == "near") & (jaccard >= low) & (jaccard < high) & (place[original] >= 0))
    if not len(chosen):
        return float("nan")
    return float((clusters[chosen] == clusters[place[original[chosen]]]).mean())


def _n_pairs(labels: np.ndarray) -> int:
    counts = np.unique(labels, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _over(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


# The table and the line of JSON


def corpus_table(results: list[Result], n_tickets: int) -> str:
    """One line for each engine."""
    return table(COLUMNS, [_row(result, n_tickets) for result in results])


def _row(result: Result, n_tickets: int) -> list[object]:
    engine, accuracy = result.engine, result.accuracy
    name = f"**{engine.name}**" if engine.role == "ours" else engine.name
    name += f" ({engine.note})" if engine.note else ""
    if accuracy is None:
        return [name, engine.gives, len(result.costs), result.reason]
    shares = (*(accuracy.pairs or (None, None)), *accuracy.removals, accuracy.found, accuracy.wrong)
    return [
        name, engine.gives, len(result.costs), f"{result.wall_s:.2f}", f"{result.cpu_s:.2f}",
        f"{n_tickets / result.cpu_s:,.0f}", f"{result.peak_mb:,.0f}",
        *("-" if share is None else f"{share:.4f}" for share in shares),
        "-" if accuracy.n_clusters is None else f"{accuracy.n_clusters:,}",
    ]  # fmt: skip


def figures(results: list[Result], n_tickets: int) -> dict[str, Any]:
    """The figures of one corpus; ratios are of medians within this run.

    ratio_fastest_peer: our tickets per CPU-second over the fastest peer's, whatever it answers; above 1 is faster.
    ratio_fastest_made: the same, including engines that we built from others' parts.
    ratio_floor: our CPU seconds over those of GROUP BY hash. rss_ratio_rensa: our peak over the smallest of rensa's.
    """
    done = {result.engine.name: result for result in results if result.accuracy}
    ours = next((result for result in done.values() if result.engine.role == "ours"), None)
    if ours is None or ours.accuracy is None or ours.accuracy.pairs is None:
        return {"recall": None, "precision": None}
    peers = [result for result in done.values() if result.engine.role == "peer"]
    others = [result for result in done.values() if result.engine.role in ("peer", "made")]
    clustering = [result for result in peers if result.engine.gives == "cluster"]
    rensa = [result.peak_mb for result in peers if result.engine.environment == "rensa"]
    floor = done.get("DuckDB GROUP BY hash")
    fastest = min(peers, key=lambda result: result.cpu_s, default=None)

    def least(of: list[Result]) -> float | None:
        return rounded(min(each.cpu_s for each in of) / ours.cpu_s) if of else None

    return {
        "tickets_per_cpu_s": rounded(n_tickets / ours.cpu_s),
        "wall_s": rounded(ours.wall_s),
        "cpu_s": rounded(ours.cpu_s),
        "peak_mb": rounded(ours.peak_mb),
        "recall": ours.accuracy.pairs.recall,
        "precision": ours.accuracy.pairs.precision,
        "same_in_every_round": ours.repeats,
        "ratio_fastest_peer": least(peers),
        "ratio_fastest_peer_wall": rounded(min(peer.wall_s for peer in peers) / ours.wall_s) if peers else None,
        "fastest_peer": fastest.engine.name if fastest else None,
        "ratio_fastest_made": least(others),
        "ratio_fastest_clustering_peer": least(clustering),
        "rss_ratio_rensa": rounded(ours.peak_mb / min(rensa)) if rensa else None,
        "ratio_floor": rounded(ours.cpu_s / floor.cpu_s) if floor else None,
        "ratio_floor_wall": rounded(ours.wall_s / floor.wall_s) if floor else None,
    }


def _peer_versions(environments: set[str]) -> dict[str, str]:
    """The peers' own versions, from their lists."""
    packages = {name: {"fastsketch": "fastsketchlsh"}.get(name, name) for name in sorted(environments - {"project"})}
    return {package: pinned(name)[package] for name, package in packages.items()}


if __name__ == "__main__":
    main()
