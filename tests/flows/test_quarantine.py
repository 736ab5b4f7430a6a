"""`schema.fail_above` holds for all steps together, and faulty rows of any step leave the later ones as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.assess import assess_steps
from flows.curate import curate_steps
from flows.engine.plan import plan_steps, run_step
from flows.engine.store import Store
from flows.screen import describe
from flows.standing import Standing
from schemas.artifacts import Artifact, EvalSet, Splits, TicketTable, WarehouseRef
from schemas.errors import DataError
from schemas.pipeline import PipelineSpec
from tasks.assess import items
from tasks.curate import leaks
from tasks.curate.ask import quarantine_of
from tasks.curate.extract import fingerprint_source
from tasks.curate.redaction import ticket
from tests.support.plant import raise_on

N_ROWS = 50
WORDS = "Kaboom my secret text, ann@example.org"


def spec(fail_above: float, **evaluate: Any) -> PipelineSpec:
    return PipelineSpec.model_validate({
        "name": "demo", "source": {"kind": "files", "paths": ["t.jsonl"]}, "schema": {"fail_above": fail_above},
        "train": {"base_model": "m"}, "register": {"name": "replies"},
        "curate": {"steps": [{"uses": "redact"}, {"uses": "length", "min_body": 2}, {"uses": "dedup"}]},
        "gates": {"rules": [{"metric": "exact", "value_threshold": 0.5}]}, "split": {"by_time": False},
        "evaluate": evaluate,
    })  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of 50 rows one has no body, and one each raises in redaction and in decontamination."""
    bodies: dict[int, str | None] = {7: None, 21: WORDS, 33: "Bang my secret text"}
    rows = [
        {
            "ticket_id": f"t{number:02d}",
            "customer_id": f"c{number}",
            "body": bodies.get(number, f"My parcel {number * 7919} from shop {number * 31} has not come."),
            "reply": "It is on its way.",
        }
        for number in range(N_ROWS)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_on(monkeypatch, ticket, "find_personal", lambda given: given[0] == WORDS, IndexError)
    raise_on(monkeypatch, leaks, "_folded", lambda given: "Bang" in str(given[0].to_pylist()), ValueError)


def run(folder: Path, fail_above: float) -> dict[str, Artifact]:
    declared = spec(fail_above)
    done: dict[str, Artifact] = {}
    steps = curate_steps(
        declared, fingerprint=fingerprint_source(declared.source, root=folder), root=folder, cache=folder
    )
    for step in steps:
        done[step.name] = run_step(step, done, Store(folder / "home")).artifact
    return done


def test_each_faulty_row_is_quarantined_by_its_step_and_no_row_is_lost(folder: Path) -> None:
    done = run(folder, fail_above=0.06)
    warehouse = done["warehouse"]
    assert isinstance(warehouse, WarehouseRef)
    rows = quarantine_of(warehouse.database, limit=10)
    assert sorted((row["step"], row["ticket_id"], row["source_line"], row["code"]) for row in rows) == [
        ("decontaminate", "t33", 34, "TG0218"),
        ("redact", "t21", 22, "TG0218"),
        ("validate", "t07", 8, "TG0210"),
    ]
    assert {row["reason"] for row in rows} >= {"IndexError in step redact.", "ValueError in step decontaminate."}
    assert "secret" not in str(rows)
    n_rows = N_ROWS
    for result in done.values():
        if isinstance(result, TicketTable | Splits):
            counts = result.rows
            assert counts.n_in == n_rows
            assert counts.n_in == counts.n_out + counts.n_quarantined + counts.n_dropped + counts.n_merged
            n_rows = counts.n_out
    assert n_rows == N_ROWS - 3


def test_faulty_rows_of_all_steps_count_against_one_limit_and_what_was_made_is_reused(folder: Path) -> None:
    """Each step alone is within the limit: 1 of 50."""
    with pytest.raises(
        DataError, match=r"2 of 50 rows read are quarantined \(4\.0%\), over fail_above 3\.0%"
    ) as caught:
        run(folder, fail_above=0.03)
    assert caught.value.code == "TG0220"
    assert "TG0218 1 times, first at t.jsonl:22 (IndexError in step redact.)" in caught.value.message
    with pytest.raises(DataError, match=r"3 of 50 rows read are quarantined \(6\.0%\), over fail_above 5\.0%"):
        run(folder, fail_above=0.05)
    done = run(folder, fail_above=0.06)
    store = Store(folder / "home")
    steps = curate_steps(
        spec(0.06), fingerprint=fingerprint_source(spec(0.06).source, root=folder), root=folder, cache=folder
    )
    assert {planned.state for planned in plan_steps(steps, store)} == {"reused"}
    with pytest.raises(DataError, match=r"2 of 50 rows read are quarantined"):
        run(folder, fail_above=0.03)  # every result is in the store now
    assert run(folder, fail_above=0.06)["split"].digest == done["split"].digest


def test_an_item_that_one_arm_cannot_be_asked_is_an_item_of_no_arm_and_counts_as_faulty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(folder, fail_above=0.08)
    splits = done["decontaminate"]
    assert isinstance(splits, Splits)
    ids = sorted(pq.read_table(splits.test).column("ticket_id").to_pylist())
    raise_on(
        monkeypatch, items, "messages_for",
        lambda given: given[0].system == "Base." and given[1]["ticket_id"] == ids[0],
    )  # fmt: skip

    def assess(fail_above: float) -> dict[str, Artifact]:
        declared = spec(fail_above, baseline_system="Base.", arms=["zero_shot", "few_shot"])
        found = dict(done)
        for step in assess_steps(declared, standing=Standing()):
            if step.name == "items" or step.kind == "prompts":
                found[step.name] = run_step(step, found, Store(folder / "home")).artifact
        return found

    found = assess(fail_above=0.08)
    chosen = found["items"]
    assert isinstance(chosen, EvalSet)
    assert describe(chosen) == f"{len(ids) - 1} held-out items of {len(ids)}, 1 quarantined"
    for name in ("prompts_zero_shot", "prompts_few_shot", "prompts_tuned"):
        asked = pq.read_table(found[name].root / "prompts.parquet").column("item_id").to_pylist()
        assert asked == ids[1:]
    for _ in range(2):  # not made because of the limit, then reused
        with pytest.raises(DataError, match=r"TG0220.*4 of 50 rows read.*KeyError in step items"):
            assess(fail_above=0.07)
