"""Small steps for tests of graphs. Each notes its call in `ran`, which is no part of a key."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flows.graph.execute import Guard, Observer, Outcome, Run, run_plainly
from flows.graph.graph import Graph, Node
from flows.graph.store import Store
from schemas.artifacts import Artifact, RowCounts, TicketTable
from tasks.step import as_step

NOTES = ("name", "ran")
Several = Artifact | tuple[Artifact, ...] | None


def mixed(out: Path, number: int, inputs: dict[str, Several]) -> Artifact:
    """Write a digest of the inputs and of half the number: 2 and 3 give the same bytes."""
    text = hashlib.sha256(str(number // 2).encode())
    for parameter, value in sorted(inputs.items()):
        for artifact in value if isinstance(value, tuple) else filter(None, (value,)):
            text.update(parameter.encode() + (artifact.root / "text").read_bytes())
    (out / "text").write_text(text.hexdigest())
    return Artifact(root=out)


@as_step("mix", context=NOTES)
def mix(out: Path, *, number: int, name: str, ran: list[str], x: Several = None, y: Several = None) -> Artifact:
    ran.append(name)
    return mixed(out, number, {"x": x, "y": y})


@as_step("other", context=NOTES)
def other(out: Path, *, number: int, name: str, ran: list[str], x: Several = None, y: Several = None) -> Artifact:
    """As `mix`; a kind of its own, so it shares no results with that."""
    ran.append(name)
    return mixed(out, number, {"x": x, "y": y})


@as_step("split", context=NOTES, extends="previous")
def split(
    out: Path, *, number: int, name: str, ran: list[str], x: Artifact, previous: Artifact | None = None
) -> Artifact:
    """Extends its own earlier result."""
    ran.append(name)
    return mixed(out, number, {"x": x, "previous": previous})


@as_step("write", context=("ran",))
def write(
    out: Path,
    *,
    text: str,
    ran: list[str],
    x: Artifact | None = None,
    several: tuple[Artifact, ...] = (),
) -> Artifact:
    """Write the text and what the inputs hold; goes without what was left out."""
    ran.append(text)
    (out / "text").write_text(" ".join([text, *(text_of(each) for each in (*([x] if x else []), *several))]))
    return Artifact(root=out)


@as_step("copy", context=("ran",))
def copy(out: Path, *, x: Artifact, ran: list[str]) -> Artifact:
    """Write what the input holds, which must be there."""
    ran.append("copy")
    (out / "text").write_text(text_of(x))
    return Artifact(root=out)


@as_step("both", context=("ran",))
def both(out: Path, *, x: Artifact, y: Artifact, ran: list[str]) -> Artifact:
    """Write what two inputs hold, which must be there."""
    ran.append("both")
    (out / "text").write_text(f"{text_of(x)} {text_of(y)}")
    return Artifact(root=out)


@as_step("table")
def table(out: Path, *, n_rows: int) -> TicketTable:
    (out / "text").write_text(str(n_rows))
    return TicketTable(root=out, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def text_of(artifact: Artifact) -> str:
    return (artifact.root / "text").read_text()


def run_all(graph: Graph, store: Store, *, observer: Observer | None = None, guard: Guard | None = None) -> Run:
    """Run the whole graph as `--no-prefect` does; how it went is in the run's outcomes."""
    run = Run(graph, store, observer=observer, guard=guard)
    run_plainly(run)
    return run


def results(run: Run) -> dict[str, Artifact]:
    """By the name of the node; those left out are not among them."""
    return {name: outcome.result for name, outcome in run.outcomes.items() if not outcome.skipped}


class Notes(Observer):
    """Keeps what it hears, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def started(self, node: Node) -> None:
        self.heard.append(("started", node.name))

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        self.heard.append(("progressed", node.name, f"{done}/{total} {unit} {figures}"))

    def ended(self, node: Node, outcome: Outcome) -> None:
        self.heard.append(("ended", node.name, outcome.skipped or ("reused" if outcome.reused else "made")))

    def failed(self, node: Node, error: BaseException) -> None:
        self.heard.append(("failed", node.name, str(getattr(error, "code", type(error).__name__))))

    def became(self, name: str, node: Node, outcome: Outcome) -> None:
        self.heard.append(("became", name, node.name))

    def of(self, *kinds: str) -> list[tuple[str, ...]]:
        return [each for each in self.heard if each[0] in kinds]
