"""The plan shows what the run will do and why, and writes nothing."""

import importlib
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.graph.execute import Run
from flows.graph.graph import Graph
from flows.graph.keys import installed
from flows.graph.plan import plan
from flows.graph.store import Store
from schemas.artifacts import Artifact
from tests.support.graph_steps import both, copy, mix, mix_otherwise, other, results, run_all, split, text_of, write

KINDS = {"mix": mix, "other": other}


def declare(*steps, ran=None):
    """A graph of (name, number, inputs by name[, kind]); an input is a name, an artifact, or a tuple of such."""
    graph, handles = Graph(), {}
    ran = [] if ran is None else ran

    def at(value):
        return tuple(map(at, value)) if isinstance(value, tuple) else handles.get(value, value)

    for name, number, inputs, *kind in steps:
        function = KINDS[kind[0] if kind else "mix"]
        taken = {parameter: at(value) for parameter, value in inputs.items()}
        handles[name] = graph.named(name).add(function, number=number, name=name, ran=ran, **taken)
    return graph


def planned(graph, store):
    return plan(Run(graph, store))


def states(graph, store):
    return {each.node.name: each.state for each in planned(graph, store)}


def reasons(graph, store):
    return {each.node.name: each.reasons for each in planned(graph, store)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def test_on_a_fresh_machine_a_plan_runs_everything_and_writes_nothing(store, tmp_path):
    ran = []
    first, second = planned(declare(("a", 0, {}), ("b", 0, {"x": "a"}), ran=ran), store)
    assert (first.state, second.state) == ("run", "run")
    assert first.reasons == second.reasons == ("never ran",)
    assert first.key is not None
    assert second.key is None
    assert list(tmp_path.iterdir()) == []
    assert ran == []


def test_after_a_run_a_plan_reuses_everything_and_changes_nothing(store, tmp_path, tree):
    ran = []

    def graph():
        return declare(("a", 0, {}), ("b", 0, {"x": "a"}), ("c", 4, {"x": ("a", "b"), "y": "b"}), ran=ran)

    done = results(run_all(graph(), store))
    before = tree(tmp_path)
    again = planned(graph(), store)
    assert {each.state for each in again} == {"reused"}
    assert {each.node.name: each.artifact for each in again} == done
    assert tree(tmp_path) == before
    assert results(run_all(graph(), store)) == done
    assert ran == ["a", "b", "c"]


def test_plan_and_run_use_the_same_keys(store):
    graph = declare(("a", 0, {}), ("b", 0, {"x": "a"}), ("c", 4, {"x": ("a", "b"), "y": "b"}))
    first = planned(graph, store)[0].key
    run = run_all(graph, store)
    keys = {name: outcome.key for name, outcome in run.outcomes.items()}
    assert keys["a"] == first
    assert {each.node.name: each.key for each in planned(graph, store)} == keys
    assert {name: run.parts(graph.nodes[name]).key for name in graph.nodes} == keys


def test_a_changed_step_has_a_reason_and_steps_after_it_may_be_reused(store):
    run_all(declare(("a", 0, {}), ("b", 0, {"x": "a"}, "other")), store)
    changed = declare(("a", 5, {}), ("b", 0, {"x": "a"}, "other"))
    assert states(changed, store) == {"a": "run", "b": "maybe"}
    assert reasons(changed, store) == {"a": ("params.number: 0 -> 5",), "b": ("known when a has run",)}


def test_a_changed_step_after_a_changed_step_certainly_runs(store):
    run_all(declare(("a", 0, {}), ("b", 0, {"x": "a"}, "other")), store)
    changed = declare(("a", 5, {}), ("b", 7, {"x": "a"}, "other"))
    assert states(changed, store) == {"a": "run", "b": "run"}
    assert reasons(changed, store)["b"] == ("params.number: 0 -> 7",)


def test_an_input_made_again_with_the_same_bytes_stops_the_work(store):
    ran = []
    run_all(declare(("a", 0, {}), ("b", 0, {"x": "a"}), ("c", 0, {"x": "b"}, "other"), ran=ran), store)
    ran.clear()
    graph = declare(("a", 1, {}), ("b", 0, {"x": "a"}), ("c", 0, {"x": "b"}, "other"), ran=ran)
    assert states(graph, store) == {"a": "run", "b": "maybe", "c": "maybe"}
    run_all(graph, store)
    assert ran == ["a"]


def test_reasons_compare_with_the_closest_earlier_result(store):
    run_all(declare(("a", 0, {}), ("b", 20, {"x": "a"}), ("c", 30, {"x": ("a",)})), store)
    graph = declare(("a", 0, {}), ("b", 21, {"x": "a"}))
    assert reasons(graph, store)["b"] == ("params.number: 20 -> 21",)


def test_a_step_that_another_function_makes_now_has_this_reason_alone(store):
    run_all(declare(("a", 0, {}), ("b", 20, {"x": "a"})), store)
    graph = Graph()
    a = graph.named("a").add(mix, number=0, name="a", ran=[])
    graph.named("b").add(mix_otherwise, factor=2, name="b", ran=[], x=a)
    assert reasons(graph, store) == {"a": (), "b": ("made by mix_otherwise instead of mix",)}


def test_a_changed_input_and_a_new_input_are_named(store):
    run_all(declare(("a", 0, {}), ("b", 0, {"x": "a"}, "other")), store)
    run_all(declare(("a", 8, {})), store)  # now the result of `a` is known
    assert reasons(declare(("a", 8, {}), ("b", 0, {"x": "a"}, "other")), store)["b"] == ("input x changed",)
    more = declare(("a", 0, {}), ("b", 0, {"x": "a", "y": "a"}, "other"))
    assert reasons(more, store)["b"] == ("input y is used now",)
    several = declare(("a", 0, {}), ("b", 0, {"x": ("a", "a")}, "other"))
    assert reasons(several, store)["b"] == ("input x changed",)


CODE = '''
from pathlib import Path
from schemas.artifacts import Artifact
from tasks.step import as_step

@as_step("of_a_file")
def of_a_file(out: Path) -> Artifact:
    """Write {comment}."""
    (out / "text").write_text("{text}")
    return Artifact(root=out)
'''


def test_changed_code_is_named_and_a_changed_comment_is_no_change(store, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def graph(text, comment):
        (tmp_path / "graph_test_code.py").write_text(CODE.format(text=text, comment=comment))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "graph_test_code", raising=False)
        graph = Graph()
        graph.add(importlib.import_module("graph_test_code").of_a_file)
        return graph

    run_all(graph("one", "it"), store)
    assert states(graph("one", "that"), store) == {"of_a_file": "reused"}
    changed = graph("two", "it")
    assert reasons(changed, store) == {"of_a_file": ("code of graph_test_code changed",)}
    assert text_of(results(run_all(changed, store))["of_a_file"]) == "two"


def test_a_changed_library_is_named_with_its_versions(store, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def graph(version):
        folder = tmp_path / "graph_test_library-1.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: graph-test-library\nVersion: {version}\n")
        importlib.invalidate_caches()
        installed.cache_clear()
        graph, ran = Graph(), []
        graph.named("a", libraries=("graph-test-library",)).add(mix, number=0, name="a", ran=ran)
        return graph

    run_all(graph("1.0"), store)
    assert states(graph("1.0"), store) == {"a": "reused"}
    changed = graph("1.1")
    assert reasons(changed, store) == {"a": ("graph-test-library 1.0 -> 1.1",)}
    assert not run_all(changed, store).outcomes["a"].reused


def test_a_change_in_what_a_function_reads_besides_its_arguments_is_named(store):
    def graph(digest):
        graph = Graph()
        graph.named("a", reads={"files": digest}).add(mix, number=0, name="a", ran=[])
        return graph

    run_all(graph("11"), store)
    assert states(graph("11"), store) == {"a": "reused"}
    assert reasons(graph("12"), store) == {"a": ("params.files: '11' -> '12'",)}


def test_steps_of_one_kind_share_their_results(store):
    ran = []
    run_all(declare(("candidate", 0, {}), ran=ran), store)
    assert states(declare(("champion", 0, {}), ran=ran), store) == {"champion": "reused"}
    run_all(declare(("champion", 0, {}), ran=ran), store)
    assert ran == ["candidate"]


def test_a_damaged_result_is_planned_to_run_and_left_in_place(store, tmp_path, tree):
    done = results(run_all(declare(("a", 0, {})), store))
    (done["a"].root / "text").write_text("cut")
    before = tree(tmp_path)
    (a,) = planned(declare(("a", 0, {})), store)
    assert a.state == "run"
    assert "damaged: text has 3 bytes" in a.reasons[0]
    assert tree(tmp_path) == before


def test_a_removed_result_is_planned_to_run_with_a_reason(store):
    done = results(run_all(declare(("a", 0, {})), store))
    done["a"].root.rename(store.root / "gone")
    (a,) = planned(declare(("a", 0, {})), store)
    assert a.state == "run"
    assert a.reasons == ("its result was removed, or its last run was interrupted",)


def test_a_step_may_take_a_result_of_an_earlier_run(store):
    done = results(run_all(declare(("a", 0, {})), store))
    run = run_all(declare(("b", 0, {"x": done["a"]})), store)
    assert states(declare(("b", 0, {"x": done["a"]})), store) == {"b": "reused"}
    # Its key is the same as with the node that made the result.
    assert run_all(declare(("a", 0, {}), ("b", 0, {"x": "a"})), store).outcomes["b"].key == run.outcomes["b"].key


def test_no_key_file_contains_a_secret(store, monkeypatch):
    from schemas.secrets import know_secrets

    know_secrets({"SOME_TOKEN": "hunter2-hunter2"})
    graph = Graph()
    graph.add(write, text="hunter2-hunter2", ran=[])
    run_all(graph, store)
    (kept,) = (store.root / "keys" / "write").iterdir()
    assert "hunter2" not in json.dumps(json.loads(kept.read_bytes()))


# --- any graph -----------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """Steps as (name, number, inputs by name, kind); inputs are earlier steps."""
    steps = []
    for index in range(draw(st.integers(1, 6))):
        earlier = [name for name, *_ in steps]
        inputs = {}
        for parameter in draw(st.sets(st.sampled_from(["x", "y"]), max_size=2)) if earlier else ():
            names = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2))
            inputs[parameter] = names[0] if len(names) == 1 else tuple(names)
        steps.append((f"s{index}", draw(st.integers(0, 3)), inputs, draw(st.sampled_from(["mix", "other"]))))
    return steps


