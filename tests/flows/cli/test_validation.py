"""`tunegate validate`: files that a pipeline names must exist."""

import json
import os
import re
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.flows.cli.conftest import PIPELINE
from tests.support.commands import run_here

HEADER = "ticket_id,body,reply\n"
ROW = "{},Where is parcel {}?,On its way.\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", HEADER + "".join(map(ROW.format, range(30), range(30))) + "30,too,many,fields\n" * 31, "TG0244 31"),
        ("t.csv", HEADER + "".join(f"{n},,Sorry.\n" if n % 9 == 0 else ROW.format(n, n) for n in range(90)), "TG0210"),
        ("t.csv", HEADER + "1,Wo ist das gr\xfcne Paket?,Unterwegs.\n" * 20, "TG0241 20"),
        ("t.json", '[{"ticket_id": 1}, {"bod', "TG0240 1"),
    ],
    ids=["fields", "empty", "encoding", "json"],
)
def test_a_source_with_too_many_faulty_rows_is_refused_by_its_commonest_fault(
    tmp_path: Path, tiny_model: ModelRef, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    source = f"{{kind: files, paths: [{name}]}}"
    text = PIPELINE.replace("{kind: generated}", source).replace(
        '"file:models/x"', f'"file:{tiny_model.root}", max_length: 256'
    )
    text = re.sub(r"    curate: .*\n", "    evaluate: {slices: [], arms: [zero_shot]}\n", text)
    (tmp_path / "pipelines.yaml").write_text(text)
    for command in (("validate", "--data"), ("plan", "replies")):
        done = run_here(command, cwd=tmp_path, environ=os.environ)
        words = " ".join(done.stderr.split())
        assert done.returncode == 3, done.stderr
        assert re.findall(r"error\[(\w+)\]", words) == ["TG0220"]
        assert reason in words
        assert "replies.source" in words


def test_all_errors_are_in_the_json_and_on_stderr(tmp_path: Path) -> None:
    text = PIPELINE.replace("absent.sql", "absent.sql}, {uses: sql, name: second, file: gone.sql")
    (tmp_path / "pipelines.yaml").write_text(f"{text}  wrong: {{}}\n")
    done = run_here(("validate", "--data", "--json"), cwd=tmp_path, environ=os.environ)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == error["errors"][0]["code"] == "TG0102"  # of the file, with its line
    codes = [each["code"] for each in error["errors"]]
    assert codes.count("TG0110") == 2
    assert "TG0171" in codes  # the base model's folder, which only --data reads
    for each in error["errors"]:
        assert each["where"]
        assert done.stderr.count(each["message"]) == 1


BROKEN = """\
version: 1
pipelines:
  replies:
    source: {kind: files, paths: [gone.jsonl]}
    curate: {steps: [{uses: rule, name: own, keep: "nope is not null"}]}
    checks: [{uses: volume, min_rows: 5}, {uses: volume, min_rows: 6}]
    train: {base_model: "file:models/x", learning_rate: fast}
    evaluate: {max_items: many, arms: [rag]}
    gates: {rules: [{metric: exactt, value_threshold: 0.5}]}
    register: {name: replies}
"""


def test_a_wrong_value_hides_nothing_that_does_not_depend_on_it(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(BROKEN)
    done = run_here(("validate", "--data", "--json"), cwd=tmp_path, environ=os.environ)
    messages = [each["message"] for each in json.loads(done.stdout)["error"]["errors"]]
    expected = (
        "train.learning_rate` should be a number", "evaluate.max_items` should be a whole number",
        "two checks are named 'volume'", "the arm rag needs a corpus", "the tuned model must beat the arm rag",
        "gate on unknown metric 'exactt'", "a rule names the unknown column nope", "no file 'gone.jsonl'",
    )  # fmt: skip
    for each in expected:
        assert sum(each in message for message in messages) == 1, each
    assert len(messages) == len(expected)  # and nothing that follows from them


def test_an_unknown_column_of_a_metric_in_sql_is_named(tmp_path: Path) -> None:
    def errors(select: str) -> str:
        metric = f"{{uses: sql, name: tone, select: {select}}}"
        (tmp_path / "pipelines.yaml").write_text(
            PIPELINE.replace('"file:models/x"}', f'"file:models/x", seed: x}}\n    evaluate: {{metrics: [{metric}]}}')
        )
        return run_here(("validate",), cwd=tmp_path, environ=os.environ).stderr

    assert 'Referenced column "nope"' in errors("'SELECT item_id, nope AS value FROM predictions'")
    assert "returns columns item_id; item_id and value are needed" in errors("'SELECT item_id FROM items'")
    right = "SELECT item_id, CASE WHEN finished THEN length(answer) END AS value FROM predictions JOIN items"
    assert "tone" not in errors(f"'{right} USING (item_id)'")


def test_nothing_is_said_about_what_depends_on_a_wrong_value(tmp_path: Path) -> None:
    text = BROKEN.replace("max_items: many", "metrics: [{uses: regex, name: own, pattern: '('}]")
    (tmp_path / "pipelines.yaml").write_text(text)
    done = run_here(("validate", "--json"), cwd=tmp_path, environ=os.environ)
    messages = [each["message"] for each in json.loads(done.stdout)["error"]["errors"]]
    assert any("not a regular expression" in message for message in messages)
    assert any("the arm rag needs a corpus" in message for message in messages)
    assert not any("exactt" in message for message in messages)  # it may be the name of the wrong metric


def test_a_prompt_that_shows_the_answer_is_refused_or_named(tmp_path: Path) -> None:
    """Every candidate would get it right, and no ticket that arrives has it."""

    def said(prompt: str, evaluate: str = "") -> str:
        text = re.sub(r"    curate: .*\n", f"    evaluate: {{{evaluate}}}\n", PIPELINE)
        text = text.replace('"file:models/x"', f'"file:models/x", prompt: {prompt}')
        (tmp_path / "pipelines.yaml").write_text(text)
        return run_here(("validate",), cwd=tmp_path, environ=os.environ).stderr

    copied = said('{system: "Say {reply}", user: "{body} {reply}"}')
    for key in ("system", "user"):
        assert f"`pipelines.replies.train.prompt.{key}`: the prompt shows `{{reply}}`" in copied
    assert "warning" not in copied
    assert said('{user: "{reply}", answer: "{category}"}') == ""  # what a reply is about may be learned from it
    warning = "warning train.prompt shows {category}, a part of the answer"
    assert warning in said('{user: "{body} {category}", answer: "{category}"}')
    assert warning in said('{user: "{body} {category}"}', 'fields: "(?P<category>[a-z]+)"')


def test_a_resource_by_name_is_warned_of_where_each_project_has_its_own_ledger(tmp_path: Path) -> None:
    text = re.sub(r"    curate: .*\n", "", PIPELINE)

    def said(resource: str, **environ: str) -> str:
        schedule = f'{{cron: "@daily", resource: {resource}}}'
        (tmp_path / "pipelines.yaml").write_text(f"{text}    schedule: {schedule}\n")
        done = run_here(("validate",), cwd=tmp_path, environ={**os.environ, **environ})
        return " ".join(done.stderr.split())

    warning = "warning `schedule.resource: gpu` excludes only runs of this home folder's ledger"
    assert warning in said("gpu")
    assert "/srv/locks/gpu.lock" in said("gpu")
    assert "warning" not in said("/srv/locks/gpu.lock")
    assert "warning" not in said("gpu", TUNEGATE_LEDGER_URL="postgresql://nobody@127.0.0.1:9/ledger")
    assert "schedule.resource" in said("../gpu.lock")
    assert "error" in said("../gpu.lock")


def test_warnings_are_shown_next_to_errors(tmp_path: Path) -> None:
    warning = "gates.rules[1] (exact at least 1.5) cannot be met: exact is between 0 and 1 (replies)"
    limits = "{metric: exact, value_threshold: 0.5}, {metric: exact, value_threshold: 1.5}"
    text = PIPELINE.replace("{metric: exact, value_threshold: 0.5}", limits)
    for wrong in (
        text,  # a missing SQL file alone
        text.replace('"file:models/x"', '"file:models/x", learning_rate: fast'),
        text.replace("metric: exact, value_threshold: 0.5", "metric: exactt, value_threshold: 1.5"),
        f"{text}    evaluate: {{batch_size: many}}\n",
        text.replace('"file:models/x"', '"${env:NO_SUCH_MODEL}"'),
    ):
        (tmp_path / "pipelines.yaml").write_text(wrong)
        done = run_here(("validate",), cwd=tmp_path, environ=os.environ)
        assert done.returncode == 2
        assert done.stderr.count("warning ") == done.stderr.count(warning) == 1
        assert done.stderr.index(warning) < done.stderr.index("error[")
