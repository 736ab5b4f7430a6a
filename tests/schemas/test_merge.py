"""Inheritance: defaults < parent < own, maps deep, lists whole, null deletes, another kind replaces."""

from collections.abc import Callable

import pytest

from schemas.load import PipelineFile
from schemas.merge import MAX_PIPELINES
from schemas.schedule import ScheduleSpec

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]

HEAD = """\
version: 1
defaults:
  train: {base_model: m, epochs: 2, seed: 1}
pipelines:
  base:
    description: the base
    source: {kind: generated, n_tickets: 100, seed: 3}
    schema: {required: [body, reply]}
    train: {epochs: 3, prompt: {system: be kind}}
    evaluate: {fields: '(?P<category>x)'}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: demo}
    schedule: {cron: 0 5 * * 1}
"""


def test_defaults_give_way_to_a_parent_and_a_parent_to_its_child(load: Load) -> None:
    file = load(HEAD + "  child: {extends: base, train: {learning_rate: 1e-3}}\n")
    base, child = file.get("base").train, file.get("child").train
    assert (base.base_model, base.seed, base.epochs) == ("m", 1, 3)
    assert (child.base_model, child.seed, child.epochs, child.prompt.system) == ("m", 1, 3, "be kind")
    assert (base.learning_rate, child.learning_rate) == (2e-4, 1e-3)


def test_chains_of_parents_are_followed_in_any_order_of_the_file(load: Load) -> None:
    before = HEAD.replace("pipelines:\n", "pipelines:\n  last: {extends: middle, train: {epochs: 5}}\n")
    file = load(before + "  middle: {extends: base, train: {epochs: 4, seed: 4}}\n")
    assert list(file.pipelines) == ["last", "base", "middle"]
    assert (file.get("last").train.epochs, file.get("last").train.seed) == (5, 4)


def test_a_chain_of_parents_may_be_as_long_as_the_file(load: Load) -> None:
    links = [f"  p-{i}: {{extends: {f'p-{i - 1}' if i else 'base'}}}\n" for i in range(MAX_PIPELINES - 1)]
    assert load(HEAD + "".join(reversed(links))).get(f"p-{MAX_PIPELINES - 2}").train.epochs == 3


def test_a_list_replaces_the_inherited_one(load: Load) -> None:
    file = load(HEAD + "  child: {extends: base, schema: {required: [subject]}}\n")
    assert file.get("child").table.required == ("subject",)


def test_null_deletes_the_inherited_value_so_that_the_default_holds(load: Load) -> None:
    text = "  child: {extends: base, schedule: null, schema: null, train: {epochs: null, prompt: {system: null}}}\n"
    child = load(HEAD + text).get("child")
    assert child.schedule == ScheduleSpec()
    assert child.table.required == ("ticket_id", "body")
    assert child.train.epochs == 1
    assert child.train.prompt.system == ""


def test_null_stays_where_it_is_a_value_of_its_own(load: Load) -> None:
    parent = HEAD.replace("evaluate: {", "evaluate: {routing_field: category, ")
    assert (
        load(parent + "  child: {extends: base, evaluate: {routing_field: null}}\n").get("child").evaluate.routing_field
        is None
    )


def test_deleting_what_is_needed_is_reported_at_the_null(explain: Explain) -> None:
    assert explain(HEAD + "  child: {extends: base, gates: null}\n") == (
        "error[TG0102]: missing key `pipelines.child.gates`\n"
        "  --> pipelines.yaml:14:26\n"
        "   |\n"
        "14 |   child: {extends: base, gates: null}\n"
        "   |                          ^^^^^"
    )


def test_a_grandchild_may_give_again_what_its_parent_deleted(load: Load) -> None:
    text = HEAD + "  child: {extends: base, schema: null}\n  grandchild: {extends: child, schema: {max_chars: 9}}\n"
    table = load(text).get("grandchild").table
    assert (table.max_chars, table.required) == (9, ("ticket_id", "body"))


