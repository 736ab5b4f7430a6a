"""The whole graph of a pipeline: its four stages, joined. `plan`, `graph` and the run all build it here."""

from __future__ import annotations

from dataclasses import dataclass

from flows.assess import Assessed, assess
from flows.context.graph_context import GraphContext
from flows.curate import Curated, curate
from flows.finetune import Tuned, finetune
from flows.graph.graph import Graph
from flows.release import Released, release
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
    """Declare all nodes of the pipeline; calls nothing.

    Raises:
        TunegateError: a file that the declaration names cannot be read.
    """
    graph = Graph()
    curated = curate(graph, spec, context)
    tuned = finetune(graph, spec, context, splits=curated.clean, base_model=curated.base_model)
    assessed = assess(graph, spec, context, splits=curated.clean, tuned=tuned)
    released = release(graph, spec, curated=curated, tuned=tuned, assessed=assessed)
    return PipelineGraph(graph, curated, tuned, assessed, released)
