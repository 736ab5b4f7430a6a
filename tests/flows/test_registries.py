"""A new curation step, metric, check and export format: one file each, in an installed package that names them."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from schemas.json_schema import json_schema
from schemas.registries import load_registries
from tasks.plugins import load_kinds, load_plugins
from tests.support.documentation import examples_of_contributing
from tests.support.plugins import install, remove
from tests.support.project import PROJECT
from tests.support.workplace import Workplace

IN_ITS_PLACE = """\
    once = True
    before_dedup = "a duplicate without the word would be kept in place of one with it"
    word: str
    \"\"\"The word, in lower case.\"\"\"
"""
"""Fields of the step: the example's own, described, and its place among the steps."""

CHECK = """
from pathlib import Path

from pydantic import Field

from schemas.artifacts import Predictions
from schemas.artifacts import CheckEvidence
from schemas.spec import Spec
from tasks.assess.check import Measurement, finding, gate_check, measured
from tasks.step import as_step


class LongestSpec(Spec):
    \"\"\"`gates.longest_answer`: no answer is longer.\"\"\"

    characters: int = Field(ge=1)
    \"\"\"Characters of the longest answer.\"\"\"


def judge(evidence, spec):
    longest = measured(evidence, "longest")
    met = longest is not None and longest <= spec.characters
    value = Measurement(longest, n_items=evidence.n_items, limit=spec.characters, method="count")
    reason = f"the longest answer has {longest:.0f} characters."
    yield finding("check", "no answer is too long", "PROMOTE" if met else "BLOCK", value, reason=reason)


@gate_check("longest_answer", LongestSpec, judge=judge)
@as_step("longest_answer", libraries=("pyarrow",))
def measure(out: Path, *, predictions: Predictions) -> CheckEvidence:
    import pyarrow.parquet as pq

    texts = pq.read_table(predictions.root / "predictions.parquet", columns=["text"])["text"].to_pylist()
    values = {"longest": float(max(len(text or "") for text in texts))}
    (out / "evidence.json").write_text("{}")
    return CheckEvidence(root=out, check="longest_answer", n_items=len(texts), values=values)
"""


