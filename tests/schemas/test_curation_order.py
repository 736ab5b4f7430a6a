"""The order of `curate.steps`: what is wrong is told at its line, with the move that mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.load import ConfigErrors, PipelineFile

Load = Callable[..., PipelineFile]
Explain = Callable[..., str]

FILE = """\
version: 1
pipelines:
  demo:
    source: {{kind: generated}}
    curate:
      steps:
{steps}
    train:
      base_model: file:///models/tiny
    gates:
      rules:
        - {{metric: exact, value_threshold: 0.5}}
    register: {{name: demo}}
"""

STEPS = {
    "rule": "{uses: rule, name: has_reply, keep: reply is not null}",
    "scored": "{uses: rule, name: calm, keep: caps_share < 0.5}",
    "sql": "{uses: sql, name: latest, file: latest.sql}",
    "python": "{uses: python, name: clean, entry_point: 'steps.clean:keep'}",
    "redact": "{uses: redact}",
    "dedup": "{uses: dedup}",
    "language": "{uses: language, keep: [en]}",
    "quality": "{uses: quality}",
    "label_check": "{uses: label_check}",
    "trigger_scan": "{uses: trigger_scan}",
    "length": "{uses: length}",
    "cap": "{uses: cap, per: [customer_id], max_rows: 5}",
}


def written(*steps: str) -> str:
    return FILE.format(steps="\n".join(f"        - {STEPS.get(step, step)}" for step in steps))


@pytest.mark.parametrize(
    "steps",
    [
        ("rule",),
        ("rule", "redact", "language", "quality", "scored", "sql", "python", "label_check", "trigger_scan", "dedup"),
        ("dedup", "rule", "python", "sql", "cap", "length"),
        ("length", "cap", "length", "cap"),
        ("sql", "python", "label_check", "dedup"),
        ("language", "quality", "redact"),
        ("{uses: rule, name: text, keep: body <> 'caps_share'}",),
    ],
)
def test_a_right_order_loads(load: Load, steps: tuple[str, ...]) -> None:
    spec = load(written(*steps)).get("demo")
    assert len(spec.curate.steps) == len(steps)


@pytest.mark.parametrize(
    ("steps", "message", "line", "hint"),
    [
        (("dedup", "redact"), "`dedup` stands before `redact`", 7, "move it down: two tickets that differ by personal"),
        (("rule", "label_check", "redact"), "`label_check` stands before `redact`", 8, "move it down: two tickets"),
        (("trigger_scan", "redact"), "`trigger_scan` stands before `redact`", 7, "move it down: a customer's own"),
        (("dedup", "trigger_scan"), "`trigger_scan` stands after `dedup`", 8, "move it up: dedup keeps one ticket"),
        (("sql", "redact"), "`sql` stands before `redact`", 7, "move it down: your own code should not see personal"),
        (("python", "redact"), "`python` stands before `redact`", 7, "move it down: your own code should not see"),
        (("dedup", "label_check"), "`label_check` stands after `dedup`", 8, "move it up: dedup keeps one ticket"),
        (("quality", "rule", "quality"), "`quality` stands twice", 9, "keep one of them"),
        (("redact", "redact"), "`redact` stands twice", 8, "keep one of them"),
        (("language", "language"), "`language` stands twice", 8, "keep one of them"),
        (("rule", "rule"), "two steps are named 'has_reply'", 8, "keep one of them"),
        (
            ("sql", "{uses: rule, name: latest, keep: 'true'}"),
            "two steps are named 'latest'",
            8,
            "keep one of them",
        ),
        (
            ("scored",),
            "rule 'calm' uses `caps_share`, which the step `quality` fills",
            7,
            "put `- uses: quality` before it",
        ),
        (
            ("scored", "quality"),
            "rule 'calm' uses `caps_share`, which the step `quality` fills",
            7,
            "put `- uses: quality` before it",
        ),
        (
            ("quality", "{uses: rule, name: speaks, keep: LANGUAGE = 'en'}"),
            "rule 'speaks' uses `language`, which the step `language` fills",
            8,
            "put `- uses: language` before it",
        ),
        (
            ("{uses: rule, name: agrees, keep: label_conflict = 0}", "label_check"),
            "rule 'agrees' uses `label_conflict`, which the step `label_check` fills",
            7,
            "put `- uses: label_check` before it",
        ),
    ],
)
def test_a_wrong_order_is_told_at_its_line_with_the_move_that_mends_it(
    explain: Explain, steps: tuple[str, ...], message: str, line: int, hint: str
) -> None:
    told = explain(written(*steps))
    assert told.count("error[") == 1
    assert told.startswith("error[TG0111]: `pipelines.demo.curate.steps[")
    assert message in told
    assert f"--> pipelines.yaml:{line}:" in told
    assert f"= help: {hint}" in told


def test_the_whole_message_points_at_the_step_to_move(explain: Explain) -> None:
    assert explain(written("rule", "dedup", "redact")) == (
        """\
error[TG0111]: `pipelines.demo.curate.steps[1].uses`: `dedup` stands before `redact`
  --> pipelines.yaml:8:18
   |
 8 |         - {uses: dedup}
   |                  ^^^^^
   = help: move it down: two tickets that differ by personal data alone are duplicates only when it is redacted"""
    )


def test_all_faults_of_an_order_are_told_at_once(explain: Explain) -> None:
    told = explain(written("scored", "dedup", "sql", "redact", "label_check", "label_check"))
    assert told.count("error[TG0111]") == 6


def test_an_order_that_is_inherited_is_told_once(load: Load) -> None:
    text = written("dedup", "redact").replace(
        "    register: {name: demo}\n", "    register: {name: demo}\n  twin:\n    extends: demo\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        load(text)
    assert str(caught.value).count("error[TG0111]") == 1


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            "{uses: language, keep: [en, EN]}",
            "unknown language 'EN'; write ISO 639-1 codes such as en",
        ),
        ("{uses: length, min_body: 10, max_body: 5}", "min_body is above max_body"),
        ("{uses: quality, max_perplexity: 50}", "max_perplexity needs `perplexity: true`"),
    ],
)
def test_a_step_that_contradicts_itself_is_told_at_its_line(explain: Explain, step: str, told: str) -> None:
    text = explain(written("rule", step))
    assert told in text
    assert "--> pipelines.yaml:8:" in text


def test_the_shipped_pipelines_are_in_order(project: Path) -> None:
    from schemas.load import load_file

    assert load_file(project / "pipelines.yaml", environ={}).pipelines
