"""`train.start: champion`, week by week: from the base first, then from the champion with what is new to it."""

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import toy
from flows.ledger.open import open_ledger
from schemas.artifacts import DatasetRef, Splits
from tests.support.workplace import Workplace

FIRST_STEPS = 6
"""`train.max_steps` of the first training."""


def _declare(workplace: Workplace, **train: Any) -> None:
    def change(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        small["curate"]["steps"] = []
        small["split"]["group_by"] = []
        small["train"] |= {"start": "champion", "replay": 0.25, **train}
        del small["train"]["max_examples"]
        small["evaluate"] |= {"arms": ["zero_shot"], "max_items": 12}

    workplace.declare(change)


def _plan_with_a_budget(workplace: Workplace) -> Any:
    """Plan all steps of the second training in 15 steps' time: all train tickets take about 20, new ones about 10."""
    from flows.workspace.settings import load_settings

    ledger = open_ledger(load_settings(workplace.folder / "pipelines.yaml"))
    first = ledger.champion("small")
    assert first is not None
    (seconds,) = (step.seconds for step in ledger.steps(first.run_id) if step.step == "train")
    _declare(workplace, max_steps=None, budget={"minutes": 15 / FIRST_STEPS * seconds / 60})
    return workplace.json("plan", "small")


def test_the_second_week_learns_what_is_new_and_some_of_what_it_knows(empty_workplace: Workplace) -> None:
    from flows.views.run_reader import Recorded
    from flows.workspace.settings import load_settings

    workplace = empty_workplace
    lines = [json.dumps(row).encode() + b"\n" for row in toy.tickets(120)]
    tickets = workplace.folder / "tickets.jsonl"
    _declare(workplace)
    tickets.write_bytes(b"".join(lines[:80]))
    assert workplace.json("plan", "small")["start"].endswith("no champion yet: the training starts from the base model")
    first = workplace.run("run", "small")
    assert first.returncode == 0, first.stderr
    assert "no champion yet: the training starts from the base model" in first.stdout + first.stderr
    tickets.write_bytes(b"".join(lines))
    planned = _plan_with_a_budget(workplace)
    assert workplace.run("run", "small", "--until", "curate").returncode == 0
    curated = _plan_with_a_budget(workplace)
    _declare(workplace)
    why = {step["step"]: (step["why"], step["causes"]) for step in workplace.json("plan", "small")["steps"]}
    assert why["encode"] == ("made by continue_examples instead of encode_examples", ["another step"])
    second = workplace.run("run", "small")
    assert second.returncode == 0, second.stderr
    assert "the training continues from champion version 1" in second.stdout + second.stderr

    settings = load_settings(workplace.folder / "pipelines.yaml")
    newest, oldest = open_ledger(settings).candidates("small")
    assert newest.ref.trained.started_from == oldest.ref.trained.digest
    recorded = Recorded(settings, newest.ref.run_id)
    dataset, splits = recorded.result("encode", DatasetRef), recorded.result("decontaminate", Splits)
    assert dataset is not None
    assert splits is not None
    origins = pq.read_table(dataset.root / "origins.parquet").to_pylist()
    assert {row["origin"] for row in origins} == {"new", "replayed"}
    trained_on, train, test = (
        {row["ticket_id"] for row in origins},
        *({*pq.read_table(path, columns=["ticket_id"]).column(0).to_pylist()} for path in (splits.train, splits.test)),
    )
    assert trained_on <= train
    assert not trained_on & test
    assert (planned["sizes_from"], curated["sizes_from"]) == (
        "the rows of the source, before curation", "curated tickets"
    )  # fmt: skip
    for plan in (planned, curated):
        assert plan["train_examples"] == pytest.approx(len(origins), abs=5 if plan is planned else 0)
        assert not any("will be refused" in warning for warning in plan["warnings"])
    report = json.loads((workplace.home / "reports" / newest.ref.run_id / "report.json").read_text())
    starts = [(line["start"], line["version"]) for line in report["starts"]]
    assert starts == [("champion (version 1)", None), ("base", "1")]
    assert "replayed" in report["training"]["examples"]

    nothing_new = workplace.run("run", "small", "--again")
    assert nothing_new.returncode != 0
    assert "no train ticket is new since the champion's training" in nothing_new.stderr
