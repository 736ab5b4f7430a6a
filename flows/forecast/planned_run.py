"""Plan a run of a pipeline, node by node: for `tunegate plan` and `tunegate graph`. Writes nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.build import PipelineGraph, build_run
from flows.context.as_of import check_as_of, check_ingested, end_of
from flows.context.graph_context import GraphContext, context_of
from flows.context.ingest import landed_folder
from flows.context.previous_run import find_previous_run
from flows.context.request import RunRequest
from flows.graph.budget import budget_of
from flows.graph.execute import Run
from flows.graph.plan import NEVER_RAN, PlannedNode, plan
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger, open_store
from flows.registry.state import RegistryState, registry_state_of
from flows.run.faults import check_early
from flows.workspace.ray_cluster import check_cluster
from flows.workspace.settings import Settings, load_settings
from schemas.load import load_file
from schemas.pipeline import DataPipeline
from tasks.sources.registry import kind_of

DIGESTS = {
    "params.fingerprint": "new tickets",
    "params.forgotten": "customers were forgotten",
    "params.files": "another base model",
    "params.candidate": "another candidate",
    "params.tables": "another named table",
    "params.feedback": "new feedback",
    "params.articles": "other help articles",
    "params.labels": "other labels",
    "params.seen": "people saw held-out items",
}
"""Parameters that are digests or many values -> the reason to show when they have changed."""
CODE = "code of "
CAUSES = {
    "params.": "parameter",
    CODE: "code",
    "function ": "code",
    "made by ": "another step",
    "input ": "result of an earlier step",
    "known when ": "waits for an earlier step",
    "the stored result is damaged": "result is gone",
    "its result was removed": "result is gone",
}
"""Start of a reason -> the kind of change; others are libraries."""
SHOWN_MODULES = 2
PAST_RUNS = 20


@dataclass(frozen=True)
class PlannedRun:
    """The graph that a run would execute now, with what it would do with each node."""

    spec: DataPipeline
    settings: Settings
    ledger: Ledger
    registry_state: RegistryState
    context: GraphContext
    pipeline: PipelineGraph
    run: Run
    """Has the results that would be reused."""
    nodes: tuple[PlannedNode, ...]
    """In order."""
    seconds: Mapping[str, float | None]
    """Node's name -> what it usually takes; None if no run has recorded it."""


def plan_pipeline(pipeline: str, config: Path, *, as_of: str | None = None, given: tuple[str, ...] = ()) -> PlannedRun:
    """Walk the graph that a run would execute.

    Args:
        as_of: Only tickets created by the end of this day, as `tunegate run --as-of`.
        given: Settings in place of the file's, as `tunegate run --set`.

    Raises:
        ConfigError: TG0103, the day is none or not over; TG0159, a remote source was not ingested since.
        TunegateError: the configuration, the ledger or a declared file cannot be read.
    """
    spec = load_file(config, settings=given, only=pipeline).find(pipeline)
    settings, before = load_settings(config), None
    if as_of is not None:
        before = end_of(check_as_of(as_of))
        if kind_of(spec.source).is_remote:
            check_ingested(spec.source, landed_folder(settings, spec.name), as_of)
    check_cluster(spec, settings)
    check_early(spec, settings, root=config.resolve().parent)
    ledger, store = open_ledger(settings), open_store(settings)
    registry_state = registry_state_of(spec, ledger, before=before)
    previous_run = find_previous_run(ledger, store, spec.name, before=before)
    context = context_of(
        spec, settings, root=config.resolve().parent, registry_state=registry_state, previous_run=previous_run,
        as_of=as_of,
    )  # fmt: skip
    context = replace(context, limits_examples=RunRequest(given=given).limits_examples)
    declared, context, _ = build_run(spec, context, ledger)
    run = Run(declared.graph, store, budget=budget_of(settings))
    nodes = tuple(_in_words(this) for this in plan(run, _last_keys(ledger, spec.name)))
    seconds = {this.node.name: ledger.typical_seconds(this.id) for this in nodes}
    return PlannedRun(spec, settings, ledger, registry_state, context, declared, run, nodes, seconds)


def _last_keys(ledger: Ledger, pipeline: str) -> dict[str, str]:
    """Node's id -> key of its newest result in the pipeline's last runs."""
    keys: dict[str, str] = {}
    for row in ledger.runs(limit=PAST_RUNS, pipeline=pipeline):
        for step in ledger.steps(row.run_id):
            if step.state != "failed":
                keys.setdefault(step.step, step.key)
    return keys


def _in_words(this: PlannedNode) -> PlannedNode:
    """Replace reasons about digests by what has changed, and many modules by their number."""
    paths = (re.split(r"[ :\[]", reason)[0].split(".")[:2] for reason in this.reasons)
    reasons = [DIGESTS.get(".".join(path), reason) for path, reason in zip(paths, this.reasons, strict=True)]
    modules = [reason for reason in reasons if reason.startswith(CODE)]
    if len(modules) > SHOWN_MODULES:
        names = ", ".join(reason.removeprefix(CODE).partition(" ")[0] for reason in modules[:SHOWN_MODULES])
        place = reasons.index(modules[0])
        reasons = [reason for reason in reasons if reason not in modules]
        reasons.insert(place, f"{CODE}{len(modules)} modules changed: {names} ...")
    return replace(this, reasons=tuple(dict.fromkeys(reasons)))


def causes_of(this: PlannedNode) -> tuple[str, ...]:
    """The kinds of change for which a node runs: `new tickets`, `parameter`, `code`, `library` and the like."""
    return tuple(dict.fromkeys(_cause(reason) for reason in this.reasons)) if this.state in ("run", "maybe") else ()


def _cause(reason: str) -> str:
    if reason in DIGESTS.values() or reason in (NEVER_RAN, "in every run"):
        return reason
    for start, cause in CAUSES.items():
        if reason.startswith(start):
            return cause
    return "library"  # `torch 2.14.0 -> 2.15.0`
