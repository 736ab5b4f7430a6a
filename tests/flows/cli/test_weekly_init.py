"""`tunegate init` by the real command: its output runs as written."""

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.source import GeneratedSource
from tasks.sources.helpdesk import generate_tickets
from tests.support.commands import run_here
from tests.support.workplace import Workplace

HEADER = {
    "ticket_id": "Case Number", "customer_id": "Requester", "created_at": "Opened", "subject": "Title",
    "body": "Question", "reply": "Answer", "category": "Department", "priority": "Urgency", "product": "Product",
}  # fmt: skip


def write_export(folder: Path, n_tickets: int = 240) -> list[dict[str, Any]]:
    """The generated help desk, as another program might export it."""
    source = GeneratedSource(kind="generated", n_tickets=n_tickets, n_customers=60, seed=3)
    rows = []
    for line in b"".join(generate_tickets(source)).splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the generator writes some broken rows on purpose
            continue
        if isinstance(row, dict) and all(
            isinstance(row.get(name), str) for name in ("ticket_id", "body", "created_at")
        ):
            rows.append(row)
    unique = {row["ticket_id"]: row for row in rows}
    with (folder / "tickets.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(HEADER.values()))
        writer.writeheader()
        writer.writerows({name: row.get(column) for column, name in HEADER.items()} for row in unique.values())
    return list(unique.values())


def tunegate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_here(arguments, cwd=cwd, environ=os.environ)


def test_the_written_file_validates_and_curates(workplace: Workplace) -> None:
    write_export(workplace.folder)
    (workplace.folder / "pipelines.yaml").unlink()
    result = workplace.json("init", "--from", "tickets.csv")
    assert {column: role["name"] for column, role in result["columns"].items()} == HEADER
    assert result["pipeline"] == "tickets"
    assert workplace.json("validate") == {"file": "pipelines.yaml", "pipelines": ["tickets"], "warnings": []}
    curated = workplace.json("data", "curate", "tickets")
    assert curated["funnel"][0]["n_in"] == result["n_rows"]
    (split,) = (row for row in curated["funnel"] if row["step"] == "split")
    assert 0.5 * result["sizes"]["n_tickets"] < split["n_out"] <= result["n_rows"]  # about as many as init promised


def test_init_overwrites_only_with_force_and_prints_no_ticket(tmp_path: Path) -> None:
    rows = write_export(tmp_path, 60)
    (tmp_path / "pipelines.yaml").write_text("mine: true\n")
    refused = tunegate("init", "--from", "tickets.csv", cwd=tmp_path)
    assert (refused.returncode, "TG0189" in refused.stderr) == (2, True)
    assert (tmp_path / "pipelines.yaml").read_text() == "mine: true\n"
    done = tunegate("init", "--from", "tickets.csv", "--force", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "version: 1" in (tmp_path / "pipelines.yaml").read_text()
    assert "too little data for a gate" in done.stderr
    for row in rows[:20]:
        for part in (row["body"][:25], row["ticket_id"]):
            assert part not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # no temporary file is left


def test_an_invalid_name_writes_nothing(tmp_path: Path) -> None:
    write_export(tmp_path, 60)
    done = tunegate("init", "--from", "tickets.csv", "--name", "No Name!", cwd=tmp_path)
    assert done.returncode == 2
    assert "TG01" in done.stderr
    assert not (tmp_path / "pipelines.yaml").exists()


@pytest.mark.parametrize("name", ["axolotl.yml", "llamafactory.yaml"])
def test_settings_of_another_trainer_are_refused_with_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("base_model: org/model\nadapter: lora\ndatasets:\n  - {path: a.jsonl, type: alpaca}\n")
    refused = tunegate("init", "--from", name, cwd=tmp_path)
    assert (refused.returncode, "TG0130" in refused.stderr) == (2, True)
    assert "hint: give the file of tickets that it names" in refused.stderr
    assert not (tmp_path / "pipelines.yaml").exists()


def test_the_key_that_pseudonyms_need_comes_first_and_validate_warns_without_it(tmp_path: Path) -> None:
    write_export(tmp_path)
    path = tmp_path / "tickets.csv"
    with path.open(newline="") as stream:
        rows = [{**row, "Requester": f"{row['Requester']}@mail.example"} for row in csv.DictReader(stream)]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(HEADER.values()))
        writer.writeheader()
        writer.writerows(rows)
    done = tunegate("init", "--from", "tickets.csv", cwd=tmp_path)
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith('next: export TUNEGATE_PSEUDONYM_KEY="$(openssl rand -hex 32)"')
    assert second.strip() == "tunegate validate, then tunegate data curate tickets"
    for key, warns in (("", True), ("k" * 64, False)):
        environ = {**os.environ, "TUNEGATE_PSEUDONYM_KEY": key}
        valid = run_here(("validate",), cwd=tmp_path, environ=environ)
        assert valid.returncode == 0
        assert ("the variable TUNEGATE_PSEUDONYM_KEY is not set" in " ".join(valid.stderr.split())) is warns
