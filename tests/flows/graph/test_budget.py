"""How long a graph takes: sequentially, in parallel, and on the critical path."""

import pytest

from flows.graph.budget import Times, times
from flows.graph.graph import Graph
from schemas.artifacts import Artifact
from tests.support.graph_steps import copy


def chain_and_two(graph: Graph) -> None:
    """`base` in one stage; in the next a chain of two steps after it, and a single step."""
    with graph.stage("one"):
        base = graph.named("base").add(copy, x=Artifact(root="/nowhere", digest="d"), ran=[])
    with graph.stage("two"):
        first = graph.named("first").add(copy, x=base, ran=[])
        graph.named("second").add(copy, x=first, ran=[])
        graph.named("alone").add(copy, x=base, ran=[])


SECONDS = {"base": 5.0, "first": 1.0, "second": 2.0, "alone": 4.0}


@pytest.mark.parametrize(("cpu", "parallel"), [(1, 12.0), (2, 9.0)])
def test_stages_are_barriers_and_steps_run_in_parallel_within_the_budget(cpu: float, parallel: float) -> None:
    graph = Graph()
    chain_and_two(graph)
    assert times(graph, SECONDS, {"cpu": cpu}) == Times(12.0, parallel, 9.0)


def test_a_step_that_takes_no_time_takes_no_core() -> None:
    graph = Graph()
    chain_and_two(graph)
    assert times(graph, {"alone": 4.0}, {"cpu": 1}) == Times(4.0, 4.0, 4.0)


def test_a_budget_in_which_nothing_can_start_is_an_error() -> None:
    graph = Graph()
    chain_and_two(graph)
    with pytest.raises(ValueError, match="base can never start"):
        times(graph, SECONDS, {"cpu": 0.5})
