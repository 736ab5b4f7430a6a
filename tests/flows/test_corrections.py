"""People's corrections: written for review, answered in a file, kept in git, applied by the next run."""

import csv
import io
import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from flows.views.review import Review
from schemas.load import load_file
from tasks.curate.review_rows import read_review
from tests.flows.test_data_alone import workplace_of
from tests.support.shared import made_once
from tests.support.workplace import Workplace

WORDS = {
    "billing": "invoice charged refund payment card amount bank fee",
    "delivery": "parcel late courier address tracking shipped arrived box",
    "account": "password login email reset locked profile name settings",
}
WRONG = {"T-004": "billing", "T-040": "account", "T-077": "billing"}
"""Tickets with a label that was changed to another."""
MISSPELT, SHORT = "T-013", "T-016"


def tickets() -> list[dict[str, Any]]:
    draw = random.Random(5)
    rows = []
    for number in range(120):
        label = list(WORDS)[number % 3]
        words = " ".join(draw.choices(WORDS[label].split(), k=9))
        rows.append(
            {
                "ticket_id": f"T-{number:03}", "customer_id": f"C-{number}", "category": label,
                "created_at": f"2026-06-{1 + number % 28:02}T10:00:00Z",
                "body": f"{words} {number} ann{number}@example.org", "reply": f"We look into case {number}.",
            }
        )  # fmt: skip
    for row in rows:
        row["category"] = WRONG.get(row["ticket_id"], row["category"])
    rows[13]["category"] = "Delivry"
    rows[16]["body"] = "parcel?"
    return rows


