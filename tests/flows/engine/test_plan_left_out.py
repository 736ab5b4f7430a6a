"""Steps that are wanted only sometimes, and steps whose result is one that an earlier step made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.engine.plan import left_out, plan_steps, run_step
from flows.engine.step import Condition, Late, Step
from flows.engine.store import Store
from schemas.artifacts import Artifact


def write(*, number, ran, out, x=None, several=()):
    """Write the number and what the inputs hold; `ran` notes the call."""
    ran.append(number)
    texts = [(each.root / "text").read_text() for each in (*([x] if x else []), *several)]
    (out / "text").write_text(" ".join([str(number), *texts]))
    return Artifact(root=out)


def text(artifact):
    return (artifact.root / "text").read_text()


def step(name, number, ran, **more):
    return replace(Step(name, write, Artifact, {}, {"number": number}, {"ran": ran}, kind="write"), **more)


def climb(ran, *, met):
    """Three rungs, of which each is wanted while none before it holds the number `met`; then all that there are."""

    def missed(*rungs):
        return not any(rung is not None and text(rung).startswith(str(met)) for rung in rungs)

    names = ("r1", "r2", "r3")
    steps = []
    for place, name in enumerate(names):
        made = step(f"{name}_made", place + 1, ran)
        weighed = step(name, place + 1, ran, inputs={"x": made.name}, kind="weighed")
        wanted = Condition(names[:place], missed, f"{names[place - 1]} misses") if place else None
        steps += [replace(each, only_if=wanted) for each in (made, weighed)]
    last = step("choice", 9, ran, inputs={"several": names}, kind="choice")
    pick = Late(("choice", *names), lambda _, *rungs: [rung for rung in rungs if rung is not None][-1])
    return [*steps, last, replace(step("chosen", 0, ran, kind="weighed"), pick=pick)]


def run_all(steps, store):
    done = {}
    for each in steps:
        done[each.name] = None if left_out(each, done) else run_step(each, done, store).artifact
    return done


def states(steps, store):
    return {each.step.name: each.state for each in plan_steps(steps, store)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def test_a_step_that_is_not_wanted_is_left_out_with_all_that_takes_its_result(store):
    ran = []
    steps = climb(ran, met=2)
    assert states(steps, store) == {
        "r1_made": "run", "r1": "run", "r2_made": "maybe", "r2": "maybe", "r3_made": "maybe", "r3": "maybe",
        "choice": "run", "chosen": "maybe",
    }  # fmt: skip
    done = run_all(steps, store)
    assert ran == [1, 1, 2, 2, 9]
    assert (done["r3_made"], done["r3"]) == (None, None)
    assert text(done["choice"]) == "9 1 1 2 2"  # the tuple goes without it
    planned = {each.step.name: each for each in plan_steps(steps, store)}
    assert planned["r3"].state == planned["r3_made"].state == "left out"
    assert planned["r3"].reasons == ("only if r2 misses",)
    assert {name for name, each in planned.items() if each.state == "reused"} == {
        "r1_made", "r1", "r2_made", "r2", "choice", "chosen",
    }  # fmt: skip


def test_a_step_is_left_out_when_its_input_is(store):
    ran = []
    taken = step("b", 2, ran, inputs={"x": "a"})
    assert left_out(taken, {}) is None
    assert left_out(taken, {"a": None}) == "a was left out"
    late = step("c", 3, ran, params={}, late={"number": Late(("a",), lambda a: 7 if a is None else 8)})
    assert text(run_step(late, {"a": None}, store).artifact) == "7"


def test_a_pick_is_the_earlier_result_itself_under_another_name(store):
    ran = []
    steps = climb(ran, met=0)
    done = run_all(steps, store)
    assert done["chosen"] == done["r3"]
    obtained = run_step(steps[-1], done, store)
    assert (obtained.reused, obtained.key) == (True, done["r3"].root.name)
    # What takes the pick has the key that it has with the step itself.
    after = step("after", 5, ran, kind="after")
    by_pick = run_step(replace(after, inputs={"x": "chosen"}), done, store)
    by_step = run_step(replace(after, inputs={"x": "r3"}), done, store)
    assert (by_pick.reused, by_step.reused, by_step.key) == (False, True, by_pick.key)


def test_a_pick_of_nothing_or_of_another_kind_is_an_error_of_the_program(store):
    for result in (None, Artifact(root=store.root)):
        pick = Late((), lambda result=result: result)
        with pytest.raises(TypeError, match="no stored Artifact"):
            run_step(replace(step("p", 0, []), pick=pick), {}, store)