@given(steps=graphs(), changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=3))
def test_the_run_does_what_the_plan_says(steps, changes):
    """For any graph and change: reused steps do not run, planned steps run, and at the end all are reused."""
    with tempfile.TemporaryDirectory() as folder:
        store, ran = Store(Path(folder)), []
        numbers = {name: number for name, number, *_ in steps}
        changed = numbers | {f"s{index}": number for index, number in changes if f"s{index}" in numbers}
        for current in (numbers, changed):

            def graph(current=current):
                return declare(*((name, current[name], *rest) for name, _, *rest in steps), ran=ran)

            expected = planned(graph(), store)
            ran.clear()
            run = run_all(graph(), store)
            assert not {each.node.name for each in expected if each.state == "reused"} & set(ran)
            assert len(set(ran)) == len(ran)
            assert set(ran) <= {each.node.name for each in expected if each.state != "reused"}
            assert set(ran) == {name for name, outcome in run.outcomes.items() if not outcome.reused}
            # Two steps of one kind may have the same key; then the first makes the result for both.
            made = {(run.graph.nodes[name].folder, current[name]) for name in ran}
            certain = [each.node for each in expected if each.state == "run"]
            assert {(node.folder, current[node.name]) for node in certain} <= made
            assert set(states(graph(), store).values()) == {"reused"}
        ran.clear()
        run_all(graph(), store)
        assert ran == []