def test_another_kind_replaces_the_section_instead_of_mixing_the_keys(load: Load) -> None:
    file = load(HEAD + "  child: {extends: base, source: {kind: files, paths: [a.csv]}}\n")
    assert file.get("child").source.model_dump(exclude_defaults=True) == {"kind": "files", "paths": ("a.csv",)}


def test_the_same_kind_and_no_kind_merge(load: Load) -> None:
    same = "  same: {extends: base, source: {kind: generated, seed: 4}}\n"
    file = load(HEAD + same + "  none: {extends: base, source: {seed: 5}}\n")
    for name, seed in [("same", 4), ("none", 5)]:
        source = file.get(name).source.model_dump()
        assert (source["n_tickets"], source["seed"]) == (100, seed)


def test_a_wrong_value_is_shown_in_the_child_that_wrote_it(explain: Explain) -> None:
    rendered = explain(HEAD + "  child:\n    extends: base\n    train:\n      epochs: -1\n")
    assert "`pipelines.child.train.epochs` should be greater than or equal to 1, got -1" in rendered
    assert "  --> pipelines.yaml:17:15\n" in rendered


def test_what_hangs_on_a_lost_parent_is_not_judged(explain: Explain) -> None:
    rendered = explain(HEAD + "  a: {extends: bse, train: {epochs: -1}}\n  b: {extends: a}\n")
    assert rendered.count("error[") == 1
    assert "error[TG0104]" in rendered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  a:\n", "error[TG0103]: `pipelines.a` should be a mapping with at least one key"),
        ("  a: {extends: [base]}\n", "error[TG0103]: `pipelines.a.extends` should be the name of one pipeline"),
        ("  a: {extends: }\n", "error[TG0103]: `pipelines.a.extends` should be the name of one pipeline"),
        ("  a: {extnds: base}\n", "   = help: did you mean `extends`?"),
    ],
)
def test_a_pipeline_is_a_mapping_that_extends_at_most_one_other(explain: Explain, text: str, message: str) -> None:
    assert message in explain(HEAD + text)


def test_defaults_neither_extend_nor_bear_a_name(explain: Explain) -> None:
    rendered = explain(HEAD.replace("defaults:\n", "defaults:\n  extends: base\n  name: x\n"))
    assert "unknown key `defaults.extends`" in rendered
    assert "unknown key `defaults.name`" in rendered
    assert rendered.count("error[") == 2


def test_keys_with_x_in_front_hold_anchors_and_are_ignored_otherwise(load: Load) -> None:
    text = "x-any: {a: [1, '${env:UNSET}']}\nx-short: &short {epochs: 7}\n" + HEAD
    file = load(text + "  a: {extends: base, train: *short}\n  b: {extends: base, train: {<<: *short, seed: 9}}\n")
    assert (file.get("a").train.epochs, file.get("b").train.epochs, file.get("b").train.seed) == (7, 7, 9)


def test_a_fault_behind_an_anchor_is_reported_where_the_anchor_is(explain: Explain) -> None:
    text = "x-short: &short {epochs: 0}\n" + HEAD
    rendered = explain(text + "  a: {extends: base, train: *short}\n  b: {extends: base, train: {<<: *short}}\n")
    assert rendered.count("error[") == 1
    assert "`x-short.epochs` should be greater than or equal to 1, got 0\n  --> pipelines.yaml:1:26" in rendered


def test_too_many_pipelines_are_refused(explain: Explain) -> None:
    text = HEAD + "".join(f"  p-{i}: {{extends: base}}\n" for i in range(MAX_PIPELINES))
    assert f"error[TG0109]: more than {MAX_PIPELINES} pipelines" in explain(text)


@pytest.mark.timeout(30)
def test_a_file_that_explodes_by_inheritance_is_refused(explain: Explain) -> None:
    wide = HEAD + "  wide: {extends: base, curate: {" + ",\n".join(f"k{i}: 1" for i in range(5000)) + "}}\n"
    rendered = explain(wide + "".join(f"  p-{i}: {{extends: wide}}\n" for i in range(100)))
    assert "error[TG0109]: the pipelines have more than 200,000 values after merging" in rendered
