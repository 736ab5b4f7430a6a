"""Declaring a graph: it calls nothing, makes edges, and finds mistakes before anything runs."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from flows.graph.graph import Graph, Handle
from schemas.artifacts import Artifact, DatasetRef, TicketTable
from schemas.curation_steps import DedupStep
from tasks.progress import Progress
from tasks.step import BY_RUNNER, as_step
from tests.support.graph_steps import mix, table


@as_step("dedup", libraries=("duckdb",), context=("cache",), heavy=True)
def dedup(
    out: Path,
    *,
    tickets: TicketTable,
    step: DedupStep,
    cache: Path,
    threshold: float = 0.8,
    arm: Literal["tuned", "champion"] = "tuned",
    previous: TicketTable | None = None,
    others: tuple[TicketTable, ...] = (),
    scratch: Path = BY_RUNNER,
    progress: Progress = BY_RUNNER,
) -> TicketTable:
    """Takes everything that a step may take."""
    raise AssertionError("declaring calls nothing")


@as_step("encode")
def encode(out: Path, *, tickets: TicketTable) -> DatasetRef:
    raise AssertionError("declaring calls nothing")


def no_step(out: Path, *, tickets: TicketTable) -> DatasetRef:
    raise AssertionError("declaring calls nothing")


def announce(run: object, *, data: DatasetRef, again: bool = False) -> str:
    raise AssertionError("declaring calls nothing")


STEP = DedupStep(uses="dedup")
ARGUMENTS = {"step": STEP, "cache": Path("cache")}


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def tickets(graph):
    return graph.add(table, n_rows=3)


def test_declaring_calls_nothing_and_returns_a_handle_for_the_result(graph, tickets):
    clean = graph.add(dedup, tickets=tickets, **ARGUMENTS)
    data = graph.add(encode, tickets=clean)
    sent = graph.effect(announce, data=data)
    assert [node.name for node in graph.nodes.values()] == ["table", "dedup", "encode", "announce"]
    assert [node.kind for node in graph.nodes.values()] == ["step", "step", "step", "effect"]
    assert repr(clean) == "<TicketTable of 'dedup'>"
    assert repr(sent) == "<str of 'announce'>"
    assert graph.edges() == [("table", "dedup"), ("dedup", "encode"), ("encode", "announce")]


def test_a_handle_cannot_be_read_before_there_is_a_result(graph, tickets):
    for look in (lambda: tickets.rows, lambda: graph.read(tickets), lambda: tickets.root / "text"):
        with pytest.raises(LookupError, match="'table' has no result"):
            look()
    assert graph.find(tickets) is None
    assert graph.read(STEP) is STEP  # a value that is not a handle is returned as it is


def test_arguments_are_inputs_parameters_or_context(graph, tickets, tmp_path):
    given = TicketTable(root=tmp_path, rows={"n_in": 1, "n_out": 1}, digest="d")
    other = graph.named("other").add(table, n_rows=4)
    node = graph.at(
        graph.add(dedup, tickets=tickets, previous=given, others=(other, given), threshold=0.5, **ARGUMENTS)
    )
    assert set(node.inputs) == {"tickets", "previous", "others"}
    assert node.params == {"step": STEP, "threshold": 0.5}
    assert graph.inputs_of(node) == [graph.at(tickets), graph.at(other)]


def test_a_name_is_for_people_and_an_id_for_ledger_and_store(graph, tickets):
    node = graph.at(graph.named("dedup", "", "second try").add(dedup, tickets=tickets, **ARGUMENTS))
    assert (node.name, node.id, node.folder) == ("dedup · second try", "dedup_second try", "dedup")
    assert graph.at(graph.named("encode", "").add(encode, tickets=tickets)).name == "encode"


def test_naming_a_node_adds_what_else_decides_its_result(graph, tickets):
    named = graph.named("encode", reads={"files": "abc"}, libraries=("numpy",), tolerates=("TG0401",))
    node = graph.at(named.add(dedup, tickets=tickets, **ARGUMENTS))
    assert dict(node.reads) == {"files": "abc"}
    assert node.info.libraries == ("duckdb", "numpy")
    assert node.tolerates == ("TG0401",)
    assert graph.at(graph.add(dedup, tickets=tickets, **ARGUMENTS)).info.libraries == ("duckdb",)


def without(name):
    return {key: value for key, value in ARGUMENTS.items() if key != name}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (without("step"), ["dedup: ", "missing a required argument: 'step'", "dedup takes tickets, step, cache, thr"]),
        (
            {**ARGUMENTS, "treshold": 0.5},
            ["dedup: ", "unexpected keyword argument 'treshold'", "threshold=..., arm=..."],
        ),
        ({**ARGUMENTS, "step": "dedup"}, ["dedup: step must be DedupStep, got str 'dedup'"]),
        ({**ARGUMENTS, "threshold": "0.5"}, ["dedup: threshold must be float, got str '0.5'"]),
        ({**ARGUMENTS, "threshold": None}, ["dedup: threshold must be float, got NoneType None"]),
        ({**ARGUMENTS, "arm": "base"}, ["dedup: arm must be ", "'tuned', 'champion'", "got str 'base'"]),
        ({**ARGUMENTS, "out": Path()}, ["dedup: out is passed by the runner"]),
        ({**ARGUMENTS, "scratch": Path()}, ["dedup: scratch is passed by the runner"]),
        ({**ARGUMENTS, "progress": print}, ["dedup: progress is passed by the runner"]),
    ],
)
def test_a_missing_misspelt_or_wrong_argument_is_reported_with_what_is_expected(graph, tickets, arguments, words):
    with pytest.raises(TypeError) as caught:
        graph.add(dedup, tickets=tickets, **arguments)
    for each in words:
        assert each in str(caught.value)
    assert list(graph.nodes) == ["table"]


def test_a_handle_of_the_wrong_type_is_reported_with_what_is_expected(graph, tickets):
    data = graph.add(encode, tickets=tickets)
    maybe = graph.expand(build_maybe)
    for arguments, words in (
        ({"tickets": data}, "dedup: tickets must be TicketTable, got <DatasetRef of 'encode'>"),
        ({"tickets": maybe}, "dedup: tickets must be TicketTable, got <schemas.artifacts.TicketTable | None of"),
        ({"tickets": (tickets,)}, "dedup: tickets must be TicketTable, got tuple"),
        ({"tickets": tickets, "previous": data}, "dedup: previous must be schemas.artifacts.TicketTable | None, got"),
        ({"tickets": tickets, "others": (tickets, data)}, "dedup: others must be tuple"),
        ({"tickets": tickets, "others": [tickets]}, "dedup: others must be tuple"),
        ({"tickets": tickets, "threshold": data}, "dedup: threshold must be float, got <DatasetRef of 'encode'>"),
    ):
        with pytest.raises(TypeError) as caught:
            graph.add(dedup, **arguments, **ARGUMENTS)
        assert words in str(caught.value)
    with pytest.raises(TypeError, match="announce: data must be DatasetRef, got <TicketTable of 'table'>"):
        graph.effect(announce, data=tickets)
    with pytest.raises(TypeError, match="build_maybe: flag must be bool, got int 3"):
        graph.named("build_maybe").expand(build_maybe, flag=3)


def build_maybe(graph: Graph, *, flag: bool = False) -> TicketTable | None:
    return None


def test_an_artifact_of_the_wrong_type_is_refused(graph, tmp_path):
    with pytest.raises(TypeError, match="dedup: tickets must be TicketTable, got Artifact"):
        graph.add(dedup, tickets=Artifact(root=tmp_path, digest="d"), **ARGUMENTS)


def test_only_declared_functions_are_steps(graph, tickets):
    with pytest.raises(TypeError, match=r"no_step.* is not a step\nhint: declare it with `@as_step"):
        graph.add(no_step, tickets=tickets)


def test_two_nodes_with_the_same_name_are_refused(graph, tickets):
    with pytest.raises(TypeError, match=r"two nodes are named 'table'\nhint: distinguish them by `graph.named"):
        graph.add(table, n_rows=4)
    graph.named("table", "again").add(table, n_rows=4)
    assert list(graph.nodes) == ["table", "table · again"]


def test_a_handle_of_another_graph_is_refused_even_with_the_same_name(graph, tickets):
    foreign = Graph()
    same_name, other_name = foreign.add(table, n_rows=3), foreign.named("elsewhere").add(table, n_rows=3)
    for handle in (same_name, other_name):
        with pytest.raises(TypeError, match=f"dedup: <TicketTable of '{handle.node}'> does not belong to this graph"):
            graph.add(dedup, tickets=handle, **ARGUMENTS)
        with (
            pytest.raises(TypeError, match=r"encode: .* does not belong to this graph"),
            graph.unless(lambda _: None, handle),
        ):
            graph.add(encode, tickets=tickets)


def test_a_condition_is_an_edge_unless_an_input_depends_on_it(graph, tickets):
    data = graph.add(encode, tickets=tickets)
    with graph.unless(lambda _: None, data):
        alone = graph.named("alone").add(table, n_rows=5)
    with graph.unless(lambda _: None, tickets):
        graph.effect(announce, data=data)  # the data depends on the table
    assert graph.edges() == [("table", "encode"), ("encode", "alone"), ("encode", "announce")]
    assert graph.ancestors(graph.at(alone)) == {graph.at(data), graph.at(tickets)}


def test_an_input_used_twice_is_one_edge(graph, tickets):
    node = graph.at(graph.add(dedup, tickets=tickets, previous=tickets, others=(tickets, tickets), **ARGUMENTS))
    assert graph.parents(node) == [graph.at(tickets)]


def test_nodes_belong_to_the_stage_of_their_block(graph):
    with graph.stage("curate"):
        tickets = graph.add(table, n_rows=3)
    with graph.stage("tune"), graph.unless(lambda _: None, tickets):
        graph.add(encode, tickets=tickets)
    graph.named("after").add(table, n_rows=1)
    assert graph.stages() == ["curate", "tune", ""]
    assert [node.name for node in graph.of_stage("tune")] == ["encode"]
    assert graph.nodes["after"].scope.unless == ()


def test_a_failed_block_leaves_no_scope(graph, tickets):
    with pytest.raises(TypeError), graph.stage("curate"):
        graph.add(encode, tickets=3)
    assert graph.at(graph.add(encode, tickets=tickets)).stage == ""


def test_nested_conditions_are_all_kept(graph, tickets):
    with graph.unless(lambda _: "first", tickets), graph.unless(lambda: "second"):
        node = graph.at(graph.named("x").add(table, n_rows=1))
    assert [condition.why(*condition.values) for condition in node.scope.unless] == ["first", "second"]


def test_a_condition_gets_its_values_in_order(graph, tickets, tmp_path):
    """A result of an earlier run may take the place of a handle."""
    earlier = TicketTable(root=tmp_path, rows={"n_in": 1, "n_out": 1}, digest="d")
    with graph.unless(lambda _first, _second: None, earlier, tickets):
        node = graph.at(graph.named("x").add(table, n_rows=1))
    (condition,) = node.scope.unless
    assert condition.values == (earlier, tickets)
    assert graph.parents(node) == [graph.at(tickets)]


# --- expand ----------------------------------------------------------------------------------------------------------


def two_more(graph: Graph, *, start: Artifact, ran: list[str]) -> Artifact:
    first = graph.named("grown · 1").add(mix, number=1, name="1", ran=ran, x=start)
    return graph.named("grown").add(mix, number=2, name="2", ran=ran, x=first)


def earlier_one(graph: Graph, *, start: Artifact, choice: Artifact) -> Artifact:
    return start


def nothing(graph: Graph, *, start: Artifact) -> Artifact:
    return None


def another_kind(graph: Graph, *, start: Artifact) -> TicketTable:
    return start


def from_another_graph(graph: Graph, *, start: Artifact) -> Artifact:
    foreign = Graph()
    foreign.named("grown").add(mix, number=1, name="1", ran=[])
    return foreign.named("start").add(mix, number=1, name="1", ran=[])


@pytest.fixture
def start(graph):
    return graph.named("start").add(mix, number=0, name="start", ran=[])


def test_a_growing_node_is_replaced_by_what_it_adds(graph, start):
    with graph.stage("s"):
        grown = graph.named("grown").expand(two_more, start=start, ran=[])
    after = graph.named("after").add(mix, number=3, name="after", ran=[], x=grown)
    assert graph.edges() == [("start", "grown"), ("grown", "after")]
    graph.expand_now(graph.nodes["grown"])
    assert list(graph.nodes) == ["start", "grown · 1", "grown", "after"]
    assert graph.edges() == [("start", "grown · 1"), ("grown · 1", "grown"), ("grown", "after")]
    assert [node.kind for node in graph.nodes.values()] == ["step"] * 4
    assert [node.name for node in graph.of_stage("s")] == ["grown · 1", "grown"]
    assert graph.inputs_of(graph.at(after)) == [graph.at(grown)]
    graph.named("later").add(mix, number=4, name="later", ran=[], x=grown)  # the handle is still valid


def test_a_growing_node_may_become_an_earlier_node(graph, start):
    choice = graph.named("choice").add(mix, number=1, name="choice", ran=[])
    grown = graph.named("grown").expand(earlier_one, start=start, choice=choice)
    after = graph.named("after").add(mix, number=3, name="after", ran=[], x=grown)
    assert graph.edges() == [("start", "grown"), ("choice", "grown"), ("grown", "after")]
    graph.expand_now(graph.nodes["grown"])
    assert graph.edges() == [("start", "after")]
    assert graph.at(grown) is graph.at(start)
    assert graph.ancestors(graph.at(after)) == {graph.at(start)}
    with pytest.raises(TypeError, match="two nodes are named 'grown'"):
        graph.named("grown").add(mix, number=3, name="x", ran=[])


def chain(graph: Graph, *, start: Artifact, left: int) -> Artifact:
    if not left:
        return start
    next_one = graph.named("chain", str(left)).add(mix, number=left, name="c", ran=[], x=start)
    return graph.named("grown", str(left)).expand(chain, start=next_one, left=left - 1)


def test_a_grown_node_may_grow_again(graph, start):
    grown = graph.named("grown").expand(chain, start=start, left=2)
    while growing := next((node for node in graph.nodes.values() if node.kind == "expand"), None):
        graph.expand_now(growing)
    assert list(graph.nodes) == ["start", "chain · 2", "chain · 1"]
    assert graph.at(grown).name == "chain · 1"


def test_grown_nodes_depend_on_what_growing_read(graph, start):
    grown = graph.named("grown").expand(lonely, start=start)
    graph.expand_now(graph.nodes["grown"])
    assert graph.at(grown).handles == ()
    assert graph.edges() == [("start", "grown")]
    graph.named("after").add(mix, number=1, name="after", ran=[])
    assert graph.edges() == [("start", "grown")]


def test_grown_nodes_inherit_stage_and_conditions(graph, start):
    with graph.stage("s"), graph.unless(lambda _: None, start):
        grown = graph.named("grown").expand(lonely, start=start)
    graph.expand_now(graph.nodes["grown"])
    assert graph.at(grown).stage == "s"
    assert [condition.values for condition in graph.at(grown).scope.unless] == [(start,)]


def lonely(graph: Graph, *, start: Artifact) -> Artifact:
    return graph.named("grown").add(mix, number=1, name="lonely", ran=[])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (nothing, "grown: nothing must return a handle, got None"),
        (another_kind, "grown: another_kind must return TicketTable, got <Artifact of 'start'>"),
        (from_another_graph, "grown: <Artifact of 'start'> does not belong to this graph"),
    ],
)
def test_growing_must_return_a_handle_of_this_graph_and_of_its_type(graph, start, build, words):
    graph.named("grown").expand(build, start=start)
    with pytest.raises(TypeError) as caught:
        graph.expand_now(graph.nodes["grown"])
    assert words in str(caught.value)


def test_only_a_graph_makes_handles(graph, start):
    assert isinstance(start, Handle)
    with pytest.raises(TypeError, match="does not belong to this graph"):
        graph.named("x").add(mix, number=1, name="x", ran=[], x=Handle("start", Artifact, Graph()))


# --- mypy ----------------------------------------------------------------------------------------------------------

WRONG = """
from pathlib import Path