# --- extending an earlier result -----------------------------------------------------------------------------------


def extending(ran, *, previous=None, of=0, number=0):
    graph = Graph()
    a = graph.named("a").add(mix, number=of, name="a", ran=ran)
    graph.add(split, number=number, name="split", ran=ran, x=a, previous=previous)
    return graph


def test_an_earlier_result_is_reused_when_nothing_else_changed(store):
    ran = []
    first = results(run_all(extending(ran), store))["split"]
    again = extending(ran, previous=first)
    assert states(again, store) == {"a": "reused", "split": "reused"}
    run = run_all(again, store)
    assert results(run)["split"] == first
    assert run.outcomes["split"].key == first.root.name
    assert ran == ["a", "split"]


def test_an_earlier_result_is_extended_when_something_changed(store):
    ran = []
    first = results(run_all(extending(ran), store))["split"]
    for changed in ({"of": 2}, {"number": 2}):
        ran.clear()
        graph = extending(ran, previous=first, **changed)
        expected = states(graph, store)["split"]
        assert expected == ("run" if "number" in changed else "maybe")  # the new `a` may have the old bytes
        second = results(run_all(graph, store))["split"]
        assert "split" in ran
        assert second.digest != first.digest


def test_an_earlier_result_is_reused_when_an_input_is_made_again_with_the_same_bytes(store):
    ran = []
    first = results(run_all(extending(ran), store))["split"]
    graph = extending(ran, previous=first, of=1)
    assert states(graph, store) == {"a": "run", "split": "maybe"}
    assert reasons(graph, store)["split"] == ("known when a has run",)
    assert results(run_all(graph, store))["split"] == first
    assert ran == ["a", "split", "a"]


