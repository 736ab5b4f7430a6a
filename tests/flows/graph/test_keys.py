"""Keys: what makes a step run again, and how it is explained."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from flows.graph.keys import KeyParts, canonical, digest_of, step_key, why_changed
from schemas.artifacts import Artifact
from schemas.curation_steps import DedupStep, RuleStep


def test_context_does_not_count_and_parameters_do(kit):
    node = kit.table_node(Path("a"))
    assert step_key(node, {}).key == step_key(kit.table_node(Path("b"), pause_s=3), {}).key
    assert step_key(node, {}).key != step_key(kit.table_node(Path("a"), threshold=0.7), {}).key


def test_the_order_of_several_inputs_counts(kit):
    node = kit.table_node(Path("a"))
    assert step_key(node, {"tables": ("x", "y")}).key != step_key(node, {"tables": ("y", "x")}).key


def test_functions_with_hidden_state_are_refused(kit):
    node = kit.table_node(Path("a"))

    def factory(factor):
        def run(*, out):
            return Artifact(root=out / str(factor))

        return run

    for function in (factory(2), functools.partial(kit.make_table, pause_s=1), print):
        with pytest.raises(TypeError, match="not a plain function"):
            step_key(replace(node, function=function), {})


@pytest.mark.parametrize(
    "value",
    [Path("x"), Artifact(root=Path("x")), float("nan"), float("inf"), b"bytes", object(), [1, {"a": Path("x")}]],
)
def test_values_without_a_portable_form_are_refused(value):
    with pytest.raises(TypeError, match=r"step\.given"):
        canonical(value, where="step.given")


def test_digests_follow_values_not_spelling():
    assert digest_of({"a": 1, "b": {2, 1}}) == digest_of({"b": {1, 2}, "a": 1})
    assert digest_of(1) != digest_of(1.0) != digest_of(True) != digest_of("1")
    assert digest_of(DedupStep(uses="dedup")) == digest_of(DedupStep(uses="dedup", threshold=0.8))


def parts(**changes):
    fields = {
        "step": "dedup",
        "function": "tasks.curate.dedup.drop_duplicates",
        "inputs": {"tickets": "aa"},
        "params": {"step": {"threshold": 0.8, "near": True}},
        "code": {"tasks.curate.dedup": "11", "tasks.storage.files": "22"},
        "libraries": {"duckdb": "2.0.1"},
    }
    return KeyParts.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"params": {"step": {"threshold": 0.7, "near": True}}}, "params.step.threshold: 0.8 -> 0.7"),
        ({"params": {"step": {"threshold": 0.8}}}, "params.step.near: True -> absent"),
        ({"inputs": {"tickets": "bb"}}, "input tickets changed"),
        ({"code": {"tasks.curate.dedup": "12", "tasks.storage.files": "22"}}, "code of tasks.curate.dedup changed"),
        ({"code": {"tasks.curate.dedup": "11"}}, "code of tasks.storage.files is no longer used"),
        (
            {"inputs": {"tickets": "aa", "near": "cc"}, "params": {"step": {"threshold": 0.8, "near": True}}},
            "input near is used now",
        ),
        ({"libraries": {"duckdb": "2.0.2"}}, "duckdb 2.0.1 -> 2.0.2"),
        ({"function": "tasks.other"}, "function tasks.curate.dedup.drop_duplicates -> tasks.other"),
    ],
)  # fmt: skip
def test_changes_are_listed_part_by_part(changes, reason):
    assert why_changed(parts(), parts(**changes)) == (reason,)
    assert parts().key != parts(**changes).key


def test_an_input_that_was_none_is_one_change():
    before = parts(params={"previous": None})
    after = parts(inputs={"tickets": "aa", "previous": "bb"}, params={})
    assert why_changed(before, after) == ("input previous is used now",)
    assert why_changed(after, before) == ("input previous is no longer used",)


def test_without_a_change_nothing_is_listed():
    assert why_changed(parts(), parts()) == ()


def test_long_texts_are_not_printed():
    before = parts(params={"prompt": {"system": "word " * 40}})
    after = parts(params={"prompt": {"system": "word " * 41}})
    assert why_changed(before, after) == ("params.prompt.system changed",)


def test_lists_are_compared_item_by_item():
    def rules(*keeps):
        steps = [RuleStep(uses="rule", name=f"r{i}", keep=keep) for i, keep in enumerate(keeps)]
        return parts(params={"rules": canonical(steps, where="rules")})

    assert why_changed(rules("a > 1", "b"), rules("a > 2", "b")) == ("params.rules[0].keep: 'a > 1' -> 'a > 2'",)


def test_key_parts_survive_a_round_trip(kit):
    before = step_key(kit.table_node(Path("a")), {"tickets": "x", "several": ("y", "z")})
    after = KeyParts.model_validate_json(before.model_dump_json())
    assert after.key == before.key
    assert why_changed(before, after) == ()
