"""What changed between two runs' tickets (`data diff`), and what a change of the file would do (`plan --against`)."""

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from tests.support.commands import NOWHERE
from tests.support.shared import made_once
from tests.support.workplace import Workplace

MODEL = """
import pandera.pandas as pa


class Curated(pa.DataFrameModel):
    reply: str = pa.Field(str_contains="arrives", nullable=True)
"""


def rows_of(first: int, last: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "ticket_id": f"T-{number:03}",
            "customer_id": f"C-{number}",
            "created_at": f"2026-06-{1 + number % 28:02}T10:00:00Z",
            "body": f"Parcel {number} of {number * 7919} is late, mail me at p{number}@example.org",
            "reply": f"Parcel {number} arrives on day {number % 5}.",
            "category": "delivery",
        }
        | changes.get(f"T{number}", {})
        for number in range(first, last)
    ]


def declare(folder: Path, *steps: dict[str, Any], **schema: Any) -> None:
    pipeline = {
        "source": {"kind": "files", "paths": ["tickets.jsonl"]},
        "schema": {"fail_above": 0.2, **schema},
        "curate": {"steps": [{"uses": "redact"}, *steps]},
    }
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump({"version": 1, "pipelines": {"tickets": pipeline}}, stream)


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "tickets.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def git(folder: Path, *words: str) -> None:
    named = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True)


def workplace_of(folder: Path) -> Workplace:
    import os

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return Workplace(folder, {**inherited, "PREFECT_API_URL": NOWHERE, "OMP_NUM_THREADS": "1"})