@pytest.fixture
def added(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """A workplace with a plug-in that adds four kinds: the examples of CONTRIBUTING.md, and a check."""
    folder = workplace.folder / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    examples = examples_of_contributing(PROJECT)
    step = examples["tasks/curate/mentions.py"]
    assert "    word: str\n" in step
    files = {
        "mentions_step": step.replace("    word: str\n", IN_ITS_PLACE), "longest_check": CHECK,
        "short_metric": examples["tasks/assess/short.py"], "card_format": examples["tasks/release/export_card.py"],
    }  # fmt: skip
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    install(folder, steps="mentions = mentions_step", metrics="short = short_metric",
            checks="longest_answer = longest_check", exports="card = card_format")  # fmt: skip
    monkeypatch.setattr("tasks.plugins._loaded", {})
    load_registries()
    load_kinds()
    load_plugins("tunegate.exports")
    yield workplace
    remove(steps="mentions", metrics="short", checks="longest_answer", exports="card")
    for name in files:
        del sys.modules[name]


def declare(workplace: Workplace, change: Callable[[dict[str, Any]], None] = lambda _pipeline: None) -> None:
    """The small pipeline with the new step, metric and check."""

    def edit(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["curate"]["steps"].insert(1, {"uses": "mentions", "word": "refund"})
        pipeline["evaluate"]["metrics"].append({"uses": "short", "longest": 300})
        pipeline["gates"]["rules"].append({"metric": "short", "value_threshold": 0.0})
        pipeline["gates"]["longest_answer"] = {"characters": 5_000}
        change(pipeline)

    workplace.declare(edit)


def test_each_new_kind_works_in_a_real_run(added: Workplace) -> None:
    declare(added)
    done = added.run("run", "small")
    assert done.returncode == 0, done.stderr

    funnel = added.json("data", "funnel", "small", "--reasons")
    (step,) = [row for row in funnel["funnel"] if row["step"] == "mentions"]
    assert 0 < step["n_dropped"] < step["n_in"]
    assert [(row["code"], row["n_rows"]) for row in funnel["reasons"] if row["step"] == "mentions"] == [
        ("mentions", step["n_dropped"])
    ]
    card = json.loads((added.folder / funnel["card"]).with_suffix(".json").read_text())
    assert "mentions" in [row["step"] for row in card["funnel"]]

    run_id = added.json("runs")["runs"][0]["run_id"]
    explained = added.json("gate", "explain", run_id)
    assert explained["verdict"] == "PROMOTE"
    assert {"short", "check"} <= {finding["metric"] for finding in explained["findings"]}

    exported = added.json("model", "export", "small@champion", "--format", "card", "--out", "card")
    assert set(exported["files"]) == {"CARD.md"}
    assert (added.folder / "card" / "CARD.md").read_text() == "version 1, trained by lora\n"
    assert exported["checked"]["n_steps"] == 6

    # Only the judge reads the limit, so the answers are not measured again.
    declare(added, lambda pipeline: pipeline["gates"]["longest_answer"].update(characters=1))
    assert added.run("run", "small").returncode == 5
    shown = added.json("show", added.json("runs")["runs"][0]["run_id"])
    (check,) = [step for step in shown["steps"] if step["step"] == "longest_answer"]
    assert check["state"] == "reused"

    step = added.folder / "mine" / "mentions_step.py"
    step.write_text(
        step.read_text().replace("self.word", "self.word.lower()").replace("step.word", "step.word.lower()")
    )
    planned = {each["step"]: each for each in added.json("plan", "small")["steps"]}
    assert planned["mentions"]["why"] == "code of mentions_step changed"
    assert planned["redact"]["state"] == "reused"


def test_a_wrong_key_of_each_kind_is_reported_with_its_place_and_what_is_allowed(added: Workplace) -> None:
    def spoil(pipeline: dict[str, Any]) -> None:
        pipeline["curate"]["steps"][1] = {"uses": "mentions", "wrod": "refund"}
        pipeline["evaluate"]["metrics"][1:] = [{"uses": "short", "longset": 300}, {"uses": "shrt"}]
        pipeline["gates"]["longest_answer"] = {"characters": 0}

    declare(added, spoil)
    stderr = added.run("validate").stderr
    for message in (
        "unknown key `pipelines.small.curate.steps[1].wrod`",
        "did you mean `word`?",
        "missing key `pipelines.small.curate.steps[1].word`",
        "The word, in lower case.",
        "unknown key `pipelines.small.evaluate.metrics[1].longset`",
        "did you mean `longest`?",
        "`pipelines.small.evaluate.metrics[2].uses` should be one of",
        "did you mean `short`?",
        "`pipelines.small.gates.longest_answer.characters` should be greater than or equal to 1, got 0",
        "--> pipelines.yaml:",
    ):
        assert message in stderr


def test_a_step_in_the_wrong_place_is_refused_with_a_reason(added: Workplace) -> None:
    declare(added, lambda pipeline: pipeline["curate"]["steps"].append(pipeline["curate"]["steps"].pop(1)))
    stderr = added.run("validate").stderr
    assert "`mentions` comes after `dedup`" in stderr
    assert "move it up: a duplicate without the word would be kept in place of one with it" in stderr


def test_an_unknown_format_is_refused_with_the_known_ones(added: Workplace) -> None:
    done = added.run("model", "export", "small@champion", "--format", "crad", "--out", "card")
    assert done.returncode == 2
    [allowed] = re.findall("no export format 'crad'; allowed: (.+)", done.stderr)
    # In the order in which this process imported their modules.
    assert set(allowed.split(", ")) == {"peft", "vllm", "merged", "ollama", "openai-jsonl", "card"}
    assert "did you mean `card`?" in done.stderr


def test_the_json_schema_has_the_new_keys_and_drops_removed_ones(added: Workplace) -> None:
    definitions = json_schema()["$defs"]
    assert definitions["MentionsStep"]["properties"]["word"]["description"] == "The word, in lower case."
    assert "longest_answer" in definitions["GatesSpec"]["properties"]
    remove(steps="mentions")
    assert "MentionsStep" not in json_schema()["$defs"]
    importlib.reload(sys.modules["mentions_step"])
    assert "MentionsStep" in json_schema()["$defs"]


def test_two_kinds_with_the_same_name_are_refused(added: Workplace) -> None:
    with pytest.raises(ValueError, match="two kinds have `uses: mentions`"):
        importlib.reload(sys.modules["mentions_step"])
