"""`tunegate gate check NAME`: a ledger counts verdicts over files, keeps the champion's results, moves the champion."""

import gc
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.workspace.settings import Settings, load_settings
from schemas.artifacts import CheckedRef
from schemas.errors import ConfigError
from schemas.gate_result import GateCheckResult
from tasks.release.tracking import choose_uri, open_client
from tasks.storage.failpoint import VARIABLE
from tests.support.commands import run_here
from tests.support.place import Place

PROJECT = Path(__file__).parents[3]
N = 600
Done = subprocess.CompletedProcess[str]


@dataclass
class Team:
    """A folder with results, and a home that nothing but `gate check` has written to."""

    folder: Path

    @property
    def environ(self) -> Mapping[str, str]:
        return {"PATH": "/usr/bin", "HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state")}

    @property
    def settings(self) -> Settings:
        return load_settings(self.folder / "pipelines.yaml", environ=self.environ)

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    def write(self, name: str, right: Iterable[int], *, items: Iterable[int] = range(N), more: str = "") -> str:
        """Write results in which these items are right."""
        wins = set(right)
        rows = [
            {"id": f"t{item}", "prompt": f"secret question {item}", "exact": int(item in wins), "set": more}
            for item in items
        ]
        (self.folder / name).write_bytes(b"\n".join(map(orjson.dumps, rows)))
        return name

    def call(self, *words: str) -> Done:
        return run_here(words, cwd=self.folder, environ=self.environ)

    def check(self, candidate: str, *more: str) -> dict[str, Any]:
        """What `--json` says; the exit code is that of the document."""
        done = self.call("gate", "check", "vendor", "--candidate", candidate, "--json", *more)
        assert done.stdout, done.stderr
        found: dict[str, Any] = orjson.loads(done.stdout)
        assert done.returncode == found["exit_code"], done.stderr
        GateCheckResult.model_validate(found)
        return found


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """In service is `a`, right on 480 of 600 items; `b` is right on 30 more."""
    team = Team(tmp_path)
    team.write("a.jsonl", range(480))
    team.write("b.jsonl", range(510))
    return team


@pytest.fixture
def promoted(team: Team) -> Team:
    assert team.check("b.jsonl", "--champion", "a.jsonl")["verdict"] == "PROMOTE"
    return team


def test_the_next_candidate_is_compared_with_the_promoted_one_without_its_file(promoted: Team) -> None:
    promoted.write("c.jsonl", range(511))
    promoted.write("d.jsonl", range(400))
    promoted.write("e.jsonl", range(560))
    held, worse = promoted.check("c.jsonl"), promoted.check("d.jsonl")
    better = promoted.check("e.jsonl")
    assert [each["verdict"] for each in (held, worse, better)] == ["HOLD", "BLOCK", "PROMOTE"]
    assert [each["recorded"]["candidate"] for each in (held, worse, better)] == ["3", "4", "5"]
    assert held["findings"][0]["reference"] == 510 / N
    assert "champion (version 2)" in better["findings"][0]["rule"]
    assert better["recorded"]["champion"] == "5"
    assert [each["use"]["verdict"] for each in (held, worse, better)] == [2, 3, 4]
    moves = [(event.action, event.to_version, event.verdict) for event in promoted.ledger.history("vendor")]
    assert moves == [("force", "1", "UNCOMPARED"), ("promote", "2", "PROMOTE"), ("promote", "5", "PROMOTE")]


def test_a_candidate_that_is_champion_is_not_judged_again(promoted: Team) -> None:
    again = promoted.check("b.jsonl", "--champion", "a.jsonl")
    assert (again["verdict"], again["exit_code"], again["recorded"]["champion"]) == ("SKIP", 0, "2")
    assert promoted.ledger.looks()[-1].verdict == "PROMOTE"
    assert len(promoted.ledger.looks()) == 1


def test_history_explain_show_and_doctor_read_what_was_recorded(promoted: Team) -> None:
    run_id = promoted.ledger.runs()[0].run_id
    history = promoted.call("model", "history", "vendor")
    assert history.returncode == 0, history.stderr
    assert "2 events; the ledger is as it was written" in history.stdout
    explained = promoted.call("gate", "explain", run_id)
    assert "items won 30, lost 0" in explained.stdout
    assert "no text is kept" in explained.stderr
    assert "gate" in promoted.call("show", run_id).stdout
    assert "600 results of b.jsonl" in promoted.call("model", "champion", "vendor").stdout
    doctor = promoted.call("ops", "doctor")
    assert re.search(r"ok +champion +vendor v2: every file has its sha256", doctor.stdout), doctor.stdout
    assert promoted.call("ops", "reconcile").returncode == 0


