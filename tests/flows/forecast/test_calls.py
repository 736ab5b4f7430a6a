"""What a plan says of calls that cost: twice a pair, labels counted, a price only where one is known."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.forecast.calls import endpoint_calls, judge_calls, latency_calls
from schemas.artifacts import EvalSet
from schemas.checks import JudgeSpec, LatencySpec
from schemas.evaluation import EndpointSpec
from tasks.assess.economics import read_prices


def judge(*, model: str = "small", external: bool = True, n_items: int = 100) -> JudgeSpec:
    address = {"base_url": "https://judge.example/v1", "privacy": "external"}
    local = {"base_url": "http://127.0.0.1:9/v1"}
    endpoint = EndpointSpec.model_validate({"model": model, **(address if external else local)})
    return JudgeSpec(endpoint=endpoint, criteria="x" * 100, n_items=n_items)


@pytest.fixture
def items(tmp_path: Path) -> EvalSet:
    columns = {"subject": ["s" * 20, None], "body": ["b" * 200, "b" * 100], "answer": ["a" * 40, "a" * 80]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    return EvalSet(root=tmp_path, n_items=2, n_available=2)


def test_a_judge_is_called_twice_a_pair_and_labels_are_pairs(items: EvalSet) -> None:
    calls = judge_calls(judge(), items=items, n_items=None, n_labels=100, book=read_prices())
    assert calls.calls == 2 * (2 + 100)
    chars = 100 + 320 / 2 + 2 * 120 / 2  # criteria, question, two answers as long as the reference
    assert calls.tokens_in == round(204 * chars / 4)
    assert calls.tokens_out == 204 * 8
    assert calls.usd == pytest.approx((calls.tokens_in * 0.15 + calls.tokens_out * 0.60) / 1e6)


def test_only_an_external_model_of_the_price_book_has_a_price(items: EvalSet) -> None:
    book = read_prices()
    unknown = judge_calls(judge(model="other"), items=items, n_items=None, n_labels=0, book=book)
    local = judge_calls(judge(external=False), items=items, n_items=None, n_labels=0, book=book)
    assert (unknown.usd, local.usd) == (None, None)
    assert "add other to the price book" in unknown.note
    assert "its machine" in local.note


def test_before_the_items_are_known_calls_are_expected_or_nothing_is_said() -> None:
    book = read_prices()
    expected = judge_calls(judge(n_items=30), items=None, n_items=96, n_labels=0, book=book)
    assert (expected.calls, expected.tokens_in, expected.usd) == (60, None, None)
    assert judge_calls(judge(), items=None, n_items=None, n_labels=0, book=book).calls is None
    spec = EndpointSpec(base_url="http://127.0.0.1:8000/v1", model="m")
    asked = endpoint_calls(spec, items=None, n_items=96, max_new_tokens=80, book=book)
    assert (asked.calls, asked.tokens_out) == (96, 7680)


def test_a_latency_check_answers_both_models_prompts_and_a_warm_up() -> None:
    spec, few = LatencySpec(n_prompts=16, repeats=3), {"n_items": 200, "limited": True, "seconds_each": 0.5}
    calls = latency_calls(spec, against="the champion", **few)
    assert (calls.calls, calls.seconds) == (98 + 2 * 16, 65.0)
    assert "the champion" in calls.note
    assert latency_calls(spec, against="the base model", **few | {"seconds_each": None}).seconds is None
    every = latency_calls(LatencySpec(), against="the champion", **few)
    assert every.calls == 2 * 201 + 2 * 64  # the curve takes 64 of them
    assert "200 prompts, alternating with the champion" in every.note
    assert "on a CPU, which only reports, 16 prompts" in every.note
    assert latency_calls(LatencySpec(), against="the champion", **few | {"n_items": None}).calls is None
