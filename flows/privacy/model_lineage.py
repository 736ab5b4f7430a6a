"""What a registered model version was made from: run, snapshot, examples, base model, what it goes on from, marks.

Reads ledger, store and index. Called by `tunegate lineage`.
"""

from __future__ import annotations

from typing import Any

from flows.engine.ledger import Ledger
from flows.engine.rows import CandidateRow
from flows.privacy.graph import Graph, Node
from flows.recorded import Recorded
from flows.settings import Settings, open_ledger
from schemas.artifacts import Artifact, DatasetRef, Splits, WarehouseRef


def find_version(ledger: Ledger, what: str) -> CandidateRow | None:
    """`NAME/VERSION`, or `NAME` for its champion, or its newest candidate where it has none."""
    name, slash, version = what.rpartition("/")
    if slash and version.isdecimal():
        return ledger.candidate(name, version)
    champion = ledger.champion(what)
    if champion is not None:
        return ledger.candidate(what, champion.version)
    return next(iter(ledger.candidates(what)), None)


def model_lineage(settings: Settings, row: CandidateRow) -> dict[str, Any]:
    """Everything that is known of how the version came to be; what is gone from the store is null."""
    ledger, ref = open_ledger(settings), row.ref
    graph = Graph(settings.home, ledger)
    recorded = Recorded(settings, ref.run_id)
    mark = ledger.mark_of(ref.run_id)
    warehouse = recorded.result("warehouse", WarehouseRef)
    clean = recorded.result("decontaminate", Splits)
    trained = next((node for node in graph.nodes if node.key == ref.trained.root.name and node.step == "train"), None)
    dataset = _stored(recorded, _source(graph, trained, "n_supervised"), DatasetRef)
    champion = ledger.champion(ref.name)
    return {
        "name": ref.name,
        "version": ref.version,
        "is_champion": champion is not None and champion.version == ref.version,
        "verdict": row.verdict,
        "run_id": ref.run_id,
        "pipeline": recorded.row.pipeline,
        "recorded_at": row.recorded_at,
        "mlflow_version": row.mlflow_version,
        "snapshot_id": mark.snapshot_id if mark else warehouse.snapshot_id if warehouse else None,
        "tickets": {"train": clean.n_train, "validation": clean.n_validation, "test": clean.n_test} if clean else None,
        "examples": (
            {"train": dataset.n_train, "validation": dataset.n_validation, "tokens": dataset.n_tokens}
            if dataset
            else None
        ),
        "base": {"uri": ref.model.uri, "digest": ref.model.digest},
        "trained": {
            "method": ref.trained.method, "format": ref.trained.format, "steps": ref.trained.n_steps,
            "digest": ref.trained.digest,
        },
        "goes_on_from": _parents(graph, trained, ledger),
        "bundle": ref.bundle.digest,
        "marked": [mark.told for mark in ledger.marked(ref.name, ref.version)],
    }  # fmt: skip


def told_lines(told: dict[str, Any]) -> list[str]:
    """The same as lines for people."""
    title = f"{told['name']} v{told['version']}{', champion' if told['is_champion'] else ''}: {told['verdict']}"
    examples, tickets = told["examples"], told["tickets"]
    gone = "not in the store any more"
    lines = [
        f"{title} in run {told['run_id']} of {told['pipeline']}",
        f"snapshot {told['snapshot_id'] or gone}",
        f"tickets {_counts(tickets) if tickets else gone}",
        f"examples {_counts(examples) if examples else gone}",
        f"base {told['base']['uri']} ({told['base']['digest'][:16]})",
        f"trained {told['trained']['method']}, {told['trained']['steps']:,} steps ({told['trained']['digest'][:16]})",
        f"goes on from {', '.join(told['goes_on_from']) or 'no other training'}",
        f"bundle {told['bundle'][:16]}",
    ]
    return [*lines, *told["marked"]]


def _parents(graph: Graph, trained: Node | None, ledger: Ledger) -> list[str]:
    """Earlier trainings whose weights it began with, as versions where they are registered."""
    if trained is None:
        return []
    versions = {
        row.ref.trained.root.name: f"{row.ref.name} v{row.ref.version}"
        for name in ledger.model_names()
        for row in ledger.candidates(name)
    }
    sources = [node for digest in sorted(trained.inputs) for node in graph.by_digest.get(digest, [])]
    return [versions.get(node.key, node.place) for node in sources if _says(graph, node, "n_trainable")]


def _source(graph: Graph, trained: Node | None, field: str) -> Node | None:
    inputs = sorted(trained.inputs) if trained is not None else []
    sources = (node for digest in inputs for node in graph.by_digest.get(digest, []))
    return next((node for node in sources if _says(graph, node, field)), None)


def _says(graph: Graph, node: Node, field: str) -> bool:
    """Has the result's reference this field? False for one that is gone."""
    return field in graph.reference(node)


def _stored(recorded: Recorded, node: Node | None, kind: type[DatasetRef]) -> DatasetRef | None:
    found: Artifact | object = recorded.store.look(node.step, node.key, kind) if node is not None else None
    return found if isinstance(found, kind) else None


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())
