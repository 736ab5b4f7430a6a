"""`tunegate gate check`: text, JSON, files and exit codes of a verdict over files of results."""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import jsonschema
import orjson
import pytest

from schemas.gate_result import GateCheckResult
from tests.support.commands import run_here

PROJECT = Path(__file__).parents[3]
FILES = Path(__file__).parents[2] / "tasks" / "results" / "files"
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Run the command in a folder with `champion.csv` and, of so many items right in it alone, `candidate.csv`."""

    def run(*arguments: str, won: int = 40, lost: int = 0) -> subprocess.CompletedProcess[str]:
        for name, right in (("champion", range(won, 900)), ("candidate", range(lost and won + lost, 900))):
            rows = [f"t{number},question {number},{int(number in right)}" for number in range(1000)]
            (tmp_path / f"{name}.csv").write_text("\n".join(["item_id,prompt,exact", *rows]))
        given = () if "--champion" in arguments else ("--champion", "champion.csv", "--candidate", "candidate.csv")
        return run_here(["gate", "check", *given, *arguments], cwd=tmp_path, environ={"PATH": "/usr/bin"})

    return run


@pytest.mark.parametrize(
    ("won", "lost", "verdict", "code"), [(40, 0, "PROMOTE", 0), (3, 0, "HOLD", 8), (0, 90, "BLOCK", 5)]
)
def test_the_exit_code_is_that_of_a_run(won: int, lost: int, verdict: str, code: int, check: Check) -> None:
    done = check(won=won, lost=lost)
    assert done.returncode == code, done.stderr
    assert f"\n{verdict}  " in done.stdout
    assert "1,000 items of candidate and champion paired by id, 1,000 with equal prompts" in done.stdout
    assert "not checked, since files do not show it: contamination, round_trip" in done.stdout


def test_json_has_files_gate_findings_and_notes(check: Check) -> None:
    done = check("--json")
    found = orjson.loads(done.stdout)
    assert (found["version"], found["verdict"], found["exit_code"]) == (1, "PROMOTE", 0)
    assert found["files"]["candidate"]["tool"] == "CSV"
    assert found["files"]["candidate"]["means"] == {"exact": 0.9}
    assert len(found["files"]["champion"]["sha256"]) == 64
    assert found["findings"][0]["won"] == 40
    assert found["gate"]["rules"][0]["metric"] == "exact"


def test_json_follows_the_published_schema_and_has_every_number_of_the_report(check: Check, tmp_path: Path) -> None:
    published = orjson.loads((PROJECT / "schemas" / "gate-check.schema.json").read_bytes())
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    assert published == {**dialect, **GateCheckResult.model_json_schema(mode="serialization")}
    found = orjson.loads(check("--json", "--out", "verdict", won=3).stdout)
    jsonschema.Draft202012Validator(published).validate(found)
    report = orjson.loads((tmp_path / "verdict" / "report.json").read_bytes())
    assert found["findings"] == report["findings"]
    assert found["n_items"] == report["n_items"]
    arms = {"candidate" if each["arm"] == "tuned" else each["arm"]: each["means"] for each in report["arms"]}
    assert {arm: file["means"] for arm, file in found["files"].items()} == arms
    assert (found["verdict"], found["reason"]) == (report["verdict"], report["reason"])


def test_markdown_has_the_marker_and_the_table_of_the_report(check: Check, tmp_path: Path) -> None:
    done = check("--markdown", "summary.md", "--out", "verdict", won=3)
    assert done.returncode == 8, done.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("<!-- tunegate: gate-check -->\n## HOLD: gate-check\n")
    assert summary.partition("\n")[2] == (tmp_path / "verdict" / "report.md").read_text()
    assert check("--no-weaker").returncode == 2


def test_items_that_do_not_match_are_exit_code_9_with_their_ids(check: Check, tmp_path: Path) -> None:
    check()
    (tmp_path / "candidate.csv").write_text("item_id,prompt,exact\nt1,question 1,1\n")
    done = run_here(
        ["gate", "check", "--champion", "champion.csv", "--candidate", "candidate.csv"], cwd=tmp_path, environ={}
    )
    assert done.returncode == 9
    assert "only the champion has 999 items: t0, t10, t100" in done.stdout


def test_out_writes_page_markdown_json_and_junit_without_item_text(check: Check, tmp_path: Path) -> None:
    done = check("--out", "verdict", won=3)
    assert done.returncode == 8, done.stderr
    folder = tmp_path / "verdict"
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.md", "report.json", "junit.xml"}
    suite = ET.fromstring((folder / "junit.xml").read_bytes())  # noqa: S314  written by this test
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    page = (folder / "report.html").read_text()
    assert "HOLD" in page
    assert "0.900" in page
    assert "question 7" not in page
    assert (folder / "report.md").read_text().startswith("## HOLD: gate-check")
    again = check("--out", "verdict")
    assert again.returncode == 2
    assert "TG0189" in again.stderr


@pytest.mark.parametrize(
    ("champion", "candidate", "more"),
    [
        ("inspect_a.json", "inspect_b.eval", ()),
        ("deepeval_a.json", "deepeval_b.json", ("--metric", "Exact Match")),
        ("promptfoo_a.json", "promptfoo_b.json", ("--metric", "pass")),
        ("mlflow_a.json", "mlflow_b.json", ("--metric", "same")),
    ],
)
def test_two_files_of_each_tool_come_to_a_verdict(
    champion: str, candidate: str, more: tuple[str, ...], check: Check
) -> None:
    done = check("--champion", str(FILES / champion), "--candidate", str(FILES / candidate), "--json", *more)
    assert done.returncode == 8, done.stderr
    (finding,) = orjson.loads(done.stdout)["findings"]
    assert (finding["n_items"], finding["won"], finding["lost"]) == (8, 0, 1)


def test_the_gate_of_a_pipeline_judges_files(check: Check, project: Path) -> None:
    done = check("--pipeline", "support-replies", "--config", str(project / "pipelines.yaml"), "--json")
    found = orjson.loads(done.stdout)
    # The files have one of its metrics, and no baseline.
    by_rule = {finding["rule"]: finding["verdict"] for finding in found["findings"]}
    assert by_rule["exact improves on champion (version champion.csv)"] == "PROMOTE"
    assert by_rule["exact at least 0.5"] == "PROMOTE"
    assert by_rule["exact improves on best_baseline"] == "ERROR"
    assert (found["verdict"], done.returncode) == ("ERROR", 9)
