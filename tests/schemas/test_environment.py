"""`${env:NAME}`: values from the environment, which no message repeats."""

from collections.abc import Callable

import pytest

from schemas.load import PipelineFile

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]

TEXT = """\
version: 1
pipelines:
  demo:
    source: {kind: "${env:KIND:-generated}"}
    train: {base_model: "${env:BASE}", epochs: "${env:EPOCHS:-2}", allow_download: "${env:NET:-false}"}
    evaluate: {slices: [product], style: [{name: a, pattern: 'x$'}]}
    gates: {rules: [{metric: "${env:METRIC:-exact}", value_threshold: "${env:LIMIT:-0.5}"}]}
    register: {name: demo}
"""


def test_references_become_values_of_the_type_that_belongs_there(load: Load) -> None:
    spec = load(TEXT, {"BASE": "file:///m", "EPOCHS": "3", "NET": "true", "LIMIT": "6e-1"}).get("demo")
    assert (spec.train.base_model, spec.train.epochs, spec.train.allow_download) == ("file:///m", 3, True)
    assert spec.gates.rules[0].value_threshold == 0.6
    assert spec.source.kind == "generated"


def test_a_default_holds_for_a_variable_that_is_unset_or_empty(load: Load) -> None:
    assert load(TEXT, {"BASE": "m", "EPOCHS": ""}).get("demo").train.epochs == 2


def test_references_may_stand_inside_a_text_and_more_than_once(load: Load) -> None:
    text = TEXT.replace("${env:BASE}", "file://${env:HOME}/${env:DIR:-models}/$${env:NOT}")
    base_model = load(text, {"HOME": "/home/me"}).get("demo").train.base_model
    assert base_model == "file:///home/me/models/${env:NOT}"


def test_a_value_is_not_read_for_references_again(load: Load) -> None:
    assert load(TEXT, {"BASE": "${env:EPOCHS}"}).get("demo").train.base_model == "${env:EPOCHS}"


def test_a_child_that_replaces_a_reference_needs_no_variable(load: Load) -> None:
    text = "version: 1\ndefaults: {description: '${env:UNSET}'}\n" + TEXT.removeprefix("version: 1\n")
    assert load(text.replace("    source", "    description: own\n    source"), {"BASE": "m"}).get("demo")


def test_an_unset_variable_is_reported_once_and_hides_no_other_fault(explain: Explain) -> None:
    text = TEXT.replace("register: {name: demo}", "register: {name: 5}").replace(":-2", "")
    rendered = explain(text + "  child: {extends: demo}\n", {"BASE": "m"})
    assert rendered.count("error[") == 2
    assert "environment variable EPOCHS is not set, needed by `pipelines.demo.train.epochs`" in rendered
    assert "`pipelines.demo.register.name` should be text" in rendered


def test_a_variable_almost_named_is_suggested(explain: Explain) -> None:
    assert "   = help: did you mean `BASES`?" in explain(TEXT, {"BASES": "m"})


@pytest.mark.parametrize("reference", ["${HOME}", "${env:}", "${env:1A}", "${env:A-B}", "${env:A", "${env:A:-{}}"])
def test_other_forms_are_refused_and_not_taken_as_text(explain: Explain, reference: str) -> None:
    rendered = explain(TEXT.replace("${env:BASE}", reference), {"HOME": "h", "A": "a"})
    assert "error[TG0106]: `pipelines.demo.train.base_model` has an invalid reference" in rendered


SECRET = "hunter2-s3cret"


@pytest.mark.parametrize(
    ("change", "environ"),
    [
        (("", ""), {"EPOCHS": SECRET}),
        (("", ""), {"NET": SECRET}),
        (("", ""), {"LIMIT": SECRET}),
        (("", ""), {"KIND": SECRET}),
        (("", ""), {"METRIC": SECRET}),
        (("metric: ", "slice: '${env:SLICE}', metric: "), {"SLICE": SECRET}),
        (("pattern: 'x$'", "pattern: '${env:PATTERN}'"), {"PATTERN": SECRET + "("}),
        (("slices: [product]", "slices: ['${env:SLICE}']"), {"SLICE": SECRET}),
        (("name: demo", "name: '${env:NAME} !'"), {"NAME": SECRET}),
        (("base_model: ", "prompt: {user: '${env:PROMPT}'}, base_model: "), {"PROMPT": "{" + SECRET + "}"}),
        (("base_model: ", "prompt: {user: '{${env:PROMPT}}'}, base_model: "), {"PROMPT": SECRET + "\n'"}),
        (("slices: [product]", "fields: '(?P<${env:GROUP}>x)'"), {"GROUP": "hunter2_s3cret"}),
    ],
)
def test_no_message_repeats_what_a_variable_holds(
    explain: Explain, change: tuple[str, str], environ: dict[str, str]
) -> None:
    rendered = explain(TEXT.replace(*change, 1), {"BASE": "m", **environ})
    assert "hunter2" not in rendered
    assert "${env:" in rendered
