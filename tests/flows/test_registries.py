"""A new curation step, metric, check and export format: one file each, and one line that imports it.

The files are written into a temporary folder, so the test edits nothing of the project; a contributor also adds the
import to `tasks/curate/steps.py` or its like.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from schemas.editor import editor_schema
from tasks.assess.check import remove_check
from tasks.assess.metric import remove_metric
from tasks.curate.step import remove_step
from tasks.release.export_format import remove_format
from tests.support.project import PROJECT
from tests.support.workplace import Workplace

STEP = """
from pathlib import Path
from typing import Literal

from pydantic import Field

from schemas.artifacts import TicketTable
from schemas.curation_steps import CurationStepSpec
from tasks.curate.step import curation_step
from tasks.step import as_step


class MentionStep(CurationStepSpec):
    \"\"\"Tickets whose body has a word are dropped.\"\"\"

    uses: Literal["mentions"]
    once = True
    before_dedup = "a duplicate without the word would be kept in place of one with it"
    word: str = Field(min_length=2)
    \"\"\"The word, in lower case.\"\"\"


@curation_step(MentionStep)
@as_step("mentions", libraries=("pyarrow",))
def drop_mentions(out: Path, *, tickets: TicketTable, step: MentionStep) -> TicketTable:
    import pyarrow.compute as pc

    from tasks.curate.drop import Judged, Rule, drop_rows, first_rule
    from tasks.curate.rows import read_batches

    def judge(batch):
        batch = batch.combine_chunks()
        has_word = pc.match_substring(batch["body"], step.word, ignore_case=True).combine_chunks()
        return Judged(batch, *first_rule({"mentions": Rule(has_word, f"the body has {step.word!r}")}, batch.num_rows))

    return drop_rows(map(judge, read_batches(tickets.tickets)), out=out, notes={}, possible=("mentions",))
"""

METRIC = """
from typing import Literal

from pydantic import Field

from schemas.metrics import MetricSpec, MetricTraits
from tasks.assess.metric import Score, metric


class ShortMetric(MetricSpec):
    \"\"\"1 where the answer has at most so many characters.\"\"\"

    uses: Literal["short"]
    longest: int = Field(default=400, ge=1)
    \"\"\"Characters.\"\"\"

    def traits(self) -> MetricTraits:
        return MetricTraits(name="short")


@metric(ShortMetric)
def short(spec: ShortMetric) -> Score:
    return lambda text, item: float(len(text) <= spec.longest)
"""

CHECK = """
from pathlib import Path

from pydantic import Field

from schemas.artifacts import Predictions
from schemas.evidence import CheckEvidence
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

EXPORT = """
from pathlib import Path

from tasks.release.export_format import Exported, export_format


@export_format("card", reads_base=False)
def write_card(source: Exported, out: Path) -> dict[str, float]:
    (out / "CARD.md").write_text(f"version {source.version}, by {source.trained.method}", encoding="utf-8")
    return {"n_steps": float(source.trained.n_steps)}
"""

FILES = {"mention_step": STEP, "short_metric": METRIC, "longest_check": CHECK, "card_format": EXPORT}


@pytest.fixture
def added(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """A workplace with the four new kinds loaded in this process."""
    folder = workplace.folder / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
        importlib.import_module(name)
    yield workplace
    remove_step("mentions")
    remove_metric("short")
    remove_check("longest_answer")
    remove_format("card")
    for name in FILES:
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

    funnel = added.json("funnel", "small", "--reasons")
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

    exported = added.json("export", "small@champion", "--format", "card", "--out", "card")
    assert set(exported["files"]) == {"CARD.md"}
    assert (added.folder / "card" / "CARD.md").read_text() == "version 1, by lora"
    assert exported["checked"]["n_steps"] == 6

    # Only the judge reads the limit, so the answers are not measured again.
    declare(added, lambda pipeline: pipeline["gates"]["longest_answer"].update(characters=1))
    assert added.run("run", "small").returncode == 5
    shown = added.json("show", added.json("runs")["runs"][0]["run_id"])
    (check,) = [step for step in shown["steps"] if step["step"] == "longest_answer"]
    assert check["state"] == "reused"


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
    done = added.run("export", "small@champion", "--format", "crad", "--out", "card")
    assert done.returncode == 2
    [allowed] = re.findall("no export format 'crad'; allowed: (.+)", done.stderr)
    # In the order in which this process imported their modules.
    assert set(allowed.split(", ")) == {"peft", "vllm", "merged", "ollama", "openai-jsonl", "card"}
    assert "did you mean `card`?" in done.stderr


def test_the_json_schema_has_the_new_keys_and_drops_removed_ones(added: Workplace) -> None:
    definitions = editor_schema()["$defs"]
    assert definitions["MentionStep"]["properties"]["word"]["description"] == "The word, in lower case."
    assert "longest_answer" in definitions["GatesSpec"]["properties"]
    remove_step("mentions")
    assert "MentionStep" not in editor_schema()["$defs"]
    importlib.reload(sys.modules["mention_step"])
    assert "MentionStep" in editor_schema()["$defs"]


def test_two_kinds_with_the_same_name_are_refused(added: Workplace) -> None:
    with pytest.raises(ValueError, match="two kinds have `uses: mentions`"):
        importlib.reload(sys.modules["mention_step"])


REGISTRIES = (
    "print([name for name in ('tasks.curate.steps', 'tasks.assess.metrics', 'tasks.assess.checks', "
    "'tasks.sources.registry') if name not in sys.modules])"
)


@pytest.mark.parametrize(
    "reads",
    [
        "from flows.cli import main\nwith contextlib.suppress(SystemExit):\n"
        "    main(['validate', '--config', 'absent.yaml'])\n",
        "from types import SimpleNamespace\nfrom flows.views.run_reader import spec_of\n"
        "with contextlib.suppress(Exception):\n    spec_of(SimpleNamespace(config_json=b'{}', run_id='1'))\n",
    ],
    ids=["a file", "a recorded run"],
)
def test_all_kinds_are_loaded_before_a_pipeline_is_read(reads: str) -> None:
    program = f"import contextlib, sys\n{reads}{REGISTRIES}"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