def write(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    (folder / "tickets.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in tickets()))
    pipeline: dict[str, Any] = {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "schema": {"categories": list(WORDS)},
        "curate": {
            "corrections": "people/corrections.jsonl",
            "steps": [
                {"uses": "redact"},
                {"uses": "rule", "name": "long_enough", "keep": "length(body) > 12"},
                {"uses": "label_check", "action": "drop"},
            ],
        },
    }
    change(pipeline)
    (folder / "people").mkdir(exist_ok=True)
    (folder / "people" / "corrections.jsonl").touch()
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump({"version": 1, "pipelines": {"tickets": pipeline}}, stream)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home whose tickets were curated, reviewed in a file, and curated again; only to read from."""

    def make(folder: Path) -> None:
        write(folder)
        work = workplace_of(folder)
        work.json("run", "tickets")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO("biling\nskip\nquit\n"))
            (folder / "terminal.txt").write_text(work.run("data", "review", "tickets", "--rater", "ada").stdout)
        written = work.json("data", "review", "tickets", "--write", str(folder / "review.csv"))
        (folder / "written.json").write_text(json.dumps(written))
        with (folder / "review.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        truth = {f"T-{number:03}": list(WORDS)[number % 3] for number in range(120)}
        for row in rows:
            right = truth[row["ticket_id"]]
            row["decision"] = "right" if row["value"] == right else "change"
            row["new"] = "" if row["proposed"] == right or row["decision"] == "right" else right
        rows.append({"ticket_id": SHORT, "rule": "long_enough", "decision": "right", "why": "mail ann@example.org"})
        rows.append({"ticket_id": "T-020", "decision": "drop", "why": "spam"})
        rows.append({"ticket_id": "T-030", "field": "category", "old": "gone", "decision": "change", "new": "account"})
        with (folder / "filled.csv").open("w", newline="", encoding="utf-8-sig") as stream:  # as Excel saves it
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=";", restval="")
            writer.writeheader()
            writer.writerows(rows)
        read = work.json("data", "review", "tickets", "--read", str(folder / "filled.csv"), "--rater", "ada")
        (folder / "read.json").write_text(json.dumps(read))
        work.json("run", "tickets")

    return workplace_of(made_once(tmp_path_factory, "corrections", make))


def warehouse(work: Workplace, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = work.json("data", "quarantine", "tickets", "--limit", "999", "--sql", sql)["rows"]
    return rows


def test_the_rows_to_review_are_the_label_errors_and_what_can_be_let_in(reviewed: Workplace) -> None:
    with (reviewed.folder / "review.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["ticket_id"]: row for row in csv.DictReader(stream)}
    assert {*WRONG, MISSPELT} <= rows.keys()
    assert (rows[MISSPELT]["old"], rows[MISSPELT]["proposed"], rows[MISSPELT]["rule"]) == ("Delivry", "delivery", "")
    assert rows["T-004"]["old"] == WRONG["T-004"]
    assert rows["T-004"]["rule"] == "label_suspect"
    assert "[EMAIL_1]" in rows["T-004"]["text"]
    assert "@" not in (reviewed.folder / "review.csv").read_text()


def test_what_people_decided_is_applied_kept_and_counted(reviewed: Workplace) -> None:
    curated = {row["ticket_id"]: row["category"] for row in warehouse(reviewed, "SELECT * FROM curated")}
    for id_ in (*WRONG, MISSPELT):
        assert curated[id_] == list(WORDS)[int(id_[2:]) % 3]
    assert SHORT in curated
    assert "T-020" not in curated
    gone = warehouse(reviewed, "SELECT step, code, reason FROM removed WHERE ticket_id = 'T-020'")
    assert [(row["step"], row["code"]) for row in gone] == [("corrections", "correction")]
    assert gone[0]["reason"].startswith("ada dropped it on 20")
    listed = {(row["ticket_id"], row["do"]): row["state"] for row in warehouse(reviewed, "SELECT * FROM corrections")}
    assert listed["T-030", "set"] == "stale"
    assert listed["T-020", "drop"] == listed[SHORT, "keep"] == listed[MISSPELT, "set"] == "applied"
    for row in reviewed.json("data", "funnel", "tickets")["funnel"]:
        assert row["n_in"] == row["n_out"] + row["n_quarantined"] + row["n_dropped"] + row["n_merged"]
    run_id = reviewed.json("report", "--last", "tickets")["run_id"]
    page = (reviewed.home / "reports" / run_id / "report.html").read_text()
    assert "1 did not, since the source has another value" in page
    lineage = reviewed.run("data", "lineage", MISSPELT).stdout
    assert "ada set category" in lineage


def test_the_terminal_asks_again_after_a_wrong_answer(reviewed: Workplace) -> None:
    shown = (reviewed.folder / "terminal.txt").read_text()
    assert "[c]hange to " in shown
    assert "'biling' is no category" in shown
    assert "2 of 4" in shown
    assert shown.rstrip().endswith("0 corrections: 0 set, 0 drop, 0 keep")


def test_the_file_of_corrections_has_no_personal_data_and_one_line_each(reviewed: Workplace) -> None:
    text = (reviewed.folder / "people" / "corrections.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == json.loads((reviewed.folder / "read.json").read_text())["n"]
    assert [line["ticket_id"] for line in lines] == sorted(line["ticket_id"] for line in lines)
    assert "ann@" not in text
    assert "[EMAIL_1]" in next(line["why"] for line in lines if line["ticket_id"] == SHORT)
    assert {line["by"] for line in lines} == {"ada"}


def test_what_was_decided_is_not_shown_again(reviewed: Workplace) -> None:
    rows = reviewed.json("data", "review", "tickets")["rows"]
    assert not {*WRONG, MISSPELT, "T-020"} & {row["ticket_id"] for row in rows}


def test_the_graph_has_the_step_and_what_waits_for_it(reviewed: Workplace) -> None:
    graph = reviewed.json("graph", "tickets")
    edges = {(edge["from"], edge["to"]) for edge in graph["edges"]} if isinstance(graph["edges"][0], dict) else {
        tuple(edge) for edge in graph["edges"]
    }  # fmt: skip
    for edge in (("extract", "corrections"), ("corrections", "validate"), ("corrections", "rules")):
        assert edge in edges


def test_forgetting_names_the_lines_to_take_out(reviewed: Workplace) -> None:
    held = reviewed.json("data", "forget", "C-20", "--plan")["held"]
    text = (reviewed.folder / "people" / "corrections.jsonl").read_text().splitlines()
    number = next(place for place, line in enumerate(text, start=1) if '"T-020"' in line)
    mine = [each for each in held if each["place"].startswith("people/")]
    assert [(each["place"], each["fate"]) for each in mine] == [(f"people/corrections.jsonl: line {number}", "yours")]


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        ({"ticket_id": "T-999", "decision": "drop"}, "row 1: no ticket 'T-999'", "leading zeros"),
        ({"ticket_id": "T-001", "decision": "maybe"}, "'maybe' is no decision", "change, right, drop"),
        ({"ticket_id": "T-001", "field": "body", "new": "x"}, "no field 'body'", "allowed: category"),
        ({"ticket_id": "T-001", "field": "category", "new": "biling"}, "'biling' is no category", "billing"),
        ({"ticket_id": "T-001", "field": "category", "decision": "change"}, "nothing is proposed", "`new`"),
        ({"ticket_id": "T-001", "rule": "dedup", "decision": "right"}, "no rule 'dedup'", "long_enough"),
        ({"ticket_id": "T-001", "decision": "right"}, "no rule found this row", "drop the ticket"),
        ({"ticket_id": "T-001", "field": "reply", "new": "ask ann@example.org"}, "personal data", "[EMAIL_1]"),
        ({"ticket_id": MISSPELT, "field": "category", "new": "billing", "rater": "bob"}, "contradicts", "agree"),
        ({"ticket_id": "T-001", "decision": ""}, "no row has a decision", "change, right or drop"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused_and_changes_nothing(
    reviewed: Workplace, tmp_path: Path, row: dict[str, str], message: str, hint: str
) -> None:
    file = reviewed.folder / "people" / "corrections.jsonl"
    before = file.read_bytes()
    answers = tmp_path / "answers.jsonl"
    old = {"old": "Delivry"} if row["ticket_id"] == MISSPELT else {}
    answers.write_bytes(orjson.dumps(row | old) + b"\n")
    done = reviewed.run("data", "review", "tickets", "--read", str(answers), "--rater", "eve")
    assert done.returncode == 2
    assert message in done.stderr
    assert hint in done.stderr
    assert file.read_bytes() == before


def test_of_rows_with_one_id_the_faulty_one_is_shown_and_corrected(tmp_path: Path) -> None:
    write(tmp_path)
    twin = {**tickets()[50], "category": "acount", "body": "another text of the same number in the queue"}
    with (tmp_path / "tickets.jsonl").open("ab") as stream:
        stream.write(orjson.dumps(twin) + b"\n")
    work = workplace_of(tmp_path)
    work.json("run", "tickets")
    valid = warehouse(work, "SELECT category, body FROM curated WHERE ticket_id = 'T-050'")
    work.json("data", "review", "tickets", "--write", str(tmp_path / "review.jsonl"))
    rows = [orjson.loads(line) for line in (tmp_path / "review.jsonl").read_bytes().splitlines()]
    row = next(each for each in rows if each["ticket_id"] == "T-050")
    assert (row["old"], row["proposed"], row["split"], row["text"]) == ("acount", "account", "", twin["body"])
    row |= {"decision": "change", "new": "billing"}
    (tmp_path / "review.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    work.json("data", "review", "tickets", "--read", str(tmp_path / "review.jsonl"), "--rater", "ada")
    work.json("run", "tickets")
    of_ticket = warehouse(work, "SELECT category, body FROM curated WHERE ticket_id = 'T-050'")
    assert warehouse(work, "SELECT state FROM corrections WHERE ticket_id = 'T-050'") == [{"state": "applied"}]
    # Both rows are valid now: of differing rows with one id the later one stays.
    assert of_ticket == [{"category": "billing", "body": twin["body"]}] != valid


def test_a_reply_whose_old_text_is_gone_is_not_corrected_blindly(tmp_path: Path) -> None:
    write(tmp_path, lambda pipeline: pipeline["curate"].update(keep_raw_days=0))
    work = workplace_of(tmp_path)
    work.json("run", "tickets")
    answers = tmp_path / "answers.csv"
    answers.write_text("ticket_id,field,decision,new\nT-001,reply,change,A better reply.\n")
    done = work.run("data", "review", "tickets", "--read", str(answers), "--rater", "ada")
    assert "row 1: the reply as it was read is no longer kept" in done.stderr
    assert (tmp_path / "people" / "corrections.jsonl").read_text() == ""


def test_without_a_file_for_decisions_nobody_is_asked_for_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, lambda pipeline: pipeline["curate"].pop("corrections"))
    work = workplace_of(tmp_path)
    work.json("data", "curate", "tickets")
    monkeypatch.setattr(sys, "stdin", io.StringIO("right\n"))
    asked = work.run("data", "review", "tickets")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "add `corrections: corrections/tickets.jsonl` to `curate`" in asked.stderr
    written = work.run("data", "review", "tickets", "--write", str(tmp_path / "review.csv"))
    assert written.returncode == 0
    assert "declare `curate.corrections`, fill in `decision` (change, right, drop)" in written.stderr


def test_one_decision_that_a_merge_brought_twice_can_be_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    work = workplace_of(tmp_path)
    work.json("run", "tickets")
    line = {"ticket_id": "T-004", "do": "set", "field": "category", "old": "billing", "new": "delivery", "by": "ada"}
    file = tmp_path / "people" / "corrections.jsonl"
    twice = [orjson.dumps(line | {"at": f"2026-06-0{day}T10:00:00+00:00"}) for day in (1, 2)]
    file.write_bytes(b"\n".join(twice) + b"\n")
    answers = tmp_path / "answers.jsonl"
    row = {"ticket_id": "T-004", "field": "category", "old": "billing", "decision": "change", "new": "delivery"}
    answers.write_bytes(orjson.dumps(row | {"text": "one\u2028line"}) + b"\n")  # a line break to Python, not to JSON
    work.json("data", "review", "tickets", "--read", str(answers), "--rater", "ada")
    assert len(file.read_bytes().splitlines()) == 2


def test_two_people_who_read_at_once_keep_both_decisions(tmp_path: Path) -> None:
    write(tmp_path)
    work = workplace_of(tmp_path)
    work.json("run", "tickets")
    loaded = load_file(tmp_path / "pipelines.yaml")
    review = Review(loaded.find("tickets"), tmp_path, tmp_path / ".tunegate/warehouse/tickets/warehouse.duckdb")

    def answer(number: int) -> None:
        row = {"ticket_id": f"T-{number:03}", "decision": "drop", "why": "spam"}
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(orjson.dumps(row) + b"\n")
        review.keep(read_review(path, rater=f"person {number}"), where=path.name)

    with ThreadPoolExecutor(8) as people:
        list(people.map(answer, range(20, 36)))
    lines = (tmp_path / "people" / "corrections.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["ticket_id"] for line in lines] == [f"T-{number:03}" for number in range(20, 36)]
