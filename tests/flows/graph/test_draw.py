"""The picture of a graph: the state of each node, and the graph's edges in picture, text and Mermaid."""

import re
from pathlib import Path

import pytest

from flows.graph.draw import as_mermaid, as_text, picture_of_plan, picture_of_run
from flows.graph.execute import Run, run_plainly
from flows.graph.graph import Graph
from flows.graph.plan import plan
from flows.graph.store import Store
from schemas.artifacts import Artifact
from schemas.errors import DataError
from schemas.report import GraphPicture
from tasks.step import as_step

HOSTILE = 'a "b" <script> & `c` #d;\n]'
MERMAID_NODE = re.compile(r'    (n\d+)\["([^"]*)"\]')
MERMAID_EDGE = re.compile(r"  (n\d+) (-->|-\.->) (n\d+)")


@as_step("write")
def write(out: Path, *, text: str, after: tuple[Artifact, ...] = ()) -> Artifact:
    """A result with one file."""
    if text == "refused":
        raise DataError("the text is refused", code="TG0201")
    (out / "text").write_text(text + "".join((each.root / "text").read_text() for each in after))
    return Artifact(root=out)


def too_long(result: Artifact | None) -> str | None:
    return "it is long enough" if result is not None and len((result.root / "text").read_text()) > 3 else None


def announce(run: object, *, of: Artifact | None) -> str:
    return "" if of is None else of.digest


def declared(*, first: str = "one", second: str = "two") -> Graph:
    """Two stages; `extra` exists unless the first result is long, and the act runs with or without it."""
    graph = Graph()
    with graph.stage("early"):
        a = graph.named("read", "first").add(write, text=first)
        b = graph.named("read", "second").add(write, text=second, after=(a,))
    with graph.stage("late"):
        with graph.unless(too_long, a):
            extra = graph.named("extra").add(write, text="extra")
        both = graph.named("both").add(write, text="+", after=(b,))
        graph.effect(announce, of=extra)
        graph.named("end").add(write, text=".", after=(both, a))
    return graph


def edges_of_mermaid(text: str) -> dict[tuple[str, str], str]:
    """(from, to) by label -> arrow; checks that every line of the flowchart has a known shape."""
    head, *lines = text.splitlines()
    assert head == "flowchart TD"
    labels: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    is_open = False
    for line in lines:
        if node := MERMAID_NODE.fullmatch(line):
            assert is_open
            labels[node[1]] = node[2].split("<br/>")[0]
        elif edge := MERMAID_EDGE.fullmatch(line):
            found[labels[edge[1]], labels[edge[3]]] = edge[2]
        elif re.fullmatch(r'  subgraph s\d+\["[^"]*"\]', line) or line == "  end":
            is_open = not is_open
        else:
            assert re.fullmatch(r"  (classDef \w+ fill:#\w+,stroke:#\w+,color:#\w+|class (n\d+,)*n\d+ \w+)", line), line
    assert not is_open
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(declared(), Store(tmp_path))


def states(picture: GraphPicture) -> dict[str, str]:
    return {node.name: node.state for node in picture.nodes}


def test_a_plan_shows_what_would_run_and_the_edges_of_the_graph(run: Run) -> None:
    picture = picture_of_plan(run.graph, plan(run), {"read · first": 2.04, "both": None})
    assert states(picture) == {
        "read · first": "run", "read · second": "run", "extra": "maybe", "both": "run", "announce": "maybe",
        "end": "run",
    }  # fmt: skip
    assert list(picture.edges) == run.graph.edges()
    assert {node.name: node.stage for node in picture.nodes}["both"] == "late"
    first = picture.nodes[0]
    assert (first.seconds, first.status, first.reason) == (2.0, "run, 2.0 s", "never ran")
    assert picture.nodes[3].seconds is None


def test_an_edge_that_passes_no_result_is_a_deciding_edge(run: Run) -> None:
    picture = picture_of_plan(run.graph, plan(run), {})
    assert picture.deciding == (("read · first", "extra"),)
    assert set(picture.deciding) <= set(picture.edges)


