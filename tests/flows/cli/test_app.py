"""The command line: exit codes, JSON, and actionable errors."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.support.commands import run_here
from tests.support.specs import SMALL_FILE

BROKEN = SMALL_FILE.replace('x"}', 'x", lerning_rate: 1e-3}')
FINE = BROKEN.replace("lerning_rate", "learning_rate")


def tunegate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_here(arguments, cwd=cwd, environ=dict(os.environ))


def test_errors_are_json_objects_with_json_output(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(BROKEN)
    done = tunegate("validate", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["exit_code"] == 2
    assert report["error"]["code"].startswith("TG01")


def test_validate_lists_the_pipelines_of_a_valid_file(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    done = tunegate("validate", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["pipelines"] == ["replies"]


@pytest.mark.parametrize("command", ["run", "plan", "model champion", "predict"])
def test_an_unknown_pipeline_gets_a_suggestion(tmp_path: Path, command: str) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    done = tunegate(*command.split(), "replis", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean `replies`" in done.stderr


def test_a_usage_error_exits_with_code_2(tmp_path: Path) -> None:
    assert tunegate("run", cwd=tmp_path).returncode == 2
    assert tunegate("no-such-command", cwd=tmp_path).returncode == 2
    result = json.loads(tunegate("run", "--json", cwd=tmp_path).stdout)
    assert (result["exit_code"], result["error"]["code"]) == (2, "usage")


def test_plan_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE.replace("file:models/x", "file:."))
    before = sorted(tmp_path.rglob("*"))
    done = tunegate("plan", "replies", "--json", cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    # an empty folder is not a model: the plan fails instead of promising a run
    assert done.returncode == 2, done.stderr


def test_an_unknown_stage_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    done = tunegate("run", "replies", "--until", "finetuning", cwd=tmp_path)
    assert done.returncode == 2
    assert "'--until': Value error, 'finetuning' is not one of 'curate', 'finetune', 'assess', 'release'" in done.stderr
    assert not (tmp_path / ".tunegate").exists()


def test_status_and_runs_of_a_fresh_folder_are_empty(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    assert json.loads(tunegate("runs", "--json", cwd=tmp_path).stdout) == {"runs": []}
    report = json.loads(tunegate("status", "--json", cwd=tmp_path).stdout)
    assert report["running"] == []
    assert report["champions"] == []
    assert json.loads(tunegate("ops", "down", "--json", cwd=tmp_path).stdout) == {"stopped": [], "left": []}


def test_the_schema_command_prints_the_committed_schema(tmp_path: Path, project: Path) -> None:
    printed = json.loads(tunegate("ops", "schema", "--json", cwd=tmp_path).stdout)
    assert printed == json.loads((project / "schemas" / "pipelines.schema.json").read_text())


def test_explain_prints_the_row_of_a_code_and_the_rows_of_a_range(tmp_path: Path) -> None:
    done = tunegate("explain", "tg0220", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("TG0220 (data): The quarantined fraction is over `schema.fail_above`\n  Correct the")
    ranged = json.loads(tunegate("explain", "TG02", "--json", cwd=tmp_path).stdout)["codes"]
    assert {"TG0201", "TG0220", "TG0221"} <= {row["code"] for row in ranged}
    assert {row["range"] for row in ranged} == {"data"}


def test_explain_suggests_the_nearest_code_for_an_unknown_one(tmp_path: Path) -> None:
    done = tunegate("explain", "TG0902", cwd=tmp_path)
    assert done.returncode == 2
    assert "error[TG0103]: no error code 'TG0902'" in done.stderr
    assert "did you mean `TG0" in done.stderr
    assert tunegate("explain", "T", cwd=tmp_path).returncode == 2


def test_validate_checks_the_sql_and_the_functions_of_the_file(tmp_path: Path) -> None:
    steps = """
    curate:
      steps:
        - {uses: rule, name: typed, keep: length(bodyy) > 3}
        - {uses: rule, name: closed, keep: "body is null or exists (select 1)"}
        - {uses: sql, name: chosen, file: chosen.sql}
        - {uses: python, name: own, entry_point: "absent:keep"}
