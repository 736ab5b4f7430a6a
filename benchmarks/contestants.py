"""Which engines run, in which environment, how often on which corpus, and why some do not run on some.

It knows nothing of how a run is measured. Called by `benchmarks/dedup.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Gives = Literal["cluster", "keep", "flag"]
"""`cluster`: an id on every ticket. `keep`: which tickets stay. `flag`: which tickets have a partner."""


@dataclass(frozen=True)
class Engine:
    """One way to find duplicates."""

    name: str
    script: str
    mode: str
    environment: str
    """`project`, or the name of a list in `benchmarks/peers/`."""
    gives: Gives
    role: Literal["ours", "peer", "made", "floor"]
    """`made`: no product, but what we could put together from others' parts."""
    rounds: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Corpus -> runs; a corpus that is not here is not run."""
    note: str = ""
    left_out: str = ""
    """Why it is not run on larger corpora."""


FAST = {"20k": 3, "200k": 5, "1m": 3, "flood": 3}
RENSA = {"20k": 3, "200k": 3, "1m": 1, "flood": 1}

ENGINES = (
    Engine("tunegate", "tunegate_engine.py", "join", "project", "cluster", "ours", FAST, "exact"),
    Engine("DuckDB GROUP BY hash", "duckdb_engine.py", "floor", "project", "keep", "floor", FAST, "exact copies"),
    Engine("DuckDB exact labels", "duckdb_engine.py", "exact", "project", "cluster", "floor", FAST, "exact copies"),
    Engine("rensa LSH clusters", "rensa_engine.py", "clusters", "rensa", "cluster", "peer", RENSA, "estimated J"),
    Engine("rensa inline", "rensa_engine.py", "inline", "rensa", "keep", "peer", RENSA, "estimated J"),
    Engine("rensa C-MinHash inline", "rensa_engine.py", "c-minhash", "rensa", "keep", "peer", RENSA, "estimated J"),
    Engine("rensa flags matrix", "rensa_engine.py", "flags", "rensa", "flag", "peer", RENSA, "no check"),
    Engine("rensa rho flags", "rensa_engine.py", "rho", "rensa", "flag", "peer", RENSA, "samples, 8 bands, no check"),
    Engine("rensa flags, DuckDB words", "rensa_engine.py", "hashed", "rensa", "flag", "made", RENSA, "no check"),
    Engine(
        "DuckDB SQL MinHash", "duckdb_engine.py", "minhash", "project", "cluster", "made",
        {"20k": 3, "200k": 1, "flood": 1}, "16 bands of 4, exact check",
        "1m would take minutes, and it is nobody's product",
    ),
    Engine(
        "FastSketchLSH", "fastsketch_engine.py", "clusters", "fastsketch", "cluster", "peer",
        {"20k": 1, "200k": 1}, "estimated J",
        "1m would need about 14 GB; the flood compares all pairs of its 10,000 copies in Python",
    ),
    Engine(
        "datasketch", "datasketch_engine.py", "clusters", "datasketch", "cluster", "peer",
        {"20k": 1, "200k": 1}, "estimated J",
        "1m would need about 13 GB; the flood compares all pairs of its 10,000 copies in Python",
    ),
    Engine(
        "text-dedup", "textdedup_engine.py", "own", "text-dedup", "cluster", "peer",
        {"20k": 1, "200k": 1}, "its own 14 bands of 9, no check", "1m would take ten minutes and about 35 GB",
    ),
    Engine(
        "text-dedup checked", "textdedup_engine.py", "checked", "text-dedup", "cluster", "peer",
        {"20k": 1}, "its own bands, check_false_positive", "200k costs what it costs unchecked",
    ),
    Engine(
        "text-dedup 32x4 checked", "textdedup_engine.py", "wide", "text-dedup", "cluster", "peer",
        {"20k": 1}, "32 bands of 4, check_false_positive", "200k does not end in half an hour",
    ),
    Engine(
        "datatrove", "datatrove_engine.py", "own", "datatrove", "cluster", "peer",
        {"20k": 1, "200k": 1}, "5-grams, 14 bands of 8, no check: FineWeb's settings",
        "1m would take about twenty minutes",
    ),
    Engine(
        "datatrove 32x4", "datatrove_engine.py", "wide", "datatrove", "cluster", "peer",
        {"20k": 1}, "3-grams, no check",
        "200k would cost as much as datatrove above, and unchecked wide bands only merge more",
    ),
    Engine(
        "semhash", "semhash_engine.py", "clusters", "semhash", "cluster", "peer",
        {"20k": 1, "200k": 1}, "wordllama, cosine 0.97: judges meaning, so the oracle only indicates",
        "1m would take about twenty minutes",
    ),
)  # fmt: skip

ABSENT = (
    "NeMo Curator 1.4.0: its fuzzy deduplication imports cudf and rapidsmpf (`stages/deduplication/fuzzy/minhash.py`), "
    "so it runs on a GPU alone.",
)
"""Peers that do not run at all, and why."""

LIMIT_S = {"2k": 120.0, "20k": 240.0, "200k": 420.0, "1m": 420.0, "flood": 180.0}
"""Wall seconds after which one run is ended and told as `over N s`."""

QUICK = {"tunegate": 3, "DuckDB GROUP BY hash": 3}
"""Rounds at 200k with QUICK=1; rensa's modes run once, nothing else runs."""


def not_run() -> list[str]:
    """Every engine that is missing somewhere, and why."""
    return [*(f"{engine.name}: {engine.left_out}." for engine in ENGINES if engine.left_out), *ABSENT]


def plan(corpus: str, *, quick: bool) -> dict[Engine, int]:
    """Engine -> rounds on this corpus."""
    if not quick:
        return {engine: engine.rounds[corpus] for engine in ENGINES if corpus in engine.rounds}
    chosen = [engine for engine in ENGINES if engine.name in QUICK or engine.environment == "rensa"]
    return {engine: QUICK.get(engine.name, 1) for engine in chosen}
