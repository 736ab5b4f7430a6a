"""The plan: it says what the run then does, why, and writes nothing."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.plan import parts_of, plan_steps, run_step
from flows.engine.step import Late, Step
from flows.engine.store import Store
from schemas.artifacts import Artifact
from schemas.errors import StorageError


def mix(*, number: int, name: str, ran: list[str], out: Path, **inputs: Artifact | tuple[Artifact, ...]) -> Artifact:
    """Write a digest of the inputs and of half the number: 2 and 3 give the same bytes. `ran` notes the call."""
    ran.append(name)
    text = hashlib.sha256(str(number // 2).encode())
    for parameter, value in sorted(inputs.items()):
        for artifact in value if isinstance(value, tuple) else (value,):
            text.update(parameter.encode() + (artifact.root / "text").read_bytes())
    (out / "text").write_text(text.hexdigest())
    return Artifact(root=out)


def step(name, number, ran, *, kind="mix", **inputs):
    return Step(name, mix, Artifact, inputs, {"number": number}, {"name": name, "ran": ran}, kind=kind)


def run_all(steps, store):
    """As a run does it: every step in order; what really ran is in the steps' own notes."""
    done = {}
    for each in steps:
        done[each.name] = run_step(each, done, store).artifact
    return done


def states(planned):
    return {each.step.name: each.state for each in planned}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def test_a_plan_on_a_fresh_machine_says_that_everything_runs_and_writes_nothing(store, tmp_path):
    ran = []
    planned = plan_steps([step("a", 0, ran), step("b", 0, ran, x="a")], store)
    assert states(planned) == {"a": "run", "b": "run"}
    assert planned[0].reasons == planned[1].reasons == ("never ran",)
    assert planned[0].key is not None
    assert planned[1].key is None
    assert list(tmp_path.iterdir()) == []
    assert ran == []


def counted(number, ran, count):
    """A step whose parameter `number` is known when step `a` has run, and reads its result."""
    late = {"number": Late(("a",), lambda a: count if (a.root / "text").is_file() else number)}
    return replace(step("b", number, ran, kind="late", x="a"), params={}, late=late)


def test_a_late_parameter_is_part_of_the_key_and_known_when_its_step_has_run(store):
    ran = []
    first = [step("a", 0, ran), counted(0, ran, 2)]
    assert states(plan_steps(first, store)) == {"a": "run", "b": "run"}
    run_all(first, store)
    assert states(plan_steps(first, store)) == {"a": "reused", "b": "reused"}
    changed = plan_steps([step("a", 0, ran), counted(0, ran, 9)], store)
    assert states(changed) == {"a": "reused", "b": "run"}
    assert changed[1].reasons == ("params.number: 2 -> 9",)
    waiting = plan_steps([step("a", 5, ran), counted(0, ran, 9)], store)
    assert states(waiting) == {"a": "run", "b": "maybe"}
    run_all([step("a", 0, ran), counted(0, ran, 9)], store)
    assert ran == ["a", "b", "b"]


def test_after_a_run_everything_is_reused_and_the_plan_changes_nothing(store, tmp_path, tree):
    ran = []
    steps = [step("a", 0, ran), step("b", 0, ran, x="a"), step("c", 4, ran, x=("a", "b"), y="b")]
    done = run_all(steps, store)
    before = tree(tmp_path)
    planned = plan_steps(steps, store)
    assert states(planned) == {"a": "reused", "b": "reused", "c": "reused"}
    assert {each.step.name: each.artifact for each in planned} == done
    assert tree(tmp_path) == before
    assert run_all(steps, store) == done
    assert ran == ["a", "b", "c"]


def test_what_follows_a_change_may_be_reused_and_the_changed_step_says_why(store):
    run_all([step("a", 0, []), step("b", 0, [], kind="other", x="a")], store)
    planned = plan_steps([step("a", 5, []), step("b", 0, [], kind="other", x="a")], store)
    assert states(planned) == {"a": "run", "b": "maybe"}
    assert planned[0].reasons == ("params.number: 0 -> 5",)
    assert planned[1].reasons == ("known when a has run",)