"""
    child = "  child: {extends: replies, register: {name: child}}\n"
    (tmp_path / "pipelines.yaml").write_text(FINE.rstrip() + steps + child)
    (tmp_path / "chosen.sql").write_text("SELECT * FROM tickets; DROP TABLE tickets")
    done = tunegate("validate", cwd=tmp_path)
    assert done.returncode == 2
    found = re.findall(r"^error\[(TG\d+)\]: .*\n  --> (.*)$", done.stderr, re.MULTILINE)
    assert len(found) == 4
    for code, place in (
        ("TG0120", "replies.curate.rule.typed"),
        ("TG0811", "curate.rule.closed"),
        ("TG0811", "chosen.sql"),
        ("TG0128", "absent"),
    ):
        assert any(got == code and place in where for got, where in found), (code, found)
    assert "did you mean body?" in done.stderr


def test_validate_reports_wrong_keys_addresses_metrics_and_sql_of_all_pipelines_at_once(tmp_path: Path) -> None:
    other = FINE.partition("pipelines:\n")[2].replace("replies", "other")
    other += "    curate: {steps: [{uses: rule, name: typed, keep: length(bodyy) > 3}]}\n"
    text = BROKEN.replace("file:models/x", "hf://org/name@main").replace("metric: exact", "metric: exct") + other
    (tmp_path / "pipelines.yaml").write_text(text)
    done = tunegate("validate", cwd=tmp_path)
    assert done.returncode == 2
    found = dict.fromkeys(re.findall(r"^error\[(TG\d+)\]", done.stderr, re.MULTILINE))
    assert sorted(found) == ["TG0101", "TG0111", "TG0120", "TG0171"], done.stderr
    words = " ".join(done.stderr.split())
    assert "`pipelines.replies.train.base_model`: invalid base_model 'hf://org/name@main' --> pipelines.yaml:5" in words
    assert "gate on unknown metric 'exct'" in words


def test_validate_with_data_reads_the_files_and_columns_that_the_file_names(
    tmp_path: Path, tiny_model: ModelRef
) -> None:
    def declare(source: str, base: str, more: str = "") -> None:
        text = FINE.replace("{kind: generated}", source).replace("file:models/x", base)
        (tmp_path / "pipelines.yaml").write_text(text.replace("learning_rate", "max_length: 256, learning_rate") + more)

    declare("{kind: files, paths: [absent.csv]}", "file:models/none", "    evaluate: {slices: [product]}\n")
    assert tunegate("validate", cwd=tmp_path).returncode == 0  # files are not read
    done = tunegate("validate", "--data", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert set(re.findall(r"^error\[(TG\d+)\]", done.stderr, re.MULTILINE)) == {"TG0171", "TG0201"}

    (tmp_path / "t.csv").write_text("ticket_id,body,reply\n1,The lamp is broken.,Sorry.\n2,Where is it?,\n")
    base = f"file:{tiny_model.root}"
    more = "    evaluate: {slices: [product], arms: [zero_shot]}\n"
    declare("{kind: files, paths: [t.csv]}", base, more)
    done = tunegate("validate", "--data", cwd=tmp_path)
    words = " ".join(done.stderr.split())
    assert "no ticket of the source has `product`, which evaluate.slices needs" in words
    assert "source.columns: {product: THEIR_NAME}" in words
    assert words.count("error[") == 1
    declare("{kind: files, paths: [t.csv]}", base, more.replace("product", ""))
    done = tunegate("validate", "--data", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["data"]["replies"]["n_out"] == 2, done.stderr
    assert not (tmp_path / ".tunegate").exists()


def test_an_internal_error_is_reported_without_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    monkeypatch.setenv("TUNEGATE_HOME", "~no-user-of-this-name/state")  # an error that our code does not expect
    done = tunegate("runs", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("error[TG0001]: internal error: RuntimeError")
