"""Build the graph of a pipeline from its four stages, for `plan`, `graph` and the run."""

from __future__ import annotations

from dataclasses import dataclass

from flows.assess import Assessed, assess
from flows.context.graph_context import GraphContext
from flows.curate import Curated, curate
from flows.finetune import Tuned, finetune
from flows.graph.graph import Graph
from flows.release import Released, release, release_as_of
from schemas.pipeline import PipelineSpec

STAGES = ("curate", "finetune", "assess", "release")


@dataclass(frozen=True)
class PipelineGraph:
    """The graph, and the handles of each stage's results by name."""

    graph: Graph
    curated: Curated
    tuned: Tuned
    assessed: Assessed
    released: Released


def build(spec: PipelineSpec, context: GraphContext) -> PipelineGraph:
    """Declare all nodes of the pipeline; call nothing.

    Raises:
        TunegateError: a declared file cannot be read.
    """
    graph = Graph()
    curated = curate(graph, spec, context)
    tuned = finetune(graph, spec, context, splits=curated.shown, base_model=curated.base_model)
    assessed = assess(graph, spec, context, splits=curated.shown, tuned=tuned)
    if context.as_of is None:
        released = release(graph, spec, curated=curated, tuned=tuned, assessed=assessed)
    else:
        released = release_as_of(graph, assessed=assessed)
    return PipelineGraph(graph, curated, tuned, assessed, released)
