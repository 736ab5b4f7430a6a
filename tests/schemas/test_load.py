"""pipelines.yaml as a whole: what is shipped loads, and each kind of fault is reported at its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.load import ConfigErrors, PipelineFile, load_file
from schemas.schedule import ScheduleSpec

GOOD = """\
version: 1
pipelines:
  demo:
    source: {kind: generated}
    train:
      base_model: file:///models/tiny
    gates:
      rules:
        - {metric: exact, value_threshold: 0.5}
    register: {name: demo}
"""

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]


def test_the_shipped_file_loads_and_its_twins_differ_only_where_declared(project: Path) -> None:
    file = load_file(project / "pipelines.yaml", environ={})
    assert list(file.pipelines) == ["support-replies", "support-replies-mislabelled", "support-replies-broken-format"]
    good = file.get("support-replies").model_dump()
    for name, defect in [("mislabelled", "swapped_labels"), ("broken-format", "broken_format")]:
        twin = file.get(f"support-replies-{name}").model_dump()
        differs = {key for key in good if good[key] != twin[key]}
        assert differs - {"train", "evaluate"} == {"name", "description", "source", "schedule"}
        assert {**good["evaluate"], "arms": twin["evaluate"]["arms"]} == twin["evaluate"]
        assert {**good["source"], "defect": defect} == twin["source"]
        assert twin["schedule"] == ScheduleSpec().model_dump()


def test_a_pipeline_carries_its_name_and_the_file_its_folder(load: Load, tmp_path: Path) -> None:
    file = load(GOOD)
    assert file.get("demo").name == "demo"
    assert file.path == Path("pipelines.yaml")
    assert file.root == tmp_path


def test_the_pipelines_of_a_file_cannot_be_changed(load: Load) -> None:
    file = load(GOOD)
    with pytest.raises(TypeError):
        file.pipelines["other"] = file.get("demo")  # type: ignore[index]


def test_asking_for_an_unknown_pipeline_names_the_nearest(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD).get("dmo")
    assert str(caught.value) == ("error[TG0104]: no pipeline 'dmo'\n  --> pipelines.yaml\n\nhint: did you mean `demo`?")
    assert caught.value.exit_code == 2


FAULTS = {
    "unknown key": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: file:///m\n      lerning_rate: 1e-3"),
        "TG0101", 7, 7, "lerning_rate",
        "unknown key `pipelines.demo.train.lerning_rate`",
        "did you mean `learning_rate`?",
    ),
    "unknown key of a section with variants": (
        GOOD.replace("{kind: generated}", "{kind: duckdb, database: a.db, table: t, tabel: t}"),
        "TG0101", 4, 54, "tabel",
        "unknown key `pipelines.demo.source.tabel`",
        "did you mean `table`?",
    ),
    "unknown column": (
        GOOD.replace("{kind: generated}", "{kind: files, paths: [a.csv], columns: {boddy: text}}"),
        "TG0101", 4, 53, "boddy",
        "unknown key `pipelines.demo.source.columns.boddy`",
        "did you mean `body`?",
    ),
    "unknown key at the top": (
        GOOD.replace("pipelines:", "default: {}\npipelines:"),
        "TG0101", 2, 1, "default",
        "unknown key `default`",
        "did you mean `defaults`?",
    ),
    "name inside a pipeline": (
        GOOD + "    name: other\n",
        "TG0101", 11, 5, "name",
        "unknown key `pipelines.demo.name`",
        "a pipeline's name is its key under `pipelines`",
    ),
    "missing key": (
        GOOD.replace("      base_model: file:///models/tiny", "      seed: 1"),
        "TG0102", 5, 5, "train",
        "missing key `pipelines.demo.train.base_model`",
        "`hf://org/name@rev`, `file:///dir`, or `pypi://dist@version/member.gguf#sha256=...`.",
    ),
    "missing kind": (
        GOOD.replace("{kind: generated}", "{seed: 1}"),
        "TG0102", 4, 5, "source",
        "missing key `pipelines.demo.source.kind`",
        "one of files, remote_files, duckdb, sqlite, iceberg, hf, generated, zendesk, postgres",
    ),
    "missing pipelines": (
        "version: 1\n",
        "TG0102", 1, 1, "v",
        "missing key `pipelines`",
        "declare a pipeline under `pipelines`",
    ),
    "wrong type": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      epochs: three"),
        "TG0103", 7, 15, "three",
        "`pipelines.demo.train.epochs` should be a whole number, got 'three'",
        "",
    ),
    "true for a number": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      epochs: true"),
        "TG0103", 7, 15, "true",
        "`pipelines.demo.train.epochs` should be a number, got true",
        "",
    ),
    "number for text": (
        GOOD.replace("{name: demo}", "{name: 5}"),
        "TG0103", 10, 22, "5",
        "`pipelines.demo.register.name` should be text, got 5",
        "quote it",
    ),
    "unknown choice": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      method: lroa"),
        "TG0103", 7, 15, "lroa",
        "`pipelines.demo.train.method` should be 'full', 'lora', 'qlora', 'ladder' or 'external', got 'lroa'",
        "did you mean `lora`?",
    ),
    "unknown kind": (
        GOOD.replace("generated", "genrated"),
        "TG0103", 4, 20, "genrated",
        "`pipelines.demo.source.kind` should be one of files, remote_files, duckdb, sqlite, iceberg, hf, generated, "
        "zendesk, postgres, got 'genrated'",
        "did you mean `generated`?",
    ),
    "neither branch of a union": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      adapter: {target_modules: 5}"),
        "TG0103", 7, 33, "5",
        "`pipelines.demo.train.adapter.target_modules` should be 'all-linear' or a list, got 5",
        "",
    ),
    "wrong item of a union's list": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      adapter: {target_modules: [q, 5]}"),
        "TG0103", 7, 37, "5",
        "`pipelines.demo.train.adapter.target_modules[1]` should be text, got 5",
        "quote it",
    ),
    "one value for a section": (
        GOOD.replace("    train:", "    curate: {steps: [{uses: redact, types: [name], names: rules}]}\n    train:"),
        "TG0103", 5, 59, "rules",
        "`pipelines.demo.curate.steps[0].names` should be a mapping of keys to values, got 'rules'",
        "write `names: {mode: rules}`",
    ),
    "one value that is none of the section's": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      budget: 8"),
        "TG0103", 7, 15, "8",
        "`pipelines.demo.train.budget` should be a mapping of keys to values, got 8",
        "write `budget: {KEY: VALUE}` with these keys: minutes, usd, gpu_hours, machine",
    ),
    "not a number": (
        GOOD.replace("0.5", ".nan"),
        "TG0103", 9, 44, ".nan",
        "`pipelines.demo.gates.rules[0].value_threshold` should be a finite number, got nan",
        "",
    ),
    "no value": (
        GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      epochs:"),
        "TG0103", 7, 7, "epochs",
        "`pipelines.demo.train.epochs` should be a whole number, got nothing",
        "",
    ),
    "a template's column": (
        GOOD.replace("base_model: file:///models/tiny", 'base_model: m\n      prompt: {user: "{bdy}"}'),
        "TG0103", 7, 22, '"{bdy}"',
        "`pipelines.demo.train.prompt.user`: `{bdy}` is not a ticket column; did you mean `body`?",
        "",
    ),
    "name of a pipeline": (
        GOOD.replace("  demo:", "  Demo 1:"),
        "TG0103", 3, 3, "Demo 1",
        "`pipelines.Demo 1` is not a valid name of a pipeline",
        "a pipeline's name has lower-case letters, digits and `-`, and starts with a letter",
    ),
    "version": (
        GOOD.replace("version: 1", "version: 2"),
        "TG0103", 1, 1, "version",
        "`version` should be 1",
        "the only version that this program reads",
    ),
    "unknown parent": (
        GOOD + "  child: {extends: dmo}\n",
        "TG0104", 11, 20, "dmo",
        "`pipelines.child.extends` names no pipeline: 'dmo'",
        "did you mean `demo`?",
    ),
    "circle, reported once": (
        GOOD + "  c: {extends: a}\n  a: {extends: b}\n  b: {extends: a}\n",
        "TG0104", 12, 16, "b",
        "pipelines extend each other in a circle: a -> b -> a",
        "",
    ),
    "circle of one": (
        GOOD + "  a: {extends: a}\n",
        "TG0104", 11, 16, "a",
        "pipelines extend each other in a circle: a -> a",
        "",
    ),
    "unset variable": (
        GOOD.replace("file:///models/tiny", "${env:BASE_MODEL}"),
        "TG0106", 6, 19, "${env:BASE_MODEL}",
        "environment variable BASE_MODEL is not set, needed by `pipelines.demo.train.base_model`",
        "export it, or give a default: `${env:BASE_MODEL:-value}`",
    ),
    "reference of another form": (
        GOOD.replace("file:///models/tiny", "${BASE_MODEL}"),
        "TG0106", 6, 19, "${BASE_MODEL}",
        "`pipelines.demo.train.base_model` has an invalid reference",
        "write `${env:NAME}` or `${env:NAME:-default}`; `$${` is a literal `${`",
    ),
    "syntax": (
        GOOD.replace("file:///models/tiny", "a: b"),
        "TG0107", 6, 20, ":",
        "not YAML: mapping values are not allowed here",
        "quote a value that contains `: `",
    ),
    "duplicate key": (
        GOOD + "    train: {base_model: b}\n",
        "TG0107", 11, 5, "train",
        "duplicate key `pipelines.demo.train`",
        "first written in line 5",
    ),
    "tag": (
        GOOD.replace("file:///models/tiny", "!!python/object/apply:os.system [ls]"),
        "TG0107", 6, 19, "!!python/object/apply:os.system",
        "tags are refused",
        "quote text that starts with `!`",
    ),
    "a value of another form": (
        GOOD.replace("{kind: generated}", "{kind: iceberg, catalog: a.db, table: orders}"),
        "TG0103", 4, 51, "orders",
        "`pipelines.demo.source.table` should match pattern '^[^.]+(\\.[^.]+)+$', got 'orders'",
        "`namespace.table` in the catalog.",
    ),
    "settings of one section that exclude each other": (
        GOOD.replace("{kind: generated}", "{kind: duckdb, database: a.db}"),
        "TG0111", 4, 5, "source",
        "`pipelines.demo.source`: give exactly one of `table` and `query`",
        "",
    ),
    "settings of two sections that exclude each other": (
        GOOD.replace("metric: exact", "metric: exakt"),
        "TG0111", 9, 20, "exakt",
        "`pipelines.demo.gates.rules[0].metric`: gate on unknown metric 'exakt'",
        "did you mean `exact`?",
    ),
}  # fmt: skip
"""Text -> code, line, column, what the carets mark, message and help of its only fault."""


@pytest.mark.parametrize(("text", "code", "line", "column", "marked", "message", "help"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_shown_at_its_place_with_what_to_do(
    explain: Explain, text: str, code: str, line: int, column: int, marked: str, message: str, help: str
) -> None:
    shown = text.splitlines()[line - 1]
    assert explain(text) == (
        f"error[{code}]: {message}\n"
        f"  --> pipelines.yaml:{line}:{column}\n"
        f"   |\n"
        f"{line:2} | {shown}\n"
        f"   | {' ' * (column - 1)}{'^' * len(marked)}" + (f"\n   = help: {help}" if help else "")
    )
    assert shown[column - 1 :].startswith(marked)


def test_all_faults_are_reported_at_once_in_the_order_of_the_lines(load: Load) -> None:
    text = GOOD.replace("0.5", "high").replace("generated", "generatd").replace("{name: demo}", "{}")
    with pytest.raises(ConfigErrors) as caught:
        load(text)
    assert [(d.code, d.span.line) for d in caught.value.diagnostics if d.span] == [
        ("TG0103", 4),
        ("TG0103", 9),
        ("TG0102", 10),
    ]
    assert caught.value.exit_code == 2


def test_faults_are_available_as_objects(load: Load) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(GOOD.replace("exact", "exakt").replace("version: 1", "version: 1.0"))
    data = caught.value.to_json()
    assert data["code"] == "TG0103"
    assert data["where"] == "pipelines.yaml:1:1"
    errors = data["errors"]
    assert isinstance(errors, list)
    assert errors[1] == {
        "code": "TG0111",
        "where": "pipelines.yaml:9:20",
        "hint": "did you mean `exact`?",
        "message": "`pipelines.demo.gates.rules[0].metric`: gate on unknown metric 'exakt'",
        "file": "pipelines.yaml",
        "line": 9,
        "column": 20,
        "help": "did you mean `exact`?",
    }


def test_an_inherited_fault_is_reported_once_where_it_was_written(explain: Explain) -> None:
    children = "".join(f"  child-{i}: {{extends: demo, description: a}}\n" for i in range(3))
    text = explain(GOOD.replace("      base_model: file:///models/tiny", "      epochs: 0") + children)
    assert text.count("error[") == 2
    assert "missing key `pipelines.demo.train.base_model`" in text
    assert "`pipelines.demo.train.epochs` should be greater than or equal to 1, got 0" in text


def test_a_fault_in_the_defaults_is_reported_once_for_all_pipelines(explain: Explain) -> None:
    text = GOOD.replace("pipelines:\n", "defaults:\n  split: {sed: 1}\npipelines:\n")
    second = GOOD.split("pipelines:\n")[1].replace("demo:", "other:", 1)
    rendered = explain(text + second)
    assert rendered.count("error[") == 1
    assert "unknown key `defaults.split.sed`" in rendered


def test_a_childs_own_fault_is_reported_next_to_the_same_fault_of_its_parent(explain: Explain) -> None:
    text = GOOD.replace("base_model: file:///models/tiny", "base_model: m\n      epochs: 0")
    rendered = explain(text + "  child: {extends: demo, train: {epochs: 0}}\n")
    assert rendered.count("error[TG0103]") == 2
    assert "`pipelines.child.train.epochs`" in rendered


def test_a_missing_file_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigErrors) as caught:
        load_file(Path("pipelines.yaml"))
    assert str(caught.value) == (
        "error[TG0110]: cannot read the file: No such file or directory\n"
        "  --> pipelines.yaml\n"
        "   = help: run from its folder, or name the file"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"TG0110.*Is a directory"):
        load_file(tmp_path)


def test_what_does_not_fit_together_is_reported_next_to_wrong_values(explain: Explain) -> None:
    """A wrong value elsewhere, or in the section itself, hides no fault; and what is not certain is not reported."""
    text = GOOD.replace("base_model: file:///models/tiny", "base_model: file:///m\n      epochs: many")
    text = text.replace(
        "- {metric: exact, value_threshold: 0.5}",
        "- {metric: exct, value_threshold: 0.5, slcie: x}\n      min_items: few",
    )
    found = explain(text)
    for sentence in (
        "`pipelines.demo.train.epochs` should be a whole number", "unknown key `pipelines.demo.gates.rules[0].slcie`",
        "`pipelines.demo.gates.min_items` should be a whole number", "gate on unknown metric 'exct'",
        "did you mean `exact`?",
    ):  # fmt: skip
        assert sentence in found, found
    assert found.count("error[") == 4
    # The metric may be one of those that cannot be read.
    assert "unknown metric" not in explain(text + "    evaluate: {metrics: [{uses: exact, nmae: exct}]}\n")
    assert "unknown metric" in explain(text + "    evaluate: {metrics: []}\n")


def test_a_variable_that_is_not_set_hides_no_other_fault(explain: Explain) -> None:
    """Nothing is said of what the variable would decide."""
    text = GOOD.replace("{metric: exact, value_threshold: 0.5}", "{metric: exct, value_threshold: 0.5}")
    found = explain(text.replace("file:///models/tiny", "${env:NO_SUCH_MODEL}"))
    assert "environment variable NO_SUCH_MODEL is not set" in found
    assert "gate on unknown metric 'exct'" in found
    assert found.count("error[") == 2, found
    for section in ("fields: '${env:NO_SUCH_FORM}'", "style: [{name: short, pattern: '${env:NO_SUCH_FORM}'}]"):
        found = explain(f"{text}    evaluate: {{{section}}}\n")
        assert found.count("error[") == 1, found


def test_a_wrong_value_alone_has_no_followers(explain: Explain) -> None:
    for wrong in (
        "train: {base_model: file:///m, method: lroa, quantization: null}",
        "train: {base_model: file:///m, early_stopping: 5}",
    ):
        found = explain(GOOD.replace("train:\n      base_model: file:///models/tiny", wrong))
        assert found.count("error[") == 1, found
