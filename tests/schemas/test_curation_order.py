"""A wrong order of `curate.steps` is reported at its line, with the step to move."""

from collections.abc import Callable

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
    "mail": "{uses: mail}",
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
        (("dedup", "redact"), "`dedup` comes before `redact`", 7, "move it down: two tickets that differ by personal"),
        (("rule", "label_check", "redact"), "`label_check` comes before `redact`", 8, "move it down: two tickets"),
        (("trigger_scan", "redact"), "`trigger_scan` comes before `redact`", 7, "move it down: a customer's own"),
        (("dedup", "trigger_scan"), "`trigger_scan` comes after `dedup`", 8, "move it up: dedup keeps one ticket"),
        (("sql", "redact"), "`sql` comes before `redact`", 7, "move it down: your own code should not see personal"),
        (("python", "redact"), "`python` comes before `redact`", 7, "move it down: your own code should not see"),
        (("dedup", "label_check"), "`label_check` comes after `dedup`", 8, "move it up: dedup keeps one ticket"),
        (("quality", "rule", "quality"), "`quality` is listed twice", 9, "keep one of them"),
        (("redact", "redact"), "`redact` is listed twice", 8, "keep one of them"),
        (("language", "language"), "`language` is listed twice", 8, "keep one of them"),
        (("rule", "rule"), "two steps are named 'has_reply'", 8, "keep one of them"),
        (("sql", "{uses: rule, name: latest, keep: 'true'}"), "two steps are named 'latest'", 8, "keep one of them"),
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
def test_a_wrong_order_is_reported_at_its_line_with_the_step_to_move(
    explain: Explain, steps: tuple[str, ...], message: str, line: int, hint: str
) -> None:
    text = explain(written(*steps))
    assert text.count("error[") == 1
    assert text.startswith("error[TG0111]: `pipelines.demo.curate.steps[")
    assert message in text
    assert f"--> pipelines.yaml:{line}:" in text
    assert f"= help: {hint}" in text


def test_the_whole_message_points_at_the_step_to_move(explain: Explain) -> None:
    assert explain(written("rule", "dedup", "redact")) == (
        """\
error[TG0111]: `pipelines.demo.curate.steps[1].uses`: `dedup` comes before `redact`
  --> pipelines.yaml:8:18
   |
 8 |         - {uses: dedup}
   |                  ^^^^^
   = help: move it down: two tickets that differ by personal data alone are duplicates only when it is redacted"""
    )


def test_all_faults_of_an_order_are_reported_at_once(explain: Explain) -> None:
    text = explain(written("scored", "dedup", "sql", "redact", "label_check", "label_check"))
    assert text.count("error[TG0111]") == 6


def test_a_fault_of_an_inherited_order_is_reported_once(load: Load) -> None:
    text = written("dedup", "redact").replace(
        "    register: {name: demo}\n", "    register: {name: demo}\n  twin:\n    extends: demo\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        load(text)
    assert str(caught.value).count("error[TG0111]") == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{uses: language, keep: [en, EN]}", "unknown language 'EN'; write ISO 639-1 codes such as en"),
        ("{uses: length, min_body: 10, max_body: 5}", "min_body is above max_body"),
        ("{uses: quality, max_perplexity: 50}", "max_perplexity needs `perplexity: true`"),
    ],
)
def test_a_step_that_contradicts_itself_is_reported_at_its_line(explain: Explain, step: str, message: str) -> None:
    text = explain(written("rule", step))
    assert message in text
    assert "--> pipelines.yaml:8:" in text