def test_an_earlier_result_that_is_damaged_is_not_extended(store):
    """`find_previous_run` returns no damaged result; one damaged later ends the run."""
    ran = []
    first = results(run_all(extending(ran), store))["split"]
    (first.root / "text").unlink()
    graph = extending(ran, previous=first)
    run = Run(graph, store)
    run.end(graph.nodes["a"], run.make(graph.nodes["a"]))
    assert run.decide(graph.nodes["split"]) is None
    with pytest.raises(Exception, match="TG0510"):
        run.make(graph.nodes["split"])


# --- left out ------------------------------------------------------------------------------------------------------


def unless_number(number):
    """A condition that leaves a node out after a rung with the number."""

    def why(*rungs):
        found = next((text_of(rung) for rung in rungs if rung is not None and text_of(rung).startswith(number)), None)
        return None if found is None else f"{found} meets {number}"

    return why


def climb(ran, *, target):
    """Three rungs, each needed until one has the target; then a node that takes all of them."""
    graph, rungs = Graph(), ()
    for number in ("1", "2", "3"):
        with graph.unless(unless_number(target), *rungs):
            made = graph.named("made", number).add(write, text=number, ran=ran)
            rungs = (*rungs, graph.named("rung", number).add(copy, x=made, ran=ran))
    graph.named("choice").add(write, text="all:", ran=ran, several=rungs)
    graph.named("chosen").expand(last_of, rungs=rungs)
    return graph


def last_of(graph: Graph, *, rungs: tuple[Artifact, ...]) -> Artifact:
    return [rung for rung in rungs if graph.find(rung) is not None][-1]


def test_a_node_is_planned_as_left_out_as_soon_as_that_is_known(store):
    ran = []
    graph = climb(ran, target="2")
    expected = {
        "made · 1": "run", "rung · 1": "run", "made · 2": "maybe", "rung · 2": "maybe",
        "made · 3": "maybe", "rung · 3": "maybe", "choice": "run", "chosen": "maybe",
    }  # fmt: skip
    assert states(graph, store) == expected
    assert reasons(graph, store)["made · 2"] == ("known when rung · 1 has run",)
    run = run_all(graph, store)
    assert ran == ["1", "copy", "2", "copy", "all:"]
    assert text_of(results(run)["choice"]) == "all: 1 2"  # the tuple omits what was left out
    known = {each.node.name: each for each in planned(climb(ran, target="2"), store)}
    for name in ("made · 3", "rung · 3"):
        assert known[name].state == "left out"
        assert known[name].reasons == ("2 meets 2",)
    assert {name for name, each in known.items() if each.state == "reused"} == {
        "made · 1", "rung · 1", "made · 2", "rung · 2", "choice",
    }  # fmt: skip
    assert "chosen" not in known  # it has grown; its replacement has its own line


