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
from tasks.storage.sealed_folder import seal
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


def test_an_item_counts_once_whatever_the_number_of_rounds() -> None:
    slow, quick = [(2.0, 10), (3.0, 10)], [(1.0, 10), (1.0, 10)]
    figures, shown = summarise_rounds(
        [(slow, quick), (quick, quick), (slow, quick)], p95_ratio_max=1.5, usd_per_hour=3.6, usd_per_1k_max=1.0
    )
    assert shown == {"latency_shown": 0.0, "cost_shown": 0.0}  # two items show nothing
    assert figures["usd_per_1k"] == pytest.approx(2.5)
    assert (figures["latency_p50_s"], figures["latency_p95_s"]) == (2.0, 3.0)
    assert (figures["tokens_per_s"], figures["reference_tokens_per_s"]) == (pytest.approx(60 / 12), 10.0)
    assert set(figures) == SINGLE
    many = [tuple([(factor + factor * place / 60, 10) for place in range(60)] for factor in (2.0, 1.0))]
    limits = {"usd_per_hour": 3.6, "usd_per_1k_max": 1.0}
    assert summarise_rounds(many, p95_ratio_max=1.5, **limits)[1]["latency_shown"] == -1.0
    assert summarise_rounds(many, p95_ratio_max=2.5, **limits)[1]["latency_shown"] == 1.0


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