def test_a_changed_step_behind_a_changed_step_certainly_runs(store):
    run_all([step("a", 0, []), step("b", 0, [], kind="other", x="a")], store)
    planned = plan_steps([step("a", 5, []), step("b", 7, [], kind="other", x="a")], store)
    assert states(planned) == {"a": "run", "b": "run"}
    assert planned[1].reasons == ("params.number: 0 -> 7",)


def test_an_input_that_is_made_again_with_the_same_bytes_cuts_the_work_off(store):
    ran = []
    run_all([step("a", 0, ran), step("b", 0, ran, x="a"), step("c", 0, ran, kind="other", x="b")], store)
    ran.clear()
    steps = [step("a", 1, ran), step("b", 0, ran, x="a"), step("c", 0, ran, kind="other", x="b")]
    assert states(plan_steps(steps, store)) == {"a": "run", "b": "maybe", "c": "maybe"}
    run_all(steps, store)
    assert ran == ["a"]


def test_reasons_are_told_against_the_closest_earlier_result(store):
    run_all([step("a", 0, []), step("b", 20, [], x="a"), step("c", 30, [], x=("a",))], store)
    planned = plan_steps([step("a", 0, []), step("b", 21, [], x="a")], store)
    assert planned[1].reasons == ("params.number: 20 -> 21",)


def test_steps_of_one_kind_share_their_results(store):
    ran = []
    run_all([step("candidate", 0, ran)], store)
    assert states(plan_steps([step("champion", 0, ran)], store)) == {"champion": "reused"}
    run_all([step("champion", 0, ran)], store)
    assert ran == ["candidate"]


def test_a_damaged_result_is_planned_to_run_and_stays_where_it_is(store, tmp_path, tree):
    done = run_all([step("a", 0, [])], store)
    (done["a"].root / "text").write_text("cut")
    before = tree(tmp_path)
    (planned,) = plan_steps([step("a", 0, [])], store)
    assert planned.state == "run"
    assert "damaged: text has 3 bytes" in planned.reasons[0]
    assert tree(tmp_path) == before


def test_a_removed_result_is_planned_to_run_with_a_reason(store):
    done = run_all([step("a", 0, [])], store)
    done["a"].root.rename(store.root / "gone")
    (planned,) = plan_steps([step("a", 0, [])], store)
    assert planned.state == "run"
    assert planned.reasons == ("its result was removed, or its last run was interrupted",)


def test_a_step_may_take_an_artifact_that_is_at_hand(store):
    done = run_all([step("a", 0, [])], store)
    again = [step("b", 0, [], x=done["a"])]
    run_all(again, store)
    assert states(plan_steps(again, store)) == {"b": "reused"}


def test_wiring_mistakes_are_named(store, tmp_path):
    with pytest.raises(ValueError, match="step b needs a, which is not before it"):
        plan_steps([step("b", 0, [], x="a")], store)
    with pytest.raises(ValueError, match="step b needs a, which has not run"):
        run_step(step("b", 0, [], x="a"), {}, store)
    with pytest.raises(ValueError, match="input x has no digest"):
        run_step(step("b", 0, [], x=Artifact(root=tmp_path)), {}, store)
    wrong = replace(step("b", 0, []), run=returns_nothing)
    with pytest.raises(TypeError, match="must return Artifact"):
        run_step(wrong, {}, store)


def returns_nothing(**_: object) -> None:
    """A step that forgets its result."""


def test_scratch_and_progress_go_to_those_who_ask(store):
    heard = []
    asking = Step("a", asks, Artifact, resumable=True, reports=True)
    run_step(
        asking, {}, store, progress=lambda done, total, unit, **figures: heard.append((done, total, unit, figures))
    )
    assert heard == [(1, 2, "rows", {"loss": 0.5})]


def asks(*, out, scratch, progress):
    (scratch / "half").write_text("x")
    progress(1, 2, "rows", loss=0.5)
    return Artifact(root=out)


