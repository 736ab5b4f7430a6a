"""Exchanged files, a loosened gate and a lost ledger do not go unnoticed."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.ledger.ledger import Ledger
from tasks.storage.sealed_folder import seal
from tests.support.workplace import Workplace


def result(home: Path, run_id: str, step: str, folder: str) -> Path:
    key = next(row.key for row in Ledger(home).steps(run_id) if row.step == step)
    return home / "store" / folder / key


def blocked(workplace: Workplace) -> dict[str, Any]:
    """A run with a gate that the candidate cannot pass."""
    declare_gates(workplace, rules=STRICT, confidence=0.95)
    outcome = workplace.json("run", "small")
    assert (outcome["verdict"], outcome["exit_code"]) == ("BLOCK", 5)
    return outcome  # type: ignore[no-any-return]


def declare_gates(workplace: Workplace, **gates: Any) -> None:
    """Change some gates, and judge on as many items as a second look needs."""

    def change(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["gates"].update(gates)
        document["pipelines"]["small"]["evaluate"]["max_items"] = 40

    workplace.declare(change)


SECOND_LOOK = {"confidence": 0.51, "looks": {"max": 2, "spend": "equal"}}
"""Gates that the same candidate passes on the same items, although it is its second look."""


STRICT = [{"metric": "exact", "value_threshold": 0.9}]


def test_exchanged_answers_with_a_new_manifest_do_not_decide(workplace: Workplace) -> None:
    run_id = blocked(workplace)["run_id"]
    scores = result(workplace.home, run_id, "scores_tuned", "scores")
    table = pq.read_table(scores / "scores.parquet")
    best = pa.array([1.0] * len(table), table.schema.field("value").type)
    pq.write_table(table.set_column(table.schema.get_field_index("value"), "value", best), scores / "scores.parquet")
    reference = json.loads((scores / "artifact.json").read_text())
    reference["means"] = dict.fromkeys(reference["means"], 1.0)
    (scores / "artifact.json").write_text(json.dumps(reference))
    seal(scores)
    again = workplace.run("run", "small", "--again", "--json")
    assert json.loads(again.stdout)["verdict"] == "BLOCK"
    assert "not what the ledger recorded" in again.stderr
    assert pc.min(pq.read_table(scores / "scores.parquet")["value"]).as_py() == 0.0  # it was made again
    assert any((workplace.home / "damaged").glob("scores-*"))


def two_champions(workplace: Workplace) -> None:
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"
    workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(seed=1))
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"


def test_files_of_another_version_are_not_served_as_the_champion(workplace: Workplace, tmp_path: Path) -> None:
    two_champions(workplace)
    with closing(sqlite3.connect(workplace.home / "ledger.sqlite")) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        (first,) = db.execute("SELECT ref_json FROM candidates WHERE version = 1").fetchone()
        (second,) = db.execute("SELECT ref_json FROM candidates WHERE version = 2").fetchone()
        other = {**json.loads(second), "bundle": json.loads(first)["bundle"], "trained": json.loads(first)["trained"]}
        db.execute("UPDATE candidates SET ref_json = ? WHERE version = 2", (json.dumps(other),))
    for command in (
        ("model", "history", "small"),
        ("model", "export", "small@champion", "--format", "peft", "--out", str(tmp_path / "out")),
        ("run", "small"), ("model", "rollback", "small", "--reason", "r"),
    ):  # fmt: skip
        done = workplace.run(*command)
        assert (done.returncode, "TG0580" in done.stderr) == (1, True), (command, done.stderr)
    assert workplace.run("ops", "doctor").returncode == 1


def test_the_champions_files_are_compared_with_its_event(workplace: Workplace) -> None:
    two_champions(workplace)
    champion = workplace.json("model", "champion", "small")["champion"]
    other = Ledger(workplace.home).candidate("small", "1")
    assert other is not None
    bundle = Path(champion["bundle"]["root"])
    shutil.rmtree(bundle)
    shutil.copytree(other.ref.bundle.root, bundle)
    done = workplace.run("model", "history", "small")
    assert (done.returncode, "TG0549" in done.stderr) == (1, True), done.stderr
    shutil.rmtree(bundle)
    assert "files are not there" in workplace.run("model", "history", "small").stderr


def test_a_loosened_gate_does_not_promote_what_it_refused(workplace: Workplace) -> None:
    blocked(workplace)
    declare_gates(workplace)
    again = workplace.json("run", "small")
    assert again["verdict"] == "HOLD"
    assert "judged 1 time before on these items by other rules (an edit after HOLD or BLOCK" in again["reason"]


def test_promoting_a_candidate_that_other_gates_blocked_is_noted(workplace: Workplace) -> None:
    run_id = blocked(workplace)["run_id"]
    declare_gates(workplace, **SECOND_LOOK)
    outcome = workplace.json("run", "small")
    assert outcome["verdict"] == "PROMOTE"
    note = f"these weights were BLOCKed under other gates by run {run_id}"
    assert note in outcome["reason"]
    shown = workplace.json("model", "history", "small")
    assert note in shown["events"][-1]["note"]
    assert set(json.loads(shown["events"][-1]["evidence"])) == {
        "model", "trained", "bundle", "gates", "items", "answers", "scores", "decision",
        "better_than", "recipe",
    }  # fmt: skip
    assert note in workplace.run("model", "history", "small").stdout.replace("\n", " ")
    assert note in (workplace.home / "reports" / outcome["run_id"] / "report.md").read_text()


def test_a_candidate_that_is_not_compared_becomes_champion_only_when_a_person_accepts_that(
    workplace: Workplace,
) -> None:
    def off(document: dict[str, Any]) -> None:
        limit = {"metric": "finished", "value_threshold": 0.0}
        document["pipelines"]["small"]["gates"].update(rules=[limit], compare={"off": "a pilot"})

    workplace.declare(off)
    assert "gates.compare is off, so no verdict is better than UNCOMPARED: a pilot" in workplace.run("validate").stderr
    outcome = workplace.json("run", "small")
    assert (outcome["verdict"], outcome["exit_code"], outcome["champion"]) == ("UNCOMPARED", 10, None)
    assert "UNCOMPARED" in (workplace.home / "reports" / outcome["run_id"] / "report.md").read_text()
    again = workplace.json("run", "small")
    assert (again["verdict"], again["holds"], again["exit_code"]) == ("SKIP", "UNCOMPARED", 10)

    forced = workplace.run("model", "promote", "small", "1", "--force", "--reason", "now")
    assert (forced.returncode, "--accept-uncompared" in forced.stderr) == (9, True)
    accept = ("model", "promote", "small", "1", "--accept-uncompared", "--by", "ada")
    assert workplace.run(*accept).returncode == 2  # without a reason
    accepted = workplace.run(*accept, "--reason", "read 50 answers")
    assert accepted.returncode == 0, accepted.stderr
    assert "force by ada; the gate had said UNCOMPARED" in accepted.stdout
    [event] = workplace.json("model", "history", "small")["events"]
    assert [event[name] for name in ("actor", "reason", "verdict")] == ["ada", "read 50 answers", "UNCOMPARED"]


def test_a_run_that_repeats_a_verdict_has_its_exit_code(workplace: Workplace) -> None:
    blocked(workplace)
    accept = ("model", "promote", "small", "1", "--accept-uncompared", "--reason", "r")
    refused = workplace.run(*accept)
    assert (refused.returncode, "has verdict BLOCK, not UNCOMPARED" in refused.stderr) == (9, True)
    again = workplace.json("run", "small")
    assert (again["verdict"], again["holds"], again["exit_code"]) == ("SKIP", "BLOCK", 5)
    assert workplace.run("run", "small").returncode == 5
    assert workplace.json("runs")["runs"][0]["exit_code"] == 5
    declare_gates(workplace, **SECOND_LOOK)
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"
    assert workplace.run("run", "small").returncode == 0
    refused = workplace.run(*accept)
    assert (refused.returncode, "v1 of small is champion already" in refused.stderr) == (9, True)
    assert len(workplace.json("model", "history", "small")["events"]) == 1


def test_a_run_after_an_approval_says_that_the_candidate_is_champion(workplace: Workplace) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"]["register"].update(approval="required"))
    waits = workplace.json("run", "small")
    assert (waits["verdict"], waits["exit_code"]) == ("HOLD", 8)
    assert "(HOLD): same tickets" in workplace.json("run", "small")["reason"]
    assert workplace.run("model", "approve", waits["run_id"], "--by", "ada").returncode == 0
    again = workplace.json("run", "small")
    assert (again["verdict"], again["holds"], again["exit_code"]) == ("SKIP", "PROMOTE", 0)
    assert "(HOLD, and a person made its candidate champion): same tickets" in again["reason"]


def test_a_run_does_not_replace_a_lost_ledger(workplace: Workplace) -> None:
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"
    for file in workplace.home.glob("ledger.sqlite*"):
        file.unlink()
    for command in (("run", "small"), ("ops", "doctor"), ("model", "history", "small")):
        done = workplace.run(*command)
        assert done.returncode == 1, command
        assert "TG0581" in done.stderr + done.stdout, command
    assert workplace.run("run", "small", "--new-ledger").returncode == 2
    outcome = workplace.json("run", "small", "--new-ledger", "--reason", "the disk is gone")
    assert (outcome["verdict"], outcome["mlflow_pending"]) == ("PROMOTE", 0)
    shown = workplace.json("model", "history", "small")
    assert [(row["kind"], row["reason"]) for row in shown["accepted"][-1:]] == [("new", "the disk is gone")]
    assert "a new ledger was begun" in workplace.run("model", "history", "small").stdout


def test_a_restored_home_is_accepted_with_a_reason(workplace: Workplace, tmp_path: Path) -> None:
    assert workplace.json("run", "small")["verdict"] == "PROMOTE"
    shutil.copytree(workplace.home, tmp_path / "backup")
    workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(seed=1))
    assert workplace.json("run", "small")["champion"] == "2"
    mlflow = workplace.home / "mlflow"
    shutil.move(mlflow, tmp_path / "mlflow")  # the registry continues
    shutil.rmtree(workplace.home)
    shutil.copytree(tmp_path / "backup", workplace.home)
    shutil.rmtree(mlflow)
    shutil.move(tmp_path / "mlflow", mlflow)
    for command in (("run", "small"), ("model", "rollback", "small", "--reason", "r"), ("ops", "reconcile")):
        done = workplace.run(*command)
        assert (done.returncode, "TG0581" in done.stderr) == (1, True), (command, done.stderr)
    assert workplace.json("run", "small", "--accept-ledger", "--reason", "backup of Monday")["champion"] == "2"
    assert workplace.json("model", "history", "small")["accepted"][-1]["kind"] == "restored"


def test_a_registered_model_follows_one_ledger(workplace: Workplace, tmp_path: Path) -> None:
    """Two homes with one MLflow and one name: the second is refused before it promotes."""
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    shutil.copy(workplace.home / "mlflow" / "mlflow.db", tmp_path / "shared.db")
    environ = {"MLFLOW_TRACKING_URI": shared}
    assert workplace.run("run", "small", **environ).returncode == 0
    second = str(tmp_path / "second")
    shutil.copytree(workplace.home / "store", Path(second) / "store")
    taken = workplace.run("run", "small", "--new-ledger", "--reason", "another host", TUNEGATE_HOME=second, **environ)
    assert (taken.returncode, "TG0581" in taken.stderr) == (1, True), taken.stderr
    assert Ledger(Path(second)).champion("small") is None


def test_two_concurrent_rollbacks_roll_back_once(workplace: Workplace) -> None:
    two_champions(workplace)
    first = workplace.run("model", "rollback", "small", "--reason", "customers complain", "--expect", "2")
    second = workplace.run("model", "rollback", "small", "--reason", "customers complain", "--to", "2", "--expect", "2")
    assert first.returncode == 0
    assert (second.returncode, "TG0620" in second.stderr) == (9, True), second.stderr
    forced = workplace.run("model", "promote", "small", "2", "--force", "--reason", "r", "--expect", "2")
    assert (forced.returncode, "TG0620" in forced.stderr) == (9, True)
    assert workplace.json("model", "champion", "small")["champion"]["version"] == "1"
