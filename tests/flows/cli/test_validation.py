"""`tunegate validate`: files that a pipeline names must exist."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows.cli.conftest import PIPELINE
from tests.support.commands import run_here


def test_a_missing_sql_file_is_named(refusal: Callable[..., str]) -> None:
    assert "error[TG0110]" in refusal("validate")


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
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    source = f"{{kind: files, paths: [{name}]}}"
    text = PIPELINE.replace("{kind: generated}", source).replace("file:models/x", "file:m.gguf")
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
