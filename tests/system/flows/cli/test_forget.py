"""A customer is forgotten in a real workspace: no trace is left, despite a kill and an old backup."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows.ledger.ledger import Ledger
from tests.support.traces import traces
from tests.support.workplace import ForkedWorkplace

CUSTOMER = "cust-Vq7731"
TEXT = "violet quokka"
TICKET = "vq-"
WORDS = (CUSTOMER, TEXT, TICKET)
N_TICKETS = 12


def tickets() -> list[dict[str, Any]]:
    """150 tickets of 40 customers, and 12 of the forgotten one, spread over time so that all splits have some."""
    rows = [
        {
            "ticket_id": f"t{index:03d}", "customer_id": f"c{index % 40}",
            "created_at": f"2026-06-{1 + index % 28:02d}T{index % 24:02d}:00:00Z",
            "body": f"{index} " + " ".join(f"w{(index * 31 + k * k * 13) % 997}" for k in range(12)),
            "reply": f"We looked into case {index} and it is settled now.",
            "category": ("billing", "delivery")[index % 2],
        }
        for index in range(150)
    ]  # fmt: skip
    forgotten_rows = [
        {
            **rows[index * 9], "ticket_id": f"{TICKET}{index}", "customer_id": CUSTOMER,
            "body": f"My {TEXT} {index} " + " ".join(f"z{(index * 17 + k * k * 7) % 997}" for k in range(12)),
            "reply": f"We found your {TEXT} number {index}.",
        }
        for index in range(N_TICKETS)
    ]  # fmt: skip
    return rows + forgotten_rows


def declare(workplace: ForkedWorkplace) -> None:
    def change(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        pipeline["train"]["max_examples"] = 200
        pipeline["evaluate"]["arms"] = ["few_shot", "tfidf"]

    workplace.declare(change)
    (workplace.folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tickets()))


def traces_left(workplace: ForkedWorkplace) -> list[str]:
    """Traces of the customer in the home folder and in the folder of tombstones and certificates."""
    tokenizer = Path(workplace.environ["TINY_MODEL"])
    forgotten = workplace.folder / ".tunegate-forgotten"
    return [*traces(workplace.home, WORDS, tokenizer=tokenizer), *traces(forgotten, WORDS)]


@pytest.mark.server
@pytest.mark.campaign
def test_no_trace_of_a_forgotten_customer_is_left(empty_workplace: ForkedWorkplace, tmp_path: Path) -> None:
    declare(empty_workplace)
    assert empty_workplace.json("run", "small")["verdict"] == "PROMOTE"
    traces_before = traces_left(empty_workplace)
    kinds = {name.split("/")[1] for name in traces_before if name.startswith("store/")}
    assert kinds >= {"extract", "redact", "split", "decontaminate", "encode", "warehouse"}, kinds
    assert any(name.startswith("warehouse/small/snapshots") for name in traces_before)
    backup = tmp_path / "backup"
    shutil.copytree(empty_workplace.home, backup)

    plan = empty_workplace.json("data", "forget", CUSTOMER, "--plan")
    assert plan["n_tickets"] == N_TICKETS
    assert [(v["name"], v["version"], v["how"], v["is_champion"]) for v in plan["versions"]] == [
        ("small", "1", "directly", True)
    ]
    assert {each["kind"] for each in plan["held"]} >= {"result", "snapshot", "warehouse", "report", "source"}
    assert traces_left(empty_workplace) == traces_before, "a plan removes nothing"
    lineage = empty_workplace.json("data", "lineage", CUSTOMER)["customer"]
    assert len(lineage["pipelines"]["small"]) == N_TICKETS
    assert lineage["learned_by"] == plan["versions"]
    model = empty_workplace.json("data", "lineage", "small/1")["model"]
    assert model["is_champion"]
    assert model["examples"]["train"]
    assert model["snapshot_id"]
    assert not model["marked"]

    refused = empty_workplace.run("data", "forget", CUSTOMER, "--apply", "--reason", f"{CUSTOMER} asked")
    assert (refused.returncode, "TG0833" in refused.stderr) == (2, True)
    killed = empty_workplace.run(
        "data", "forget", CUSTOMER, "--apply", "--reason", "case 17", TUNEGATE_FAILPOINT="forget.removed:4"
    )
    assert killed.returncode == -9
    assert traces_left(empty_workplace), "it was killed halfway"
    [certificate] = empty_workplace.json("data", "forget", CUSTOMER, "--apply", "--reason", "case 17")
    assert traces_left(empty_workplace) == []
    assert certificate["versions"][0]["version"] == "1"
    assert certificate["sources"] == [f"tickets.jsonl: {N_TICKETS} rows"]
    assert {each["place"] for each in certificate["removals"]} >= {
        each["place"] for each in plan["held"] if each["fate"] in ("removed", "rewritten")
    }, "it includes what the killed attempt removed"

    again = empty_workplace.json("data", "forget", CUSTOMER, "--plan")
    assert [each for each in again["held"] if each["fate"] != "kept"] == []
    assert again["versions"] == plan["versions"]
    assert "learned directly" in empty_workplace.json("model", "champion", "small")["marked"]["1"]
    with closing(sqlite3.connect(empty_workplace.home / "mlflow" / "mlflow.db")) as db:
        tags = dict(db.execute("SELECT key, value FROM model_version_tags WHERE name = 'small'").fetchall())
    assert "forgotten" in tags["tunegate.forgotten"]
    reproduced = empty_workplace.run("study", "reproduce", model["run_id"])
    assert "TG0159" in reproduced.stderr
    assert "forgotten customer" in reproduced.stderr

    shutil.rmtree(empty_workplace.home)
    shutil.copytree(backup, empty_workplace.home)
    assert traces_left(empty_workplace)
    done = empty_workplace.json("data", "curate", "small")
    funnel = {row["step"]: row for row in done["funnel"]}
    assert funnel["extract"]["n_dropped"] == N_TICKETS
    assert traces_left(empty_workplace) == []
    assert [mark.version for mark in Ledger(empty_workplace.home).marked("small")] == ["1"]
    assert empty_workplace.run("data", "forget", "--again").returncode == 0