@st.composite
def graphs(draw):
    """Steps as (name, kind, number, inputs by name), each taking some of those before it."""
    graph = []
    for index in range(draw(st.integers(1, 6))):
        earlier = [name for name, *_ in graph]
        inputs = {}
        for parameter in draw(st.sets(st.sampled_from(["x", "y"]), max_size=2)) if earlier else ():
            names = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2))
            inputs[parameter] = names[0] if len(names) == 1 else tuple(names)
        graph.append((f"s{index}", draw(st.sampled_from(["mix", "other"])), draw(st.integers(0, 3)), inputs))
    return graph


@given(graph=graphs(), changes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=3))
def test_the_run_does_what_the_plan_says(graph, changes):
    """On any graph, after any change: reused is not run, run is run, and all is reused at the end."""
    with tempfile.TemporaryDirectory() as folder:
        store, ran = Store(Path(folder)), []
        numbers = {name: number for name, _, number, _ in graph}
        changed = numbers | {f"s{index}": number for index, number in changes if f"s{index}" in numbers}
        for these in (numbers, changed):
            steps = [step(name, these[name], ran, kind=kind, **inputs) for name, kind, _, inputs in graph]
            planned = plan_steps(steps, store)
            ran.clear()
            run_all(steps, store)
            assert not {each.step.name for each in planned if each.state == "reused"} & set(ran)
            assert len(set(ran)) == len(ran)
            assert set(ran) <= {each.step.name for each in planned if each.state != "reused"}
            # Two steps of one kind may have the same key: then the first makes the result of both.
            made = {(each.folder, these[each.name]) for each in steps if each.name in ran}
            certain = [each.step for each in planned if each.state == "run"]
            assert {(each.folder, these[each.name]) for each in certain} <= made
            assert set(states(plan_steps(steps, store)).values()) == {"reused"}
        ran.clear()
        run_all(steps, store)
        assert ran == []


def growing(number, ran, previous=None, **inputs):
    """A step that goes on from its own earlier result."""
    if previous is not None:
        inputs["previous"] = previous
    return replace(step("split", number, ran, kind="split", **inputs), goes_on_from="previous")


def test_an_earlier_result_is_the_result_when_nothing_else_changed(store):
    ran = []
    first = run_all([step("a", 0, ran), growing(0, ran, x="a")], store)["split"]
    again = [step("a", 0, ran), growing(0, ran, x="a", previous=first)]
    assert states(plan_steps(again, store)) == {"a": "reused", "split": "reused"}
    assert run_all(again, store)["split"] == first
    assert ran == ["a", "split"]


def test_an_earlier_result_is_gone_on_from_when_something_changed(store):
    ran = []
    first = run_all([step("a", 0, ran), growing(0, ran, x="a")], store)["split"]
    for changed in (
        [step("a", 2, ran), growing(0, ran, x="a", previous=first)],
        [step("a", 0, ran), growing(2, ran, x="a", previous=first)],
    ):
        ran.clear()
        planned = plan_steps(changed, store)
        assert states(planned)["split"] == "run"
        second = run_all(changed, store)["split"]
        assert "split" in ran
        assert second.digest != first.digest


def test_an_earlier_result_that_is_damaged_is_made_again(store):
    ran = []
    first = run_all([step("a", 0, ran), growing(0, ran, x="a")], store)["split"]
    (first.root / "text").unlink()
    # Nothing is compared with it; `earlier_results` gives no damaged one.
    with pytest.raises(StorageError, match="TG0510"):
        run_all([step("a", 0, ran), growing(0, ran, x="a", previous=first)], store)


def test_what_follows_from_results_is_no_part_of_a_key_and_a_check_holds_for_reused_results(store):
    """A limit over several steps: it may end the run, made or reused, and changes no result."""
    ran = []

    def check(done, result):
        if limit < len(done):
            raise StorageError(f"{sorted(done)} {result.digest[:4]}", code="TG0501")

    steps = [step("a", 0, ran), replace(step("b", 0, ran, x="a"), check=check)]
    done = run_all(steps[:1], store)
    taking = replace(steps[1], from_results={"inputs_seen": sorted})
    assert parts_of(taking, done) == parts_of(steps[1], done)
    limit = 1
    assert set(run_all(steps, store)) == {"a", "b"}
    limit = 0
    with pytest.raises(StorageError, match=r"\['a'\]"):
        run_all(steps, store)
    assert ran == ["a", "b"]