def test_a_run_shows_what_was_made_and_the_next_run_what_was_reused(run: Run) -> None:
    run_plainly(run)
    picture = picture_of_run(run)
    assert set(states(picture).values()) == {"made"}
    assert list(picture.edges) == run.graph.edges()
    again = Run(declared(), run.store)
    planned = picture_of_plan(again.graph, plan(again), {"both": 3.0})
    run_plainly(again)
    for each in (planned, picture_of_run(again)):
        assert states(each) == dict.fromkeys(states(each), "reused") | {"announce": states(each)["announce"]}
        assert {node.seconds for node in each.nodes if node.state == "reused"} == {0.0}
    assert states(planned)["announce"] == "run"  # effects happen in every run
    assert states(picture_of_run(again))["announce"] == "made"


def test_a_node_left_out_has_a_reason_and_nodes_that_do_not_need_it_are_made(tmp_path: Path) -> None:
    run = Run(declared(first="long enough"), Store(tmp_path))
    run_plainly(run)
    found = {node.name: (node.state, node.reason) for node in picture_of_run(run).nodes}
    assert found["extra"] == ("left out", "it is long enough")
    assert found["announce"] == ("made", "")
    assert "(it is long enough)" in as_text(picture_of_run(run))


def test_a_run_that_ended_early_shows_what_failed_and_what_did_not_run(tmp_path: Path) -> None:
    run = Run(declared(second="refused"), Store(tmp_path))
    with pytest.raises(DataError):
        run_plainly(run)
    picture = picture_of_run(run, failed={"read_second": "TG0201: the text is refused"})
    found = {node.name: (node.state, node.reason) for node in picture.nodes}
    assert found["read · first"][0] == "made"
    assert found["read · second"] == ("failed", "TG0201: the text is refused")
    assert found["end"] == ("not run", "the run ended first")
    assert states(picture.with_made(("announce", "read · first")))["announce"] == "made"


def test_mermaid_has_every_edge_and_dots_deciding_edges(run: Run) -> None:
    picture = picture_of_plan(run.graph, plan(run), {})
    found = edges_of_mermaid(as_mermaid(picture))
    assert set(found) == set(picture.edges)
    assert {edge for edge, arrow in found.items() if arrow == "-.->"} == set(picture.deciding)
    assert 'subgraph s1["late"]' in as_mermaid(picture)


def test_mermaid_escapes_names(tmp_path: Path) -> None:
    graph = Graph()
    with graph.stage(HOSTILE):
        graph.named(HOSTILE, "end").add(write, text="", after=(graph.named("end").add(write, text="x"),))
    run = Run(graph, Store(tmp_path))
    text = as_mermaid(picture_of_plan(graph, plan(run), {}))
    assert list(edges_of_mermaid(text)) == [("end", "a #quot;b#quot; #lt;script#gt; #amp; #96;c#96; #35;d; ] · end")]


def test_text_lists_the_inputs_of_each_node_and_breaks_no_name(run: Run) -> None:
    picture = picture_of_plan(run.graph, plan(run), {"both": 12.34})
    lines = as_text(picture, width=60).splitlines()
    assert lines[0] == "early"
    assert re.fullmatch(r"  both +run +12\.3 s  <- read · second", lines[lines.index("late") + 2])
    assert re.fullmatch(r"  extra +maybe +if read · first", lines[lines.index("late") + 1])
    narrow = as_text(picture, width=50).splitlines()
    assert max(map(len, narrow)) <= 60
    assert " ".join(" ".join(narrow).split()).count("both, read · first") == 1


def test_a_picture_survives_a_round_trip_and_its_json_has_only_nodes_and_edges(run: Run) -> None:
    picture = picture_of_plan(run.graph, plan(run), {})
    assert GraphPicture.model_validate_json(picture.model_dump_json()) == picture
    shown = picture.to_json()
    assert set(shown) == {"nodes", "edges"}
    assert all(set(node) == {"name", "stage", "state", "seconds", "reason"} for node in shown["nodes"])
    assert [tuple(edge) for edge in shown["edges"]] == run.graph.edges()
