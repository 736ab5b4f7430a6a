"""Commands that cannot do what they are called for end with the code of the reason."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("validate", "-c", "absent.yaml"), "TG0110"),
        (("validate",), "TG0110"),  # the SELECT that the file names is absent
        (("model", "promote", "replies", "1"), "TG0621"),
        (("model", "rollback", "replies", "--reason", "just trying"), "TG0159"),
        (("model", "feedback", "replies", "absent"), "TG0110"),
        (("model", "feedback", "replies", "feedback"), "TG0164"),  # without a usable line
        (("predict", "replies", "--file", "ticket"), "TG0159"),
        (("data", "funnel", "replies"), "TG0159"),
        (("study", "reproduce", "2026"), "TG0151"),
        (("study", "estimate"), "TG0139"),
        (("study", "estimate", "replies", "--base", "llama-2-7b"), "TG0139"),
    ],
)
def test_a_command_is_refused_with_the_code_of_its_reason(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...], code: str
) -> None:
    (tmp_path / "ticket").write_text("")
    (tmp_path / "feedback").write_text("{}\n")
    assert f"error[{code}]" in refusal(*words)


@pytest.mark.timeout(60)
def test_feedback_from_a_pipe_or_device_is_refused_at_once(refusal: Callable[..., str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in ("pipe", "/dev/zero"):
        error = refusal("model", "feedback", "replies", file)
        assert "error[TG0110]" in error
        assert "it is a pipe, a device or a socket, not a file" in error


@pytest.mark.parametrize("words", [("funnel",), ("sample",), ("quarantine", "--sql", "SELECT 1")])
def test_a_warehouse_that_is_no_database_is_refused_with_the_command_that_writes_it(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = tmp_path / ".tunegate" / "warehouse" / "replies"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "warehouse.duckdb").write_bytes(b"no database, but longer than its magic bytes")
    error = refusal("data", words[0], "replies", *words[1:])
    assert "error[TG0519]: not a DuckDB database" in error
    assert "hint: `tunegate data curate PIPELINE` writes it again" in error


def test_a_source_that_is_no_database_is_refused_with_the_kind_that_reads_it(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    config = tmp_path / "pipelines.yaml"
    source = "source: {kind: duckdb, database: t.csv, table: tickets}"
    config.write_text(re.sub(r"source: \{.*\}", source, config.read_text()))
    (tmp_path / "t.csv").write_text("ticket_id,body,reply\n1,The lamp is broken.,Sorry.\n")
    error = refusal("validate", "--data")
    assert "error[TG0519]" in error
    assert "`kind: files` CSV, JSON lines and Parquet" in error


@pytest.mark.parametrize(("name", "what"), [("nodir", "nodir is not there"), ("file", "file is a file")])
def test_verifying_something_else_than_an_export_says_how_one_is_written(
    refusal: Callable[..., str], tmp_path: Path, name: str, what: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    error = refusal("model", "verify", name)
    assert f"error[TG0110]: {what}; the folder of an export is needed" in error
    assert "hint: `tunegate model export PIPELINE@champion --out FOLDER` writes one" in error
    damaged = refusal("model", "verify", "empty")
    assert "error[TG0510]: there is no manifest" in damaged
    assert "`tunegate model export" in damaged
