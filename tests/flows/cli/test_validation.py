"""`tunegate validate`: files that a pipeline names must exist."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.flows.cli.conftest import PIPELINE
from tests.support.commands import run_here


def test_a_missing_sql_file_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("validate")


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