from flows.graph.graph import Graph
from schemas.artifacts import DatasetRef, TicketTable
from tasks.step import as_step


@as_step("table")
def table(out: Path, *, n_rows: int) -> TicketTable:
    raise NotImplementedError

@as_step("encode")
def encode(out: Path, *, tickets: TicketTable) -> DatasetRef:
    raise NotImplementedError

def announce(run: str, data: DatasetRef) -> str:
    raise NotImplementedError

def build(graph: Graph, *, number: int) -> TicketTable:
    raise NotImplementedError

graph = Graph()
tickets = graph.add(table, n_rows=3)
data = graph.add(encode, tickets=tickets)
graph.add(encode, tickets=data)
graph.add(encode)
graph.add(encode, ticket=tickets)
graph.add(table, n_rows="3")
graph.effect(announce, data=tickets)
graph.named("maybe").expand(build, number=tickets)
right: DatasetRef = graph.named("again").add(encode, tickets=tickets)
wrong: TicketTable = graph.named("again").add(encode, tickets=tickets)
"""


def test_mypy_finds_a_handle_of_the_wrong_type(project, tmp_path):
    """Uses the cache of `make check`: ten seconds without it, one with it."""
    file = tmp_path / "declares.py"
    file.write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(file)],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first = WRONG.splitlines().index("graph.add(encode, tickets=data)") + 1
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        place, _, message = line.partition(": error: ")
        if message:
            found.setdefault(int(place.rpartition(":")[2]) - first, message.partition("  [")[0])
    assert found == {
        0: 'Argument "tickets" to "add" of "Graph" has incompatible type "DatasetRef"; expected "TicketTable"',
        1: 'Missing named argument "tickets" for "add" of "Graph"',
        2: 'Unexpected keyword argument "ticket" for "add" of "Graph"; did you mean "tickets"?',
        3: 'Argument "n_rows" to "add" of "Graph" has incompatible type "str"; expected "int"',
        4: 'Argument "data" to "effect" of "Graph" has incompatible type "TicketTable"; expected "DatasetRef"',
        5: 'Argument "number" to "expand" of "Naming" has incompatible type "TicketTable"; expected "int"',
        7: 'Incompatible types in assignment (expression has type "DatasetRef", variable has type "TicketTable")',
    }, done.stdout + done.stderr