def test_after_a_rollback_the_former_champion_is_compared_with_and_promotions_wait(promoted: Team) -> None:
    back = promoted.call("model", "rollback", "vendor", "--reason", "complaints", "--by", "ada")
    assert "champion of vendor is v1 again" in back.stdout, back.stderr
    promoted.write("c.jsonl", range(540))
    waits = promoted.check("c.jsonl")
    assert (waits["verdict"], waits["exit_code"], waits["recorded"]["waits"]) == ("HOLD", 8, True)
    assert waits["findings"][0]["reference"] == 480 / N
    run_id = waits["recorded"]["run_id"]
    assert promoted.call("model", "approve", run_id, "--by", "ada").returncode == 0
    current = promoted.ledger.current("vendor")
    assert isinstance(current, CheckedRef)
    assert (current.version, current.results.name) == ("3", "c.jsonl")


def test_a_person_promotes_past_the_gate_on_the_record(promoted: Team) -> None:
    promoted.write("c.jsonl", range(400))
    assert promoted.check("c.jsonl")["verdict"] == "BLOCK"
    assert promoted.call("model", "promote", "vendor", "3").returncode == 9
    done = promoted.call("model", "promote", "vendor", "3", "--force", "--reason", "cheaper", "--by", "ada")
    assert done.returncode == 0, done.stderr
    last = promoted.ledger.history("vendor")[-1]
    assert (last.action, last.actor, last.reason, last.verdict) == ("force", "ada", "cheaper", "BLOCK")


RULES = """
gates:
  rules: [{metric: exact, change_threshold: {mode: refresh, margin: %s}}]
  looks: {max: 2}
  reuse: {budget: 2}
"""


def test_candidates_on_the_same_items_use_up_their_budget(team: Team) -> None:
    (team.folder / "rules.yaml").write_text(RULES % "0.02")
    rules = ("--rules", "rules.yaml")
    for number, verdict in enumerate(("BLOCK", "BLOCK", "HOLD")):
        right = range(300) if verdict == "BLOCK" else range(590)
        candidate = team.write(f"c{number}.jsonl", right, more=str(number))
        found = team.check(candidate, *rules, *(("--champion", "a.jsonl") if number == 0 else ()))
        assert found["verdict"] == verdict, found["reason"]
        assert found["use"]["verdict"] == number + 1
    explained = team.call("gate", "explain", team.ledger.runs()[0].run_id)
    assert "these items have judged 3 candidates" in explained.stdout


def test_other_rules_on_the_same_items_are_another_look(team: Team) -> None:
    for margin in ("0.02", "0.05"):
        (team.folder / f"{margin}.yaml").write_text(RULES % margin)
    team.write("c.jsonl", range(4, 482))
    first = team.check("c.jsonl", "--champion", "a.jsonl", "--rules", "0.02.yaml")
    assert (first["verdict"], first["use"]["look"], first["use"]["edited"]) == ("HOLD", 1, 0)
    edited = team.check("c.jsonl", "--rules", "0.05.yaml")
    assert (edited["use"]["look"], edited["use"]["edited"]) == (2, 1)
    assert edited["use"]["confidence"] > 0.95
    again = team.check("c.jsonl", "--rules", "0.02.yaml")  # the first look once more
    assert (again["use"], again["findings"]) == (first["use"], first["findings"])


def test_one_model_on_more_items_is_another_look_and_keeps_its_values(promoted: Team) -> None:
    items = range(N, 2 * N)
    champion = promoted.write("b2.jsonl", range(1100), items=items)
    more = ("--version-of", "model@abc")
    promoted.write("c.jsonl", range(511))
    assert promoted.check("c.jsonl", *more)["verdict"] == "HOLD"
    lucky = promoted.check(promoted.write("c-again.jsonl", range(540)), *more)
    assert lucky["verdict"] == "ERROR"
    assert "the candidate has other values than in run" in lucky["reason"]
    assert "t511, t512" in lucky["reason"]
    fresh = promoted.write("c2.jsonl", range(1110), items=items)
    alone = promoted.check(fresh, *more)
    assert alone["verdict"] == "ERROR"
    assert "only the champion has 600 items" in alone["findings"][0]["reason"] + alone["findings"][1]["reason"]
    both = promoted.check(fresh, *more, "--champion", champion)
    assert both["use"]["look"] == 2, both["reason"]
    # From now on the champion's results on these items are known.
    promoted.write("d.jsonl", range(1150), items=items)
    later = promoted.check("d.jsonl")
    assert (later["verdict"], later["findings"][0]["reference"]) == ("PROMOTE", 500 / N)


