"""`tunegate graph`: the graph of a planned and of a recorded run, without side effects."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli.planning import graph
from flows.forecast.planned_run import plan_pipeline
from tests.support.workplace import Workplace


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of every file below the folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


EFFECTS = {
    "show_funnel", "publish", "index_customers", "forget_old_texts", "check_columns", "index_customers · examples",
    "remove_trunks", "show_verdict", "record", "promote", "report", "register",
}  # fmt: skip
"""Nodes that are called in every run."""


def edges(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(start, end) for start, end in shown["edges"]]


def states(shown: dict[str, Any]) -> dict[str, str]:
    return {node["name"]: node["state"] for node in shown["nodes"]}


def ancestors(shown: dict[str, Any], name: str) -> set[str]:
    """All nodes with a path to this one."""
    found, waiting = set[str](), [name]
    while waiting:
        end = waiting.pop()
        new = {start for start, to in edges(shown) if to == end} - found
        found |= new
        waiting += new
    return found


def test_the_edges_match_the_graph_and_an_arm_waits_only_for_training_that_it_uses(
    bare_workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_workplace.declare()
    shown = bare_workplace.json("graph", "small")
    assert set(shown) == {"nodes", "edges"}
    assert {frozenset(node) for node in shown["nodes"]} == {frozenset({"name", "stage", "state", "seconds", "reason"})}
    for name, value in bare_workplace.environ.items():
        monkeypatch.setenv(name, value)
    planned = plan_pipeline("small", bare_workplace.folder / "pipelines.yaml")
    assert edges(shown) == planned.pipeline.graph.edges()
    assert [node["name"] for node in shown["nodes"]] == list(planned.pipeline.graph.nodes)
    assert "train" not in ancestors(shown, "answers · zero_shot")
    assert "train" in ancestors(shown, "answers · tuned")
    assert {node["stage"] for node in shown["nodes"]} == {"curate", "finetune", "assess", "release"}


def test_both_formats_name_every_node_and_write_nothing(bare_workplace: Workplace) -> None:
    bare_workplace.declare()
    bare_workplace.run("plan", "small")  # creates the empty cache folder, as any first command does
    before = files(bare_workplace.folder)
    names = states(bare_workplace.json("graph", "small"))
    text, mermaid = (bare_workplace.run("graph", "small", *form).stdout for form in ((), ("--mermaid",)))
    assert mermaid.startswith("flowchart TD\n")
    for name in names:
        assert name in text
        assert f'["{name}<br/>' in mermaid
    assert files(bare_workplace.folder) == before
    assert not bare_workplace.home.exists()


def test_the_page_shows_the_output_for_the_demo(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    config = project / "pipelines.yaml"
    assert graph(pipeline="support-replies", mermaid=True, config=config) == 0
    page = project / "docs" / "how-to" / "inspect-the-graph.md"
    assert f"```mermaid\n{capsys.readouterr().out}```" in page.read_text(encoding="utf-8")


def test_neither_graph_nor_plan_imports_prefect(bare_workplace: Workplace, project: Path) -> None:
    bare_workplace.declare()
    script = (
        "import sys\nfrom flows.cli.app import app\n"
        "for command in ('graph', 'plan'):\n"
        "    code = app([command, *sys.argv[1:]], standalone_mode=False)\n"
        "    assert code == 0, code\n"
        "    print(command, [name for name in ('prefect', 'mlflow') if name in sys.modules])"
    )
    config = str(bare_workplace.folder / "pipelines.yaml")
    done = subprocess.run(
        [sys.executable, "-c", script, "small", "--config", config], cwd=project,
        env=bare_workplace.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"graph []", "plan []"} <= set(done.stdout.splitlines())


def test_a_recorded_run_shows_the_outcome_of_each_node(workplace: Workplace) -> None:
    done = workplace.run("run", "small")
    assert done.returncode == 0, done.stderr
    run_id = workplace.json("runs")["runs"][0]["run_id"]
    shown = workplace.json("graph", "small", "--run", run_id)
    assert states(shown) == {
        node["name"]: "made" if node["name"] in EFFECTS else "reused" for node in shown["nodes"]
    } | {"label_sources": "left out"}  # there is no champion yet
    planned = workplace.json("graph", "small")
    assert {node["name"] for node in shown["nodes"]} <= {node["name"] for node in planned["nodes"]}
    kept = workplace.home / "runs" / f"{run_id}-graph.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    # The report is written before the run has finished its own report and registration.
    reports = workplace.home / "reports" / run_id
    reported = json.loads((reports / "report.json").read_text())["graph"]
    assert states(reported) == states(shown)
    assert edges(reported) == edges(shown)
    page, markdown = (reports / "report.html").read_text(), (reports / "report.md").read_text()
    assert f'aria-label="Graph of {len(shown["nodes"])} steps in 4 stages' in page
    assert "```mermaid\nflowchart TD\n" in markdown
    assert f"{len(shown['nodes'])} nodes: " in workplace.run("graph", "small", "--run", run_id).stderr

    # The graph of a skipped run did not run.
    assert workplace.run("run", "small").returncode == 0
    skipped = workplace.json("runs")["runs"][0]
    assert skipped["status"] == "SKIPPED"
    assert set(states(workplace.json("graph", "small", "--run", skipped["run_id"])).values()) == {"not run"}

    # Neither did nodes after a failed step.
    workplace.declare(lambda document: document["pipelines"]["small"].update(schema={"fail_above": 0.0}))
    assert workplace.run("run", "small").returncode == 3
    failed = workplace.json("graph", "small", "--run", workplace.json("runs")["runs"][0]["run_id"])
    [node] = [node for node in failed["nodes"] if node["state"] == "failed"]
    assert node["reason"].startswith("TG0")
    assert states(failed)["bundle"] == "not run"

    for arguments, code in (
        (("graph", "strict", "--run", run_id), "TG0139"),
        (("graph", "small", "--mermaid", "--json"), "TG0139"),
        (("graph", "small", "--run", "nothing"), "TG0151"),
    ):
        assert f"error[{code}]" in workplace.run(*arguments).stderr
    kept.unlink()
    assert "error[TG0159]" in workplace.run("graph", "small", "--run", run_id).stderr
