"""`--set PATH=VALUE`: settings for one run, parsed and checked like those of the file, each fault at its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.diagnostics import ConfigErrors
from schemas.load import load_file
from schemas.pipeline import PipelineSpec

Load = Callable[..., PipelineSpec]
TEXT = """\
version: 1
pipelines:
  base:
    source: {kind: generated}
    train: {base_model: "file:m", max_examples: 900, adapter: {rank: 4}}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: base}
  other: {extends: base}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "pipelines.yaml"
    path.write_text(TEXT)

    def loaded(*settings: str, name: str = "base") -> PipelineSpec:
        return load_file(path, settings=settings, only="base").get(name)

    return loaded


def test_settings_replace_those_of_one_pipeline(load: Load) -> None:
    spec = load("train.max_examples=200", "train.adapter.layers=3", "evaluate.arms=[few_shot]", "train.epochs=2")
    train = spec.train
    assert (train.max_examples, train.adapter.rank, train.adapter.layers, train.epochs) == (200, 4, 3, 2)
    assert spec.evaluate.arms == ("few_shot",)
    assert load("train.max_examples=1", "train.max_examples=null").train.max_examples is None  # the last one wins
    assert load("train.max_examples=200", name="other").train.max_examples == 900


@pytest.mark.parametrize(
    ("setting", "message", "column"),
    [
        ("train.max_examples=many", "`train.max_examples` should be a whole number, got 'many'", 26),
        ("train.max_example=3", "unknown key `train.max_example`", 7),
        ("train.adapter={ranks: 3}", "unknown key `train.adapter.ranks`", 22),
        ("gates.min_items=3", "allowed in train and evaluate; others are changed in the file", 7),
        ("schema.fail_above=1", "allowed in train and evaluate", 7),
        ("train.prompt.system=a: b", "not YAML", 7),
        ("max_examples 3", "should be PATH=VALUE", 7),
        ("train.adapter={layers: 3-1}", "has no layers", 30),
    ],
)
def test_a_fault_is_shown_in_the_setting(load: Load, setting: str, message: str, column: int) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(setting)
    (fault,) = caught.value.diagnostics
    assert message in fault.message
    assert (fault.where, fault.text) == (f"--set:1:{column}", f"--set {setting}")


def test_a_fault_of_the_file_keeps_its_place(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(TEXT.replace("rank: 4", "rank: no"))
    with pytest.raises(ConfigErrors) as caught:
        load_file(path, settings=["train.epochs=0"], only="base")
    assert [fault.where for fault in caught.value.diagnostics] == ["--set:1:20", f"{path}:5:70"]