def test_a_second_draw_under_another_repeat_is_found(promoted: Team) -> None:
    """Else answers could be drawn until they are lucky, and each draw would count as the first look."""
    more = ("--version-of", "model@abc")
    promoted.write("c.jsonl", range(511))
    assert promoted.check("c.jsonl", *more)["verdict"] == "HOLD"
    drawn = promoted.write("c2.jsonl", range(540))
    rows = [{**orjson.loads(line), "repeat": "2"} for line in (promoted.folder / drawn).read_bytes().splitlines()]
    (promoted.folder / drawn).write_bytes(b"\n".join(map(orjson.dumps, rows)))
    found = promoted.check(drawn, *more)
    assert (found["verdict"], "the candidate has other values" in found["reason"]) == ("ERROR", True)


def test_another_model_under_the_champions_reference_is_not_skipped(team: Team) -> None:
    more = ("--version-of", "adapter")
    assert team.check("b.jsonl", "--champion", "a.jsonl", *more)["verdict"] == "PROMOTE"
    assert team.check("b.jsonl", *more)["verdict"] == "SKIP"
    team.write("c.jsonl", range(100))
    found = team.check("c.jsonl", *more)
    assert (found["verdict"], found["exit_code"]) == ("ERROR", 9)
    assert "the candidate has other values" in found["reason"]


def test_one_reference_in_two_names_is_of_two_models(promoted: Team) -> None:
    promoted.write("c.jsonl", range(511))
    promoted.write("d.jsonl", range(512))
    assert promoted.check("c.jsonl", "--version-of", "main")["use"]["verdict"] == 2
    words = ("gate", "check", "other", "--champion", "b.jsonl", "--candidate", "d.jsonl", "--version-of", "main")
    found = orjson.loads(promoted.call(*words, "--json").stdout)
    assert (found["verdict"], found["use"]["verdict"]) == ("HOLD", 3)


def test_items_without_their_prompts_are_no_new_items(promoted: Team) -> None:
    for number in (511, 512):
        name = promoted.write(f"{number}.jsonl", range(number))
        rows = [orjson.loads(line) for line in (promoted.folder / name).read_bytes().splitlines()]
        bare = [{key: value for key, value in row.items() if key != "prompt"} for row in rows]
        (promoted.folder / name).write_bytes(b"\n".join(map(orjson.dumps, bare)))
    assert promoted.check("511.jsonl")["use"]["verdict"] == 2
    assert promoted.check("512.jsonl")["use"]["verdict"] == 3


def test_an_empty_cell_of_a_metric_that_is_not_judged_stays_empty(team: Team) -> None:
    for name, right in (("a", 480), ("b", 510), ("c", 511)):
        rows = [f"t{item},{int(item < right)},{'' if item == 3 else 0.5}" for item in range(N)]
        (team.folder / f"{name}.csv").write_text("\n".join(["id,exact,seconds", *rows]))
    metric = ("--metric", "exact")
    assert team.check("b.csv", "--champion", "a.csv", *metric)["verdict"] == "PROMOTE"
    first, again = team.check("c.csv", *metric), team.check("c.csv", *metric)
    assert first["verdict"] == again["verdict"] == "HOLD", again["reason"]
    assert first["use"] == again["use"]


def test_a_slice_that_no_file_has_is_an_error(team: Team) -> None:
    (team.folder / "rules.yaml").write_text(
        "gates: {rules: [{metric: exact, change_threshold: {mode: improve}}], slices: {by: [channel]}}"
    )
    found = team.check("b.jsonl", "--champion", "a.jsonl", "--rules", "rules.yaml")
    assert (found["verdict"], "the candidate has no column channel" in found["reason"]) == ("ERROR", True)


