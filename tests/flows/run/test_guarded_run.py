"""`schema.fail_above` applies to all steps together, and faulty rows in one step do not affect later steps."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.build import PipelineGraph, build
from flows.context.graph_context import GraphContext
from flows.graph.execute import Run, run_plainly
from flows.graph.plan import plan
from flows.graph.store import Store
from flows.run.guarded_run import QuarantineGuard
from flows.views.phrases import describe
from schemas.artifacts import Splits, TicketTable
from schemas.errors import DataError
from schemas.pipeline import PipelineSpec
from tasks.assess import items
from tasks.curate import leaks
from tasks.curate.redaction import ticket
from tasks.curate.warehouse_query import quarantine_of
from tasks.sources.registry import fingerprint_source
from tests.support.plant import raise_on
from tests.support.specs import pipeline_spec

N_ROWS = 50
MODEL = f"hf://org/name@{'a' * 40}"
WORDS = "Kaboom my secret text, ann@example.org"


def spec(fail_above: float, **evaluate: Any) -> PipelineSpec:
    return pipeline_spec(
        source={"kind": "files", "paths": ["t.jsonl"]}, schema={"fail_above": fail_above}, train={"base_model": MODEL},
        curate={"steps": [{"uses": "redact"}, {"uses": "length", "min_body": 2}, {"uses": "dedup"}]},
        split={"by_time": False}, evaluate=evaluate,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """50 rows: one has no body, one raises in redaction and one in decontamination."""
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


def opened(folder: Path, declared: PipelineSpec) -> tuple[PipelineGraph, Run]:
    """The whole pipeline, before any step has run."""
    fingerprint = fingerprint_source(declared.source, root=folder)
    pipeline = build(declared, GraphContext(fingerprint=fingerprint, root=folder, cache=folder))
    return pipeline, Run(pipeline.graph, Store(folder / "home"), guard=QuarantineGuard(declared.table))


def curated(folder: Path, fail_above: float) -> tuple[PipelineGraph, Run]:
    pipeline, run = opened(folder, spec(fail_above))
    run_plainly(run, stage="curate", only=lambda node: node.kind == "step")
    return pipeline, run


def test_each_faulty_row_is_quarantined_by_its_step_and_no_row_is_lost(folder: Path) -> None:
    pipeline, run = curated(folder, fail_above=0.06)
    rows = quarantine_of(run.result(pipeline.curated.warehouse).database, limit=10)
    assert sorted((row["step"], row["ticket_id"], row["source_line"], row["code"]) for row in rows) == [
        ("decontaminate", "t33", 34, "TG0218"),
        ("redact", "t21", 22, "TG0218"),
        ("validate", "t07", 8, "TG0210"),
    ]
    assert {row["reason"] for row in rows} >= {"IndexError in step redact.", "ValueError in step decontaminate."}
    assert "secret" not in str(rows)
    n_rows = N_ROWS
    for name in run.graph.nodes:
        result = run.outcomes[name].result if name in run.outcomes else None
        if isinstance(result, TicketTable | Splits):
            counts = result.rows
            assert counts.n_in == n_rows
            assert counts.n_in == counts.n_out + counts.n_quarantined + counts.n_dropped + counts.n_merged
            n_rows = counts.n_out
    assert n_rows == N_ROWS - 3


def test_faulty_rows_of_all_steps_count_against_one_limit_and_results_are_reused(folder: Path) -> None:
    """Each step alone is within the limit, with 1 of 50."""
    with pytest.raises(
        DataError, match=r"TG0220.*2 of 50 rows read are quarantined \(4\.0%\), over fail_above 3\.0%"
    ) as caught:
        curated(folder, fail_above=0.03)
    assert "TG0218 1 times, first at t.jsonl:22 (IndexError in step redact.)" in caught.value.message
    with pytest.raises(DataError, match=r"3 of 50 rows read are quarantined \(6\.0%\), over fail_above 5\.0%"):
        curated(folder, fail_above=0.05)
    pipeline, run = curated(folder, fail_above=0.06)
    planned = plan(opened(folder, spec(0.06))[1])
    steps = [each for each in planned if each.node.stage == "curate" and each.node.kind == "step"]
    assert {each.state for each in steps} == {"reused"}
    with pytest.raises(DataError, match=r"2 of 50 rows read are quarantined"):
        curated(folder, fail_above=0.03)  # now every result is in the store
    again, second = curated(folder, fail_above=0.06)
    assert second.result(again.curated.split).digest == run.result(pipeline.curated.split).digest


def test_an_item_without_a_prompt_in_one_arm_is_left_out_of_all_arms_and_counts_as_faulty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, run = curated(folder, fail_above=0.08)
    test = run.result(pipeline.curated.clean).test
    ids = sorted(pq.read_table(test).column("ticket_id").to_pylist())
    raise_on(
        monkeypatch, items, "messages_for",
        lambda given: given[0].system == "Base." and given[1]["ticket_id"] == ids[0],
    )  # fmt: skip

    def prompted(fail_above: float) -> tuple[PipelineGraph, Run]:
        declared = spec(fail_above, baseline_system="Base.", arms=["zero_shot", "few_shot"])
        pipeline, run = opened(folder, declared)
        run_plainly(run, stage="curate", only=lambda node: node.kind == "step")
        run_plainly(run, stage="finetune", targets=tuple(pipeline.assessed.arms.prompts.values()))
        return pipeline, run

    pipeline, run = prompted(fail_above=0.08)
    assert (
        describe(run.result(pipeline.assessed.items)) == f"{len(ids) - 1} held-out items of {len(ids)}, 1 quarantined"
    )
    prompts = pipeline.assessed.arms.prompts
    assert set(prompts) == {"zero_shot", "few_shot", "tuned"}
    for each in prompts.values():
        found = pq.read_table(run.result(each).root / "prompts.parquet").column("item_id").to_pylist()
        assert found == ids[1:]
    for _ in range(2):  # first made, then reused
        with pytest.raises(DataError, match=r"TG0220.*4 of 50 rows read.*KeyError in step items"):
            prompted(fail_above=0.07)
