"""Small steps for tests of graphs. Each records its call in `ran`, which is not part of a key."""

import hashlib
from pathlib import Path

from flows.graph.execute import Guard, NodeOutcome, Observer, Run, run_plainly
from flows.graph.graph import Graph, Node
from flows.graph.store import Store
from schemas.artifacts import Artifact, RowCounts, TicketTable
from tasks.step import as_step

NOTES = ("name", "ran")
Several = Artifact | tuple[Artifact, ...] | None


def mixed(out: Path, number: int, inputs: dict[str, Several]) -> Artifact:
    """Write a digest of the inputs and half the number, so 2 and 3 give the same bytes."""
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
    """Like `mix`, but of another kind, so the two share no results."""
    ran.append(name)
    return mixed(out, number, {"x": x, "y": y})


@as_step("mix", context=NOTES, libraries=("numpy",))
def mix_otherwise(out: Path, *, factor: int, name: str, ran: list[str], x: Several = None) -> Artifact:
    """Of the kind of `mix`, with parameters and libraries of its own."""
    ran.append(name)
    return mixed(out, factor, {"x": x})


@as_step("split", context=NOTES, extends="previous")
def split(
    out: Path, *, number: int, name: str, ran: list[str], x: Artifact, previous: Artifact | None = None
) -> Artifact:
    """Extend its own previous result."""
    ran.append(name)
    return mixed(out, number, {"x": x, "previous": previous})


@as_step("write", context=("ran",))
def write(
    out: Path, *, text: str, ran: list[str], x: Artifact | None = None, several: tuple[Artifact, ...] = ()
) -> Artifact:
    """Write the text and the contents of the inputs; skip inputs that were left out."""
    ran.append(text)
    (out / "text").write_text(" ".join([text, *(text_of(each) for each in (*([x] if x else []), *several))]))
    return Artifact(root=out)


@as_step("copy", context=("ran",))
def copy(out: Path, *, x: Artifact, ran: list[str]) -> Artifact:
    """Write the contents of the input, which must exist."""
    ran.append("copy")
    (out / "text").write_text(text_of(x))
    return Artifact(root=out)


@as_step("both", context=("ran",))
def both(out: Path, *, x: Artifact, y: Artifact, ran: list[str]) -> Artifact:
    """Write the contents of two inputs, which must exist."""
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
    """Run the whole graph as `--no-prefect` does; the outcomes are on the returned run."""
    run = Run(graph, store, observer=observer, guard=guard)
    run_plainly(run)
    return run


def results(run: Run) -> dict[str, Artifact]:
    """Results by node name, without the nodes that were left out."""
    return {name: outcome.result for name, outcome in run.outcomes.items() if not outcome.skipped}


class Notes(Observer):
    """Records its notifications, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def started(self, node: Node) -> None:
        self.events.append(("started", node.name))

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        self.events.append(("progressed", node.name, f"{done}/{total} {unit} {figures}"))

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        self.events.append(("ended", node.name, outcome.skipped or ("reused" if outcome.reused else "made")))

    def failed(self, node: Node, error: BaseException) -> None:
        self.events.append(("failed", node.name, str(getattr(error, "code", type(error).__name__))))

    def became(self, name: str, node: Node, outcome: NodeOutcome) -> None:
        self.events.append(("became", name, node.name))

    def of(self, *kinds: str) -> list[tuple[str, ...]]:
        return [each for each in self.events if each[0] in kinds]