RULE = {"uses": "sql", "name": "own", "file": "own.sql"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home with two runs. Between them tickets came, went and changed, and the file got a step and a contract; the
    first file is a commit of git."""

    def make(folder: Path) -> None:
        here = workplace_of(folder)
        write(folder, rows_of(0, 60))
        (folder / "own.sql").write_text("SELECT * FROM tickets")
        declare(folder, RULE)
        git(folder, "init", "-q")
        git(folder, "add", "pipelines.yaml", "own.sql")
        git(folder, "commit", "-q", "-m", "first")
        assert here.run("run", "tickets").returncode == 0
        write(folder, rows_of(3, 64, T10={"category": "billing"}, T12={"reply": "Parcel 12 is lost."}))
        (folder / "own.sql").write_text(
            "SELECT * REPLACE (CASE ticket_id WHEN 'T-014' THEN 'short' ELSE body END AS body) FROM tickets "
            "WHERE ticket_id <> 'T-011'"
        )
        (folder / "checks.py").write_text(MODEL)
        declare(folder, RULE, curated="checks.py:Curated")
        done = here.run("run", "tickets")
        assert done.returncode == 0, done.stderr

    return workplace_of(made_once(tmp_path_factory, "data_diff", make))


def runs_of(place: Workplace) -> tuple[str, str]:
    second, first = Ledger(place.home).runs(pipeline="tickets")
    return first.run_id, second.run_id


def causes(rows: list[dict[str, Any]]) -> dict[tuple[str, str | None], int]:
    found: dict[tuple[str, str | None], int] = {}
    for row in rows:
        found[row["step"], row["code"]] = found.get((row["step"], row["code"]), 0) + row["n"]
    return found


def test_two_runs_differ_in_tickets_each_with_what_did_it(place: Workplace) -> None:
    found = place.json("data", "diff", *runs_of(place))
    gone = causes(found["gone"])
    assert {key: n for key, n in gone.items() if key[0] != "split"} == {
        ("the source", None): 3, ("sql", "own"): 1, ("contract", "TG0216"): 1
    }  # fmt: skip
    assert causes(found["added"])["the source", None] == 4
    changed = {(row["column"], row["by"]): row["n"] for row in found["changed"]}
    assert changed == {("category", "the source"): 1, ("body", "sql"): 1}
    values = {row["value"]: row for row in found["values"]}
    assert values["billing"]["after"] == 1
    assert (
        found["before"]["tickets"]["all"] + found["counts"]["added"] - found["counts"]["gone"]
        == (found["after"]["tickets"]["all"])
    )
    shown = str(found["samples"])
    assert "@example" not in shown
    assert "[EMAIL_1]" in shown


def test_a_state_is_also_named_by_its_snapshot_or_a_day(place: Workplace) -> None:
    runs = runs_of(place)
    found = place.json("data", "diff", *runs)
    first, second = found["before"]["snapshot"], found["after"]["snapshot"]
    assert place.json("data", "diff", first[:8], second)["counts"] == found["counts"]
    assert place.json("data", "diff", runs[0], "2199-01-01")["counts"] == found["counts"]
    assert place.json("data", "diff", second, runs[1])["counts"]["added"] == 0
    for word, why in (
        ("2020-01-01", "by the end of that day"),
        ("nothing", "no run and no snapshot"),
        ("@champion", "data alone"),
    ):
        done = place.run("data", "diff", word, runs[1])
        assert (done.returncode, "TG0159" in done.stderr, why in done.stderr) == (2, True, True), done.stderr


def test_text_and_page_show_the_same_without_personal_data(place: Workplace, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    done = place.run("data", "diff", *runs_of(place), "--out", str(page))
    assert done.returncode == 0, done.stderr
    html = page.read_text()
    for text in (done.stdout, html):
        assert "TG0216" in text
        assert "the source" in text
        assert "@example" not in text
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_plan_against_a_commit_says_what_the_change_does_to_the_present_rows(place: Workplace) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*") if "locks" not in path.parts}
    found = place.json("plan", "tickets", "--against", "HEAD")["against"]
    # Both read the tickets of today: what came and went in the source is no difference.
    assert {key: n for key, n in causes(found["gone"]).items() if key[0] != "split"} == {
        ("sql", "own"): 1, ("contract", "TG0216"): 1
    }  # fmt: skip
    assert {(row["column"], row["by"]): row["n"] for row in found["changed"]} == {("body", "sql"): 1}
    after = {path: path.stat().st_mtime_ns for path in place.home.rglob("*") if "locks" not in path.parts}
    assert {path.parent for path in after.keys() ^ before.keys()} <= {place.home / "tmp"}
    done = place.run("plan", "tickets", "--against", "HEAD")
    assert "pipelines.yaml now" in done.stdout


def test_corrections_are_those_of_the_commit(tmp_path: Path) -> None:
    here = workplace_of(tmp_path)
    write(tmp_path, rows_of(0, 30))
    declare(tmp_path)
    declared = YAML().load(tmp_path / "pipelines.yaml")
    declared["pipelines"]["tickets"]["curate"]["corrections"] = "people/fixes.jsonl"
    YAML().dump(declared, tmp_path / "pipelines.yaml")
    (tmp_path / "people").mkdir()
    person = {"by": "ada", "at": "2026-06-01T10:00:00+00:00"}
    line = {"ticket_id": "T-005", "do": "drop", "why": "spam"} | person
    other = {"ticket_id": "T-006", "do": "set", "field": "category", "old": "delivery", "new": "billing"} | person
    (tmp_path / "people" / "fixes.jsonl").write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(other) + b"\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "pipelines.yaml", "people")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "people" / "fixes.jsonl").write_bytes(b"")
    found = here.json("plan", "tickets", "--against", "HEAD")["against"]
    assert causes(found["added"]) == {("corrections", "correction"): 1}
    assert [(row["column"], row["by"], row["n"]) for row in found["changed"]] == [("category", "corrections", 1)]
    del declared["pipelines"]["tickets"]["curate"]["corrections"]
    YAML().dump(declared, tmp_path / "pipelines.yaml")
    found = here.json("plan", "tickets", "--against", "HEAD")["against"]
    assert [(row["column"], row["by"], row["n"]) for row in found["changed"]] == [("category", "corrections", 1)]


def test_a_commit_that_git_does_not_know_is_refused(place: Workplace) -> None:
    for word in ("no-such-branch", "--all"):
        done = place.run("plan", "tickets", f"--against={word}")
        assert done.returncode == 2
        assert "TG0159" in done.stderr


def test_a_row_that_breaks_the_contract_is_listed_with_check_column_and_value(place: Workplace) -> None:
    (row,) = place.json("data", "quarantine", "tickets")["rows"]
    assert (row["ticket_id"], row["step"], row["code"], row["field"]) == ("T-012", "contract", "TG0216", "reply")
    assert (row["check_name"], row["value"]) == ("str_contains('arrives')", "xxxxxx 99 xx xxxx.")
    funnel = {each["step"]: each for each in place.json("data", "funnel", "tickets")["funnel"]}
    contract = funnel["contract"]
    assert contract["n_in"] == contract["n_out"] + 1 == contract["n_out"] + contract["n_quarantined"]


def test_a_model_that_does_not_fit_is_found_by_validate(tmp_path: Path) -> None:
    write(tmp_path, rows_of(0, 3))
    (tmp_path / "checks.py").write_text(MODEL.replace("reply:", "answer:"))
    declare(tmp_path, model="checks.py:Curated")
    (tmp_path / "own.sql").write_text("SELECT * FROM tickets")
    done = workplace_of(tmp_path).run("validate")
    assert done.returncode == 2
    assert "TG0128" in done.stderr
    assert "column not in dataframe: answer" in done.stderr
