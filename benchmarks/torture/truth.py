"""What must be so after a fault: nothing acknowledged is lost, nothing that is there is wrong.

`standing` may be asked at any moment, `missing` right after a fault, `differing` when a later run has finished.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture.fork import Ack
from benchmarks.torture.world import PIPELINE
from flows.engine.ledger import Ledger
from schemas.errors import TunegateError
from tasks.files import verify

Digests = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Truth:
    """What an uninterrupted run leaves."""

    digests: Digests
    """Step -> digests of its result over all runs of the ledger."""
    champion: tuple[str, ...]
    """Version, and digests of model, trained weights, bundle and verdict."""
    history: tuple[tuple[str, str], ...]
    """Action and version of each event."""
    candidates: tuple[tuple[str, str], ...]
    """Version and verdict of each candidate."""
    aliases: Mapping[str, int]
    """MLflow's."""
    n_versions: int
    """MLflow's."""


def read_truth(home: Path) -> Truth:
    """The truth of a home folder."""
    ledger = Ledger(home)
    digests: dict[str, set[str]] = {}
    for run in ledger.runs(limit=1000):
        for row in ledger.steps(run.run_id):
            if row.state != "failed" and row.step != "warehouse":  # DuckDB does not order a file's pages
                digests.setdefault(row.step, set()).add(row.digest)
    snapshots = home / "warehouse" / PIPELINE / "snapshots"
    digests["snapshot"] = {place.name for place in snapshots.glob("*")}
    champion = ledger.champion(PIPELINE)
    told = () if champion is None else (
        champion.version, champion.model.digest, champion.trained.digest, champion.bundle.digest,
        champion.verdict_digest,
    )  # fmt: skip
    aliases, n_versions = _mlflow(home / "mlflow" / "mlflow.db")
    return Truth(
        digests={step: frozenset(found) for step, found in digests.items()},
        champion=told,
        history=tuple((event.action, event.to_version) for event in ledger.history()),
        candidates=tuple((row.ref.version, row.verdict) for row in ledger.candidates(PIPELINE)),
        aliases=aliases,
        n_versions=n_versions,
    )


def differing(home: Path, golden: Truth) -> Iterator[str]:
    """What is not as an uninterrupted run leaves it."""
    found = read_truth(home)
    for step, digests in golden.digests.items():
        if found.digests.get(step) != digests:
            yield f"{step}: {_short(found.digests.get(step))} instead of {_short(digests)}"
    for what in ("champion", "history", "candidates", "aliases", "n_versions"):
        if getattr(found, what) != getattr(golden, what):
            yield f"{what}: {getattr(found, what)} instead of {getattr(golden, what)}"
    if pending := Ledger(home).pending_projections():
        yield f"MLflow has not been told of {len(pending)} changes"
    yield from standing(home)


def standing(home: Path) -> Iterator[str]:
    """What is wrong with the champion and with the ledger this moment."""
    try:
        ledger = Ledger(home)
        ledger.history()
        for champion in ledger.champions():
            for artifact in (champion.model, champion.trained, champion.bundle):
                if verify(artifact.root) != artifact.digest:
                    yield f"champion v{champion.version}: {artifact.root.parent.name} has another digest"
    except (TunegateError, sqlite3.Error) as error:
        yield f"standing: {type(error).__name__} {error}"


def missing(home: Path, acks: Iterable[Ack]) -> Iterator[str]:
    """What was acknowledged and is not there: results of steps, rows of the ledger, verdicts, promotions."""
    ledger = Ledger(home)
    rows = {(run.run_id, row.step): row.digest for run in ledger.runs(limit=1000) for row in ledger.steps(run.run_id)}
    stored: dict[str, set[str]] = {}
    for ack in acks:
        if ack["kind"] == "step":
            folder = ack["folder"]
            if folder not in stored:
                stored[folder] = set(_verified(home / "store" / folder))
            if ack["digest"] not in stored[folder]:
                yield f"the result of {ack['step']} is not in the store"
            if rows.get((ack["run_id"], ack["step"])) != ack["digest"]:
                yield f"{ack['step']} is not in the ledger"
        elif ack["kind"] == "end" and ack["verdict"] == "PROMOTE":
            champion = ledger.champion(PIPELINE)
            if champion is None or champion.version != ack["version"]:
                yield f"v{ack['version']} was promoted and is not champion"


def _verified(folder: Path) -> Iterator[str]:
    for place in sorted(folder.glob("*")):
        try:
            yield verify(place)
        except TunegateError:
            continue


def _mlflow(database: Path) -> tuple[dict[str, int], int]:
    if not database.exists():
        return {}, 0
    with closing(sqlite3.connect(database)) as db:
        aliases = dict(
            db.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (PIPELINE,)).fetchall()
        )
        query = "SELECT count(*) FROM model_versions WHERE name = ? AND current_stage <> 'Deleted_Internal'"
        return aliases, int(db.execute(query, (PIPELINE,)).fetchone()[0])


def _short(digests: frozenset[str] | None) -> str:
    return "+".join(sorted(digest[:8] for digest in digests)) if digests else "nothing"
