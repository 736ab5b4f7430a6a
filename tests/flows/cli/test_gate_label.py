"""`tunegate gate label`: people label the answers that differ, and the verdict follows."""

import csv
import io
import json
import re
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.ledger.open import open_ledger
from flows.workspace.settings import load_settings
from tasks.model.answer_engine import Answer
from tasks.model.generate import AnswerJob, Batch, InThisProcess
from tasks.tickets.draw import item_hash
from tests.support.workplace import Workplace

N_DIFFERING = 6


@pytest.fixture(autouse=True)
def fixed_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base and trained model answer differently on `N_DIFFERING` items: a toy's own answers depend on the processor."""
    seen: dict[str, int] = {}

    def answers(
        _self: object, job: AnswerJob, batches: Sequence[Batch]
    ) -> Generator[tuple[int, list[Answer]], None, None]:
        for start, items in batches:
            places = {item.item_id: seen.setdefault(item.item_id, len(seen)) for item in items}
            words = {
                item: "base" if place < N_DIFFERING and job.trained is None else "same"
                for item, place in places.items()
            }
            yield start, [Answer(item, f"Hello from {word}", 4, True, 2.0) for item, word in words.items()]

    monkeypatch.setattr(InThisProcess, "answers", answers)


def labels_are_declared(document: dict[str, Any]) -> None:
    small = document["pipelines"]["small"]
    small["evaluate"] |= {"labels": "differing", "max_new_tokens": 5}  # the answers in the store are the toy's own
    small["gates"] |= {"rules": [{"metric": "right", "change_threshold": {"mode": "no_worse", "margin": 0.05}}]}


def items_of(workplace: Workplace, run_id: str) -> set[str]:
    ledger = open_ledger(load_settings(workplace.folder / "pipelines.yaml"))
    key = next(step.key for step in ledger.steps(run_id) if step.step == "items")
    return set(pq.read_table(workplace.home / "store" / "items" / key / "items.parquet")["item_id"].to_pylist())


def test_differing_answers_are_labelled_in_the_terminal_and_in_a_spreadsheet_and_the_verdict_follows(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.declare(labels_are_declared)
    first = workplace.json("run", "small")
    run_id = first["run_id"]
    assert first["verdict"] == "HOLD"
    assert "no label on which the raters agree; `tunegate gate label RUN`" in first["reason"]
    needed = workplace.json("gate", "label", run_id)
    assert (needed["n_needed"], needed["n_differing"], needed["n_items"]) == (N_DIFFERING, N_DIFFERING, 12)

    def label(keys: str, rater: str) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        return workplace.run("gate", "label", run_id, "--rater", rater)

    done = label("both\nneither\nundo\nwhat\nskip\nquit\n", "ada")
    assert f"1 of {N_DIFFERING} " in done.stdout
    assert "'what' is no choice" in done.stdout
    assert done.stderr.strip().startswith(f"note 1 of {needed['n_needed']} labels made")
    assert "Hello" not in done.stderr  # ticket text goes to stdout alone
    assert "zero_shot" not in done.stdout
    assert "tuned" not in done.stdout
    again = label("2\n" * 20, "ada")  # resumes with what was undone and skipped
    assert f"2 of {needed['n_needed']} " in again.stdout
    assert "`tunegate run small` gives the verdict" in again.stderr

    file = workplace.run("gate", "label", run_id, "--rater", "bob", "--write", "csv").stdout.strip()
    with Path(file).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == needed["n_needed"]
    filled = workplace.folder / "filled.csv"
    with filled.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"right": "both" if place else "neither"} for place, row in enumerate(rows))
    assert workplace.run("gate", "label", run_id, "--rater", "bob", "--read", str(filled)).returncode == 0
    facts = workplace.json("gate", "label", run_id)
    assert facts["raters"] == {"ada": needed["n_needed"], "bob": needed["n_needed"]}
    assert facts["agreement"]["ada, bob"][0] == needed["n_needed"]
    assert (facts["n_disputed"], facts["n_made"]) == (1, needed["n_needed"] - 1)
    label("0\n" * 20, "eve")  # settles it; the others are settled by ada and bob

    decided = workplace.json("run", "small")
    assert decided["verdict"] == "PROMOTE"
    assert items_of(workplace, decided["run_id"]) == items_of(workplace, run_id)
    assert workplace.json("run", "small")["verdict"] == "SKIP"
    report = json.loads((workplace.home / "reports" / decided["run_id"] / "report.json").read_bytes())
    assert report["labels"]["n_made"] == needed["n_needed"]
    plan = workplace.json("plan", "small")
    assert (plan["labels_to_make"], plan["labels_made"]) == (needed["n_needed"], needed["n_needed"])
    left = re.search(r"(\d+) of \d+ test tickets are left fresh", report["evidence"])
    assert left is not None
    assert plan["test_tickets_left"] == int(left[1]) > 0
    for path in (workplace.home / "labels" / "small").iterdir():  # no text: hashes, choices and times
        assert (
            re.sub(rb'\{"label":"[0-9a-f]{24}","right":(true|false|null),"at":"[-0-9T:+]+"\}\n', b"", path.read_bytes())
            == b""
        )


def test_a_session_ends_when_the_labels_that_are_left_can_neither_promote_nor_prevent_it(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def improvement_is_declared(document: dict[str, Any]) -> None:
        labels_are_declared(document)
        gates = document["pipelines"]["small"]["gates"]
        gates["rules"][0]["change_threshold"] = {"mode": "improve"}
        gates["confidence"] = 0.95

    workplace.declare(improvement_is_declared)
    run_id = workplace.json("run", "small")["run_id"]
    n_needed = workplace.json("gate", "label", run_id)["n_needed"]

    def label(*options: str, rater: str = "ada", keys: str = "both\n" * 20) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        return workplace.run("gate", "label", run_id, "--rater", rater, *options)

    assert workplace.json("gate", "label", run_id)["undecided"]
    label(keys="both\nu\n")  # took it back
    assert workplace.json("gate", "label", run_id)["n_made"] == 0
    done = label()
    n_made = workplace.json("gate", "label", run_id)["n_made"]
    assert 0 < n_made < n_needed  # too few differ for an improvement once some are equally right
    assert f"the {n_needed - n_made} that are left can neither promote nor prevent it" in done.stderr
    assert "`tunegate run small` gives the verdict" in done.stderr
    assert not label().stdout.strip()
    label(rater="bob")  # as many, as if there were no other
    facts = workplace.json("gate", "label", run_id)
    assert facts["raters"] == {"ada": n_made, "bob": n_made}
    decided = workplace.json("run", "small")
    assert decided["verdict"] == "HOLD"
    assert "cannot change this" in decided["reason"]
    label("--all")
    assert workplace.json("gate", "label", run_id)["n_made"] == n_needed


def test_items_that_a_person_read_are_not_judged_again_while_there_are_fresh_ones(workplace: Workplace) -> None:
    shown = workplace.json("run", "strict")["run_id"]
    read = {each["item_id"] for each in workplace.json("gate", "explain", shown, "--items", "3")["worst_items"]}
    seen = open_ledger(load_settings(workplace.folder / "pipelines.yaml")).seen_items("strict", "")
    assert {item_hash(item, salt=seen.salt) for item in read} <= set(seen.hashes)

    def is_stricter(document: dict[str, Any]) -> None:
        document["pipelines"]["strict"]["gates"]["rules"][0]["value_threshold"] = 0.95

    workplace.declare(is_stricter)
    fresh = workplace.json("run", "strict")["run_id"]
    assert not items_of(workplace, fresh) & read
    assert len(items_of(workplace, fresh)) == 12