def test_a_step_is_planned_as_left_out_when_its_input_is(store):
    graph = Graph()
    with graph.unless(lambda: "no use"):
        a = graph.named("a").add(write, text="a", ran=[])
    graph.add(copy, x=a, ran=[])
    graph.named("goes without").add(write, text="b", ran=[], x=a)
    assert states(graph, store) == {"a": "left out", "copy": "left out", "goes without": "run"}
    assert reasons(graph, store)["a"] == ("no use",)
    assert reasons(graph, store)["copy"] == ("a was left out",)


def test_a_node_certainly_left_out_is_so_although_an_input_is_not_known_yet(store):
    graph = Graph()
    waits = graph.named("waits").add(write, text="w", ran=[])
    with graph.unless(lambda: "no use"):
        gone = graph.named("gone").add(write, text="a", ran=[], x=waits)
    graph.named("needs gone").add(both, x=gone, y=waits, ran=[])
    assert states(graph, store) == {"waits": "run", "gone": "left out", "needs gone": "left out"}
    assert reasons(graph, store)["needs gone"] == ("gone was left out",)


# --- expand ---------------------------------------------------------------------------------------------------------


def growing(ran, *, start=0):
    graph = Graph()
    a = graph.named("a").add(mix, number=start, name="a", ran=ran)
    grown = graph.named("grown").expand(by_result, start=a, ran=ran)
    graph.named("after").add(other, number=0, name="after", ran=ran, x=grown)
    return graph


def by_result(graph: Graph, *, start: Artifact, ran: list[str]) -> Artifact:
    """The result decides how many nodes, and with which parameter."""
    number = int(text_of(graph.read(start))[:4], 16)
    for place in range(number % 2):
        start = graph.named("grown", str(place)).add(other, number=place, name=f"grown {place}", ran=ran, x=start)
    return graph.named("grown").add(other, number=number, name="grown", ran=ran, x=start)


def test_a_growing_node_is_planned_as_one_node_until_its_inputs_are_known(store):
    ran = []
    assert states(growing(ran), store) == {"a": "run", "grown": "maybe", "after": "run"}
    assert reasons(growing(ran), store)["grown"] == ("known when a has run",)
    run = run_all(growing(ran), store)
    again = growing(ran)
    assert states(again, store) == dict.fromkeys(run.graph.nodes, "reused")
    assert "grown" in again.nodes
    assert again.nodes["grown"].kind == "step"
    changed = states(growing(ran, start=4), store)
    assert (changed["a"], changed["grown"]) == ("run", "maybe")


def test_a_parameter_read_from_a_result_is_part_of_the_key(store):
    ran = []
    first = run_all(growing(ran), store)
    number = first.graph.nodes["grown"].params["number"]
    parts = store.parts("other", first.outcomes["grown"].key)
    assert parts.params == {"number": number}
    run_all(growing(ran), store)
    assert len(ran) == len(set(ran))


def test_acts_are_planned_for_every_run(store):
    def graph():
        graph = Graph()
        a = graph.named("a").add(mix, number=0, name="a", ran=[])
        graph.effect(never, data=a)
        return graph

    assert states(graph(), store) == {"a": "run", "never": "maybe"}
    run = Run(graph(), store)
    run.end(run.graph.nodes["a"], run.make(run.graph.nodes["a"]))
    assert states(graph(), store) == {"a": "reused", "never": "run"}
    assert reasons(graph(), store)["never"] == ("in every run",)


def never(run: object, *, data: Artifact) -> None:
    raise AssertionError("a plan does nothing")


def test_what_a_node_only_waits_for_changes_neither_its_key_nor_its_plan(store):
    def graph(number):
        ran = []
        graph = Graph()
        check = graph.named("check").add(other, number=number, name="check", ran=ran)
        with graph.after(check):
            graph.named("train").add(mix, number=0, name="train", ran=ran)
        return graph, ran

    first, ran = graph(0)
    assert states(first, store) == {"check": "run", "train": "run"}
    assert first.edges() == [("check", "train")]
    run_all(first, store)
    assert ran == ["check", "train"]
    again, ran = graph(4)
    assert states(again, store) == {"check": "run", "train": "reused"}
    run_all(again, store)
    assert ran == ["check"]
