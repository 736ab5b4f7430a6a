"""Seconds per answer: both models answer in turn, and sealed files do not depend on the clock."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import LATENCY_FIGURES, ModelRef, PromptSet
from schemas.checks import LatencySpec
from schemas.evaluation import DecodingSpec
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training
from tasks.model.latency import measure_latency, summarise_rounds, take_rounds
from tasks.storage.files import seal
from tests.support.trained import save

SINGLE = {figure for figure in LATENCY_FIGURES if not figure.startswith("batch_")}
DECODING = DecodingSpec(max_new_tokens=3, batch_size=8, threads=1, dtype="float32")


def test_both_models_answer_in_turn_and_alternate_who_is_first() -> None:
    order: list[str] = []

    def ask(name: str) -> Callable[[str], tuple[float, int]]:
        return lambda item: (order.append(f"{name}{item}"), (1.0, 1))[1]  # type: ignore[func-returns-value]

    rounds = take_rounds(ask("a"), ask("b"), ["1", "2"], repeats=2)
    assert order == ["a1", "b1", "a1", "b1", "b2", "a2", "b1", "a1", "a2", "b2"]  # the first two are warm-up
    assert [(len(ours), len(theirs)) for ours, theirs in rounds] == [(2, 2), (2, 2)]


def test_a_limit_is_checked_round_by_round() -> None:
    slow, quick = [(2.0, 10), (2.0, 10)], [(1.0, 10), (1.0, 10)]
    figures, kept = summarise_rounds(
        [(slow, quick), (quick, quick)], p95_ratio_max=1.5, usd_per_hour=3.6, usd_per_1k_max=1.0
    )
    assert kept == {"rounds": 2.0, "latency_within": 1.0, "cost_within": 1.0}
    assert figures["usd_per_1k"] == pytest.approx(1.5)
    assert (figures["tokens_per_s"], figures["reference_tokens_per_s"]) == (pytest.approx(40 / 6), 10.0)
    assert set(figures) == SINGLE


def test_seconds_are_reported_and_the_evidence_has_equal_bytes(tiny_model: ModelRef, tmp_path: Path) -> None:
    spec = TrainSpec(base_model="file:tiny", dtype="float32")
    trained = save(open_for_training(tiny_model, spec), spec, tiny_model, tmp_path / "trained")
    trained = trained.model_copy(update={"digest": seal(trained.root)})
    turns = [f'[{{"role":"user","content":"Lamp number {number} does not work."}}]' for number in range(4)]
    table = {"item_id": [f"i{number}" for number in range(4)], "messages": turns, "answer": ["Sorry."] * 4}
    pq.write_table(pa.table(table), tmp_path / "prompts.parquet")
    prompts = PromptSet(root=tmp_path, arm="tuned", format="instruction", n_items=4)
    reports: list[dict[str, float]] = []
    written = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        evidence = measure_latency(
            prompts=prompts, model=tiny_model, trained=trained, reference_prompts=prompts, reference_model=tiny_model,
            decoding=DECODING, spec=LatencySpec(n_prompts=3, repeats=2, batch_sizes=(2, 4)), usd_per_hour=1.0, out=out,
            progress=lambda _done, _total, _unit, **figures: reports.append(figures),
        )  # fmt: skip
        written.append((evidence.values, (out / "evidence.json").read_bytes()))
    assert written[0] == written[1]
    assert evidence.n_items == 3
    assert set(reports[0]) == {*SINGLE, "batch_2_s"}  # four are more than the three prompts
    assert all(value > 0 for value in reports[0].values())
