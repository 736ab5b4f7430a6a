"""Codes of the commands, of the ledger and of the store: each is provoked by what a user may type or have."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main
from flows.commands.champion import _read_ticket
from flows.engine import ledger_file
from flows.engine.ledger import Ledger
from flows.engine.lock import pipeline_lock
from flows.engine.store import Store
from schemas.artifacts import ModelRef
from schemas.load import load_file
from tests.codes.test_data_codes import code_of

PIPELINE = """\
version: 1
pipelines:
  replies:
    source: {kind: generated}
    curate: {steps: [{uses: sql, name: own, file: absent.sql}]}
    train: {base_model: "file:models/x"}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: replies}
"""

Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in a folder that has a pipeline and nothing else; what it says on stderr."""
    (tmp_path / "pipelines.yaml").write_text(PIPELINE)
    (tmp_path / "empty").write_text("")
    (tmp_path / "feedback").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEGATE_HOME", raising=False)

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert ended.value.code != 0
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("TG0140", ["run", "replies", "--until", "finetuning"]),
        ("TG0142", ["predict", "replies", "--file", "empty"]),
        ("TG0147", ["funnel", "replies"]),
        ("TG0148", ["validate"]),
        ("TG0155", ["rollback", "replies", "--reason", "just trying"]),
        ("TG0164", ["feedback", "replies", "feedback"]),
        ("TG0165", ["feedback", "replies", "absent"]),
        ("TG0633", ["promote", "replies", "1"]),
    ],
)
def test_a_command_is_refused(say: Say, code: str, command: list[str]) -> None:
    assert f"error[{code}]" in say(*command)


def test_a_fault_of_the_program_is_told_without_its_words(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", "~nobody-of-this-name/state")  # pathlib raises what nobody expects
    assert say("runs").startswith("error[TG0001]: internal error: RuntimeError")


def test_an_empty_ticket_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text(" \n")
    assert code_of(lambda: _read_ticket(tmp_path / "ticket")) == "TG0141"


def test_a_run_without_a_complete_step_cannot_be_reproduced(say: Say, tmp_path: Path, tiny_model: ModelRef) -> None:
    text = PIPELINE.replace("file:models/x", f"file:{tiny_model.root}")
    (tmp_path / "pipelines.yaml").write_text(text)

    (tmp_path / "absent.sql").write_text("SELECT * FROM tickets")
    spec = load_file(tmp_path / "pipelines.yaml").get("replies")
    ledger = Ledger(tmp_path / ".tunegate")
    config = spec.model_dump_json(by_alias=True)
    ledger.start_run("run-1", pipeline="replies", model_name="replies", input_digest="d", config_json=config)
    assert "error[TG0157]" in say("reproduce", "run-1")


def test_a_ledger_that_another_process_writes_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "BUSY_TIMEOUT_S", 0)  # seconds: a user waits for thirty
    ledger = Ledger(tmp_path)
    ledger.start_run("run-0", pipeline="p", model_name="m", input_digest="d", config_json="{}")
    other = sqlite3.connect(next(tmp_path.glob("*.sqlite")), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def write() -> None:
        ledger.start_run("run-1", pipeline="p", model_name="m", input_digest="d", config_json="{}")

    assert code_of(write) == "TG0532"
    other.close()


def test_a_name_that_leaves_the_store_is_refused(tmp_path: Path) -> None:
    assert code_of(lambda: Store(tmp_path).place("..", "key")) == "TG0801"
    assert code_of(lambda: pipeline_lock(tmp_path, "../other", wait_s=0, run_id="1").__enter__()) == "TG0801"