def test_the_clusters_of_the_kept_champion_are_not_dropped(team: Team) -> None:
    for name, right, cluster in (("a", 480, True), ("b", 510, True), ("c", 540, False)):
        rows = [{"id": n, "exact": n < right, **({"cluster": f"k{n // 3}"} if cluster else {})} for n in range(N)]
        (team.folder / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert team.check("b.jsonl", "--champion", "a.jsonl")["verdict"] == "PROMOTE"
    found = team.check("c.jsonl")
    assert (found["verdict"], "the candidate has no cluster" in found["reason"]) == ("ERROR", True)


def test_a_weaker_file_is_not_taken_for_the_champion(promoted: Team) -> None:
    promoted.write("c.jsonl", range(500))
    found = promoted.check("c.jsonl", "--champion", "a.jsonl")
    assert (found["verdict"], found["exit_code"]) == ("ERROR", 9)
    assert "the champion has other values than in run" in found["reason"]


def test_the_best_champion_so_far_is_an_anchor_by_its_kept_results(promoted: Team) -> None:
    (promoted.folder / "rules.yaml").write_text(
        "gates: {rules: [{metric: exact, change_threshold: {mode: no_worse, margin: 0.03}}]}"
    )
    promoted.write("c.jsonl", range(5, 512))
    assert promoted.check("c.jsonl", "--rules", "rules.yaml")["verdict"] == "PROMOTE"
    promoted.write("d.jsonl", range(5, 509))
    found = promoted.check("d.jsonl", "--rules", "rules.yaml")
    rules = [finding["rule"] for finding in found["findings"]]
    assert any("anchor (version 2)" in rule for rule in rules), rules
    assert found["files"]["anchor"]["path"] == "b.jsonl"
    promoted.write("e.jsonl", range(5, 508))
    weaker = promoted.check("e.jsonl", "--rules", "rules.yaml", "--anchor", "a.jsonl")
    assert (weaker["verdict"], "the anchor has other values" in weaker["reason"]) == ("ERROR", True)


def test_answers_scored_in_another_way_are_not_compared_with_kept_values(team: Team) -> None:
    for name, right in (("a", 480), ("b", 510), ("c", 540)):
        rows = [{"id": n, "answer": "[x]" if n < right else "[y]", "reference": "[x]"} for n in range(N)]
        (team.folder / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    (team.folder / "rules.yaml").write_text(
        "gates: {rules: [{metric: exact, change_threshold: {mode: improve}}]}\n"
        "evaluate: {fields: '\\[(?P<category>[a-z]+)\\]'}\n"
    )
    assert team.check("b.jsonl", "--champion", "a.jsonl")["verdict"] == "PROMOTE"
    found = team.check("c.jsonl", "--rules", "rules.yaml")
    assert found["verdict"] == "ERROR"
    assert "was not measured in the same way" in found["reason"]


def test_files_that_do_not_pair_are_recorded_as_an_error_and_use_up_nothing(promoted: Team) -> None:
    promoted.write("c.jsonl", range(550), items=range(5, N + 1))
    found = promoted.check("c.jsonl")
    assert (found["verdict"], found["exit_code"]) == ("ERROR", 9)
    assert promoted.ledger.runs()[0].verdict == "ERROR"
    promoted.write("c.jsonl", range(550))
    assert promoted.check("c.jsonl")["use"]["verdict"] == 2


def test_altered_results_of_the_champion_are_found(promoted: Team) -> None:
    current = promoted.ledger.current("vendor")
    assert isinstance(current, CheckedRef)
    rows = current.results.root / "rows.jsonl"
    rows.chmod(0o600)
    rows.write_text(rows.read_text().replace('"exact":1.0', '"exact":0.0', 1))
    promoted.write("c.jsonl", range(560))
    done = promoted.call("gate", "check", "vendor", "--candidate", "c.jsonl")
    assert (done.returncode, "TG0510" in done.stderr) == (1, True), done.stderr
    assert promoted.call("model", "history", "vendor").returncode == 1
    assert promoted.ledger.current("vendor") == current


def test_no_text_is_kept(promoted: Team) -> None:
    home = promoted.folder / ".tunegate"
    texts = [path for path in home.rglob("*") if path.is_file() and b"secret question" in path.read_bytes()]
    assert texts == []


def test_the_first_check_needs_a_champion(team: Team) -> None:
    done = team.call("gate", "check", "vendor", "--candidate", "b.jsonl")
    assert done.returncode == 2
    assert "TG0159" in done.stderr
    assert "it becomes version 1" in done.stderr
    assert team.call("gate", "check", "no name", "--candidate", "b.jsonl").returncode == 2
    assert "TG0139" in team.call("gate", "check", "--candidate", "b.jsonl").stderr


def test_a_name_has_results_or_trained_models_never_both(promoted: Team) -> None:
    place = Place(promoted.settings)
    place.promote(1, after=None, name="small")
    done = promoted.call("gate", "check", "small", "--champion", "a.jsonl", "--candidate", "b.jsonl")
    assert (done.returncode, "models that were trained here" in done.stderr) == (2, True), done.stderr
    with pytest.raises(ConfigError, match="results from files"):
        place.record(2, "PROMOTE", name="vendor")
    with pytest.raises(ConfigError, match="results from files"):
        promoted.ledger.champion("vendor")


@pytest.mark.parametrize("fault", ["", "  broken: {source: {kind: nothing}}\n"])
def test_the_name_of_a_pipeline_is_refused_before_its_first_run_as_after_it(team: Team, fault: str) -> None:
    """Else that run would find a champion that it cannot compare with."""
    team.write("c.jsonl", range(511))
    assert team.check("b.jsonl", "--champion", "a.jsonl")["verdict"] == "PROMOTE"
    text = (PROJECT / "pipelines.yaml").read_text()
    registered = "      name: support-replies #"
    assert text.count(registered) == 1
    (team.folder / "pipelines.yaml").write_text(text.replace(registered, "      name: replies-model #") + fault)
    for name in ("support-replies", "replies-model"):
        done = team.call("gate", "check", name, "--champion", "a.jsonl", "--candidate", "c.jsonl")
        assert (done.returncode, "TG0159" in done.stderr) == (2, True), done.stderr
        assert "`tunegate run support-replies`" in done.stderr
    assert [run.pipeline for run in team.ledger.runs()] == ["vendor"]
    assert team.check("c.jsonl")["verdict"] == "HOLD"


def test_a_version_in_mlflow_is_the_champion_by_the_table_of_its_evaluation(team: Team) -> None:
    """An alias is looked up once: what was judged is the version with its number, wherever the alias moves."""
    client = open_client(choose_uri("", None, home=team.settings.home))
    client.create_registered_model("vendor")
    experiment = client.create_experiment("vendor", artifact_location=(team.folder / "artifacts").as_uri())
    for name in ("a", "b"):
        rows = [orjson.loads(line) for line in (team.folder / f"{name}.jsonl").read_bytes().splitlines()]
        run_id = client.create_run(experiment).info.run_id
        table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        client.log_dict(run_id, table, "eval_results_table.json")
        client.create_model_version("vendor", source="runs:/unused", run_id=run_id)
    client.set_registered_model_alias("vendor", "champion", "1")
    alias = ("--champion", "models:/vendor@champion")
    missing = team.call("gate", "check", "vendor", "--candidate", "b.jsonl", "--champion", "models:/vendor@serving")
    assert missing.returncode == 2
    assert "MLflow has no models:/vendor@serving" in missing.stderr
    found = team.check("b.jsonl", *alias)
    assert (found["verdict"], found["findings"][0]["reference"]) == ("PROMOTE", 480 / N)
    assert found["files"]["champion"]["path"] == "models:/vendor/1/eval_results_table.json"
    assert found["files"]["champion"]["model"] == "vendor version 1"
    assert found["files"]["champion"]["tool"] == "MLflow table"
    # The ledger's champion is `b` now: the alias still names another model, whose results are not taken for its own.
    team.write("c.jsonl", range(560))
    stale = team.check("c.jsonl", *alias)
    assert (stale["verdict"], "the champion has other values" in stale["reason"]) == ("ERROR", True)
    client.set_registered_model_alias("vendor", "champion", "2")
    assert team.check("c.jsonl", *alias)["verdict"] == "PROMOTE"
    words = ("gate", "check", "--candidate", "models:/vendor/2", *alias)
    alone = team.call(*words)
    assert (alone.returncode, "the same file" in alone.stdout) == (9, True), alone.stderr
    gc.collect()  # MLflow's own cycles keep the threads of its downloads


PLACES = (
    "store.renamed:3",
    "ledger.candidate",
    "store.committed:5",
    "ledger.candidate:2",
    "ledger.promote.committed:2",
)
"""The first version's results; it is no champion; the decision; the candidate is no champion; it is, and no one knows.
"""


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_check_is_repeated_with_the_same_result(team: Team, place: str) -> None:
    words = ("gate", "check", "vendor", "--champion", "a.jsonl", "--candidate", "b.jsonl")
    child = os.fork()
    if child == 0:
        run_here(words, cwd=team.folder, environ={**team.environ, VARIABLE: place})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9, place
    done = team.call(*words)
    assert done.returncode == 0, done.stderr
    assert not done.stdout or "PROMOTE" in done.stdout or "champion already" in done.stdout
    moves = [(event.action, event.to_version) for event in team.ledger.history("vendor")]
    assert moves == [("force", "1"), ("promote", "2")]
    team.write("c.jsonl", range(511))
    found = team.check("c.jsonl")
    assert (found["verdict"], found["use"]["verdict"], found["use"]["look"]) == ("HOLD", 2, 1)
