"""The table of a run as Markdown, and the figures of its last line. It knows nothing of how they were measured.

Called by `benchmarks/dedup.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.accuracy import Share
from benchmarks.contestants import Engine, not_run
from benchmarks.measure import Cost

HEADER = (
    "| engine | gives | rounds | wall s | CPU s | tickets per CPU-s | peak MB | pair P | pair R "
    "| removal P | removal R | R[.7,.8) | FP[.65,.7) | clusters |\n" + "|---" * 14 + "|"
)
LEGEND = (
    "pair P, R: precision and recall of pairs in one cluster, beside the exact answer. removal P, R: of the tickets "
    "that go, the share whose like stays, and of those that should go, the share that does (for `flag`: of the tickets "
    "flagged as having a partner). R[.7,.8): planted copies with J in that band found. FP[.65,.7): planted pairs just "
    "below the threshold joined all the same, by a chain or by error."
)


@dataclass(frozen=True)
class Accuracy:
    """None where the kind of answer does not allow the figure."""

    pairs: Share | None
    removals: Share
    found: float | None
    wrong: float | None
    n_clusters: int | None


@dataclass(frozen=True)
class Result:
    """All rounds of one engine on one corpus."""

    engine: Engine
    costs: tuple[Cost, ...]
    accuracy: Accuracy | None
    told: str = ""
    """Why there is no figure."""
    repeats: bool = True
    """Every round gave the same answer."""

    @property
    def wall_s(self) -> float:
        return median(cost.wall_s for cost in self.costs)

    @property
    def cpu_s(self) -> float:
        return median(cost.cpu_s for cost in self.costs)

    @property
    def peak_mb(self) -> float:
        return median(cost.peak_mb for cost in self.costs)


def corpus_table(results: list[Result], n_tickets: int) -> str:
    """One line for each engine, as it was asked."""
    return "\n".join([HEADER, *(_line(result, n_tickets) for result in results)])


def figures(results: list[Result], n_tickets: int) -> dict[str, float | str | None]:
    """What one corpus says in one line; ratios are of medians inside this run.

    ratio_fastest_peer: our tickets per CPU-second over the fastest peer's, whatever it answers; over 1 is faster.
    ratio_fastest_made: the same, over what we put together from others' parts too.
    ratio_floor: our CPU seconds over those of GROUP BY hash. rss_ratio_rensa: our peak over the smallest of rensa's.
    """
    done = {result.engine.name: result for result in results if result.accuracy}
    ours = next((result for result in done.values() if result.engine.role == "ours"), None)
    if ours is None or ours.accuracy is None or ours.accuracy.pairs is None:
        return {"recall": None, "precision": None}
    peers = [result for result in done.values() if result.engine.role == "peer"]
    others = [result for result in done.values() if result.engine.role in ("peer", "made")]
    rensa = [result for result in peers if result.engine.environment == "rensa"]
    floor = done.get("DuckDB GROUP BY hash")
    fastest = min(peers, key=lambda result: result.cpu_s, default=None)
    clustering = [result for result in peers if result.engine.gives == "cluster"]
    return {
        "tickets_per_cpu_s": _round(n_tickets / ours.cpu_s),
        "wall_s": _round(ours.wall_s),
        "cpu_s": _round(ours.cpu_s),
        "peak_mb": _round(ours.peak_mb),
        "recall": ours.accuracy.pairs.recall,
        "precision": ours.accuracy.pairs.precision,
        "same_in_every_round": ours.repeats,
        "ratio_fastest_peer": _round(fastest.cpu_s / ours.cpu_s) if fastest else None,
        "ratio_fastest_peer_wall": _round(min(peer.wall_s for peer in peers) / ours.wall_s) if peers else None,
        "fastest_peer": fastest.engine.name if fastest else None,
        "ratio_fastest_made": _round(min(other.cpu_s for other in others) / ours.cpu_s) if others else None,
        "ratio_fastest_clustering_peer": (
            _round(min(peer.cpu_s for peer in clustering) / ours.cpu_s) if clustering else None
        ),
        "rss_ratio_rensa": _round(ours.peak_mb / min(peer.peak_mb for peer in rensa)) if rensa else None,
        "ratio_floor": _round(ours.cpu_s / floor.cpu_s) if floor else None,
        "ratio_floor_wall": _round(ours.wall_s / floor.wall_s) if floor else None,
    }


def record(machine: dict[str, str], tables: dict[str, str], last_line: str, peers: dict[str, str]) -> str:
    """The whole of `benchmarks/results/dedup.md`."""
    parts = [
        "# Deduplication",
        "Written by `make bench-dedup RECORD=1`; what the figures mean: `benchmarks/README.md`.",
    ]
    parts.append("\n".join(f"- {name}: {value}" for name, value in machine.items()))
    parts.append("- peers: " + ", ".join(f"{name} {number}" for name, number in peers.items()))
    parts += [f"## {name}\n\n{table}" for name, table in tables.items()]
    parts += [LEGEND, "Not run:\n\n" + "\n".join(f"- {told}" for told in not_run()), f"```json\n{last_line}\n```"]
    return "\n\n".join(parts) + "\n"


def _line(result: Result, n_tickets: int) -> str:
    engine, accuracy = result.engine, result.accuracy
    name = f"**{engine.name}**" if engine.role == "ours" else engine.name
    name += f" ({engine.note})" if engine.note else ""
    if accuracy is None:
        return f"| {name} | {engine.gives} | {len(result.costs)} | {result.told} |" + " |" * 10
    pairs = accuracy.pairs or (None, None)
    cells = [
        name,
        engine.gives,
        str(len(result.costs)),
        f"{result.wall_s:.2f}",
        f"{result.cpu_s:.2f}",
        f"{n_tickets / result.cpu_s:,.0f}",
        f"{result.peak_mb:,.0f}",
        *map(_share, (*pairs, *accuracy.removals, accuracy.found, accuracy.wrong)),
        "-" if accuracy.n_clusters is None else f"{accuracy.n_clusters:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _round(value: float) -> float:
    return float(f"{value:.4g}")
