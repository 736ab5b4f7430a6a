"""Build the graph of a pipeline from its stages, for `plan`, `graph` and the run."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

from flows.assess import Assessed, assess
from flows.context.as_of import end_of
from flows.context.graph_context import GraphContext
from flows.context.outcome import Outcome
from flows.curate import Curated, curate
from flows.finetune import Tuned, finetune, tuned_before
from flows.graph.graph import Graph, Node
from flows.graph.keys import code_digests, digest_of, installed
from flows.ledger.ledger import Ledger
from flows.prepare import prepare
from flows.registry.held import LEARNED, HeldCandidate
from flows.release import release, release_as_of
from schemas.artifacts import GateDecision, Splits
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.schedule import OPERATIONS
from schemas.verdicts import NOTHING_JUDGED
from tasks.curate.decontaminate import decontaminate
from tasks.curate.unseen import leave_out_learned


@dataclass(frozen=True)
class Modelled:
    """The stages after curation."""

    tuned: Tuned
    assessed: Assessed
    outcome: Outcome


@dataclass(frozen=True)
class PipelineGraph:
    """The graph, and the handles of each stage's results by name."""

    graph: Graph
    curated: Curated
    modelled: Modelled | None = None
    """None of a pipeline of data alone."""

    @property
    def decision(self) -> GateDecision | None:
        """The verdict's handle; None if there is no gate."""
        return None if self.modelled is None else self.modelled.assessed.decision

    @property
    def tuned(self) -> Tuned:
        """The training's results.

        Raises:
            TypeError: it is a pipeline of data alone.
        """
        return self._model().tuned

    @property
    def assessed(self) -> Assessed:
        """What the verdict is about.

        Raises:
            TypeError: it is a pipeline of data alone.
        """
        return self._model().assessed

    def _model(self) -> Modelled:
        if self.modelled is None:
            raise TypeError("a pipeline of data alone has no model")
        return self.modelled


def build(spec: DataPipeline, context: GraphContext) -> PipelineGraph:
    """Declare all nodes of the pipeline; call nothing.

    Raises:
        TunegateError: a declared file cannot be read.
    """
    graph = Graph()
    curated = curate(graph, spec, context)
    if not isinstance(spec, PipelineSpec):
        return PipelineGraph(graph, curated)
    used, base_model = curated, curated.base_model
    if context.held is not None:
        used = replace(curated, shown=unseen_by(graph, spec, context.held, today=curated.shown))
    prepared = prepare(graph, spec, context, splits=used.shown)
    if context.held is None:
        tuned = finetune(graph, spec, context, splits=used.shown, prepared=prepared, base_model=base_model)
    else:
        tuned = tuned_before(graph, spec, context.held, prepared=prepared, base_model=base_model)
    assessed = assess(graph, spec, context, curated=used, prepared=prepared, tuned=tuned)
    if context.as_of is None:
        outcome = release(graph, spec, curated=curated, tuned=tuned, assessed=assessed)
    else:
        outcome = release_as_of(graph, assessed=assessed)
    return PipelineGraph(graph, curated, Modelled(tuned, assessed, outcome))


def unseen_by(graph: Graph, spec: PipelineSpec, held: HeldCandidate, *, today: Splits) -> Splits:
    """Add what a held candidate learned from, with the tickets of today's test split that it learned nothing of.

    So every arm is prompted as in its last look, and the check for leakage compares what was really learned.
    """
    with graph.stage("curate"):
        learned = graph.named(LEARNED).keep(decontaminate, held.learned)
        return graph.add(leave_out_learned, learned=learned, today=today, spec=spec.curate.decontaminate)


def build_run(spec: DataPipeline, context: GraphContext, ledger: Ledger) -> tuple[PipelineGraph, GraphContext, str]:
    """Declare the graph of a run; return it with its context and the digest of its inputs.

    The held-out items depend on what people saw, and on what was judged, before the first run of these inputs, which
    are known only then.
    """
    pipeline = build(spec, context)
    digest = input_digest(spec, pipeline.graph, context)
    if not isinstance(spec, PipelineSpec):
        return pipeline, context, digest
    before = context.as_of and end_of(context.as_of)
    reuse, state = spec.gates.reuse, context.registry_state
    seen = ledger.seen_items(spec.name, digest, before=before)
    worn = NOTHING_JUDGED
    if reuse is not None:
        worn = ledger.judged_items(spec.name, digest, before=before, budget=reuse.budget)
    if (seen, worn) == (state.seen, state.worn):
        return pipeline, context, digest
    context = replace(context, registry_state=replace(state, seen=seen, worn=worn))
    return build(spec, context), context, digest


def input_digest(spec: DataPipeline, graph: Graph, context: GraphContext) -> str:
    """Return the digest of everything that decides the run: configuration, tickets, base model, code and libraries.

    For a graph that is not expanded. Champion and labels are not included; `flows/schedule/worth.py` checks them
    separately, so that a run with other labels has the held-out items of the one before.
    """
    nodes = graph.nodes.values()
    return digest_of(
        {
            "spec": spec.model_dump(mode="json", by_alias=True, exclude={"name", "description", "engine", *OPERATIONS}),
            "fingerprint": context.fingerprint,
            "articles": context.articles,
            **({} if context.as_of is None else {"as_of": context.as_of}),
            **({"limits_examples": True} if context.limits_examples else {}),
            **({} if context.held is None else {"held": context.held.ref.trained.digest}),
            "files": {node.id: dict(node.reads) for node in nodes if node.reads},
            "feedback": context.registry_state.feedback_digest,
            "code": code_of(nodes),
            "libraries": {name: installed(name) for node in nodes for name in node.info.libraries},
            "python": list(sys.version_info[:2]),
        }
    )


def code_of(nodes: Iterable[Node]) -> dict[str, str]:
    """Return module -> digest, of all steps and of the functions that add steps later."""
    found: dict[str, str] = {}
    for node in nodes:
        if node.kind != "effect":
            found |= code_digests(node.function)
    return found
