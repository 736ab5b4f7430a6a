"""Plan a run of a pipeline, node by node: for `tunegate plan` and `tunegate graph`. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.build import PipelineGraph, build_run
from flows.context.graph_context import GraphContext, context_of
from flows.context.previous_run import PreviousRun, find_previous_run
from flows.context.registry_state import RegistryState, registry_state_of
from flows.graph.budget import budget_of
from flows.graph.execute import Run
from flows.graph.plan import PlannedNode, plan
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger, open_store
from flows.workspace.ray_cluster import check_cluster
from flows.workspace.settings import Settings, load_settings
from schemas.load import load_file
from schemas.pipeline import PipelineSpec

DIGESTS = {
    "params.fingerprint": "new tickets",
    "params.forgotten": "customers were forgotten",
    "params.files": "another base model",
    "params.feedback": "new feedback",
    "params.articles": "other help articles",
    "params.labels": "other labels",
    "params.seen": "people saw held-out items",
}
"""Parameters that are digests or many values -> the reason to show when they have changed."""


@dataclass(frozen=True)
class PlannedRun:
    """The graph that a run would execute now, with what it would do with each node."""

    spec: PipelineSpec
    settings: Settings
    ledger: Ledger | None
    """None before the first run."""
    registry_state: RegistryState
    context: GraphContext
    pipeline: PipelineGraph
    run: Run
    """Has the results that would be reused."""
    nodes: tuple[PlannedNode, ...]
    """In order."""
    seconds: Mapping[str, float | None]
    """Node's name -> what it usually takes; None if no run has recorded it."""


def plan_pipeline(pipeline: str, config: Path) -> PlannedRun:
    """Walk the graph that a run would execute.

    Raises:
        TunegateError: the configuration, the ledger or a declared file cannot be read.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    check_cluster(spec, settings)
    found = open_ledger(settings)
    ledger = found if found.exists() else None
    registry_state, store = registry_state_of(spec, ledger), open_store(settings)
    previous_run = find_previous_run(ledger, store, spec.name) if ledger else PreviousRun()
    context = context_of(
        spec, settings, root=config.resolve().parent, registry_state=registry_state, previous_run=previous_run
    )
    declared, context, _ = build_run(spec, context, ledger)
    run = Run(declared.graph, store, budget=budget_of(settings))
    nodes = tuple(_in_words(this) for this in plan(run))
    seconds = {this.node.name: ledger.typical_seconds(this.id) if ledger else None for this in nodes}
    return PlannedRun(spec, settings, ledger, registry_state, context, declared, run, nodes, seconds)


def _in_words(this: PlannedNode) -> PlannedNode:
    """Replace reasons about digests by what has changed."""
    paths = (reason.replace(":", " ").partition(" ")[0].split(".")[:2] for reason in this.reasons)
    reasons = (DIGESTS.get(".".join(path), reason) for path, reason in zip(paths, this.reasons, strict=True))
    return replace(this, reasons=tuple(dict.fromkeys(reasons)))
