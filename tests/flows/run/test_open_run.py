"""What the ledger records about each node of a run, and what listeners are notified of."""

from pathlib import Path
from typing import Any

import pytest

from flows.context.run_context import RunContext
from flows.graph.execute import NodeOutcome, Run, run_plainly
from flows.graph.graph import Graph, Node
from flows.run.open_run import RunObserver
from schemas.artifacts import Artifact
from schemas.errors import TrainingError
from tasks.progress import Progress
from tasks.step import BY_RUNNER, as_step


@as_step("train")
def diverge(out: Path, *, code: str) -> Artifact:
    raise TrainingError("loss is not finite", code=code)


@as_step("after")
def after(out: Path, *, x: Artifact | None = None, several: tuple[Artifact, ...] = ()) -> Artifact:
    (out / "count").write_text(str(len(several)))
    return Artifact(root=out)


@as_step("needs")
def needs(out: Path, *, x: Artifact, progress: Progress = BY_RUNNER) -> Artifact:
    progress(1, 2, "steps", loss=0.5)
    return Artifact(root=out)


def act(run: RunContext, *, data: Artifact) -> None:
    """Has a side effect; not recorded as a step."""


def first_of(graph: Graph, *, several: tuple[Artifact, ...]) -> Artifact:
    return several[0]


class Recorder:
    """A listener that records its notifications."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(self, node: Node) -> None:
        self.notes.append(f"started {node.name}")

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        self.notes.append(f"{node.name} {done}/{total} {unit} {figures}")

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        self.notes.append(f"ended {node.name} {outcome.skipped or ('reused' if outcome.reused else 'made')}")

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def entered(self, stage: str) -> None:
        """No stage is entered here."""


def run_graph(context: RunContext, graph: Graph) -> Run:
    run = Run(graph, context.store, observer=RunObserver(context), live=context)
    run_plainly(run)
    return run


def rows(context: RunContext) -> dict[str, tuple[Any, ...]]:
    return {row.step: (row.state, row.error) for row in context.ledger.steps(context.run_id)}


def test_a_diverged_training_is_left_out_and_its_error_is_recorded(run_context: RunContext) -> None:
    recorder, graph = Recorder(), Graph()
    run_context.listeners.members.append(recorder)
    trained = graph.named("train", "t1", tolerates=("TG0401",)).add(diverge, code="TG0401")
    scores = graph.named("scores", "t1").add(needs, x=trained)
    selection = graph.named("all").add(after, several=(trained, scores))
    run = run_graph(run_context, graph)
    assert (run.result(selection).root / "count").read_text() == "0"
    assert rows(run_context) == {"train_t1": ("failed", "TG0401: loss is not finite"), "all": ("done", "")}
    assert recorder.notes == [
        "started train · t1",
        "train · t1 has no result: TG0401: loss is not finite",
        "ended train · t1 TG0401: loss is not finite",
        "ended scores · t1 train · t1 was left out",
        "started all",
        "ended all made",
    ]


@pytest.mark.parametrize(("code", "tolerates"), [("TG0405", ("TG0401",)), ("TG0401", ())])
def test_any_other_error_ends_the_run_and_is_recorded(
    run_context: RunContext, code: str, tolerates: tuple[str, ...]
) -> None:
    graph = Graph()
    trained = graph.named("t1", tolerates=tolerates).add(diverge, code=code)
    graph.named("all").add(after, several=(trained,))
    with pytest.raises(TrainingError, match=code):
        run_graph(run_context, graph)
    assert rows(run_context) == {"t1": ("failed", f"{code}: loss is not finite")}


def test_a_step_is_recorded_as_made_then_as_reused_and_an_act_is_not_recorded(run_context: RunContext) -> None:
    def graph() -> Graph:
        graph = Graph()
        a = graph.named("a").add(after)
        graph.effect(act, data=graph.add(needs, x=a))
        return graph

    recorder = Recorder()
    run_context.listeners.members.append(recorder)
    run = run_graph(run_context, graph())
    assert rows(run_context) == {"a": ("done", ""), "needs": ("done", "")}
    assert "needs 1/2 steps {'loss': 0.5}" in recorder.notes
    assert "started act" in recorder.notes
    run_graph(run_context, graph())
    assert rows(run_context) == {"a": ("reused", ""), "needs": ("reused", "")}
    (row, _) = run_context.ledger.steps(run_context.run_id)
    assert (row.key, row.digest) == (run.outcomes["a"].key, run.outcomes["a"].result.digest)


def test_the_result_of_a_growing_node_is_recorded_under_its_own_name(run_context: RunContext) -> None:
    """Lineage and reports look for `train`, whichever training was selected."""
    graph = Graph()
    a = graph.named("train", "t1").add(after)
    graph.named("train").expand(first_of, several=(a,))
    run_graph(run_context, graph)
    assert rows(run_context) == {"train_t1": ("done", ""), "train": ("reused", "")}
    one, other = run_context.ledger.steps(run_context.run_id)
    assert (one.key, one.digest) == (other.key, other.digest)
