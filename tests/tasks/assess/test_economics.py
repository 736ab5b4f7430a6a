"""Break-even, payback and the bandwidth bound, held to figures that were computed by hand; the price book."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from schemas.errors import GateError
from tasks.assess.economics import (
    ApiPrice,
    bandwidth_bound_s,
    break_even_queries,
    payback_days,
    read_prices,
)

LLAMA_2_7B = 6_738_415_616


def test_a_million_queries_at_the_hosted_price_cost_three_hundred_dollars_and_a_small_api_less() -> None:
    assert pytest.approx(300) == 1e6 * 0.0003
    small = read_prices().apis["small"]
    assert small.usd_per_query(500, 200) == pytest.approx(0.000195)
    assert small.usd_per_query(500, 200) < 0.0003


@pytest.mark.parametrize(
    ("api", "rent", "queries"), [(0.01, 500, 50_000), (0.01, 2000, 200_000), (0.03, 500, 16_667), (0.03, 2000, 66_667)]
)
def test_break_even_is_rent_over_the_price_of_a_query(api: float, rent: float, queries: int) -> None:
    assert round(break_even_queries(usd_per_month=rent, api_usd_per_query=api)) == queries


def test_rent_never_pays_against_an_api_for_nothing() -> None:
    assert break_even_queries(usd_per_month=500, api_usd_per_query=0) == math.inf


def days(api: float, queries: float, rent: float = 0.0, own: float = 0.0) -> float:
    return payback_days(
        one_off_usd=500, queries_per_month=queries, api_usd_per_query=api, usd_per_month=rent, own_usd_per_query=own
    )


def test_a_run_of_five_hundred_dollars_pays_back_in_a_week_only_at_high_volume() -> None:
    assert days(0.01, 417_000, rent=2000) == pytest.approx(7, abs=0.02)
    assert days(0.03, 89_000, rent=500) == pytest.approx(7, abs=0.02)
    assert days(0.01, 50_000, rent=500) == math.inf  # at break-even nothing is saved
    assert days(0.01, 10_000, own=0.0003) > 150
    assert days(0.000195, 1e9, own=0.0003) == math.inf  # the small API is cheaper than the own model


@pytest.mark.parametrize(("card", "seconds"), [("l4", 9.0), ("a10g", 4.5), ("a100-80", 1.3), ("h100", 0.8)])
def test_a_reply_of_two_hundred_tokens_of_a_7b_takes_at_least(card: str, seconds: float) -> None:
    gpu = read_prices().gpus[card]
    least = bandwidth_bound_s(weight_bytes=2 * LLAMA_2_7B, bandwidth_gb_s=gpu.bandwidth_gb_s, n_tokens=200)
    assert round(least, 1) == seconds


def test_every_price_is_dated_and_says_where_it_comes_from(tmp_path: Path) -> None:
    book = read_prices()
    assert book.dated
    assert all(price.source for price in [*book.gpus.values(), *book.apis.values()])
    assert book.gpus["h100"].usd_per_month() == pytest.approx(2920)
    path = tmp_path / "prices.yaml"
    for text in ("dated: '2026-06-01'\ngpus: {l4: {usd_per_hour: 1}}\napis: {}\n", "gpus: {}\napis: {}\n", "["):
        path.write_text(text)
        with pytest.raises(GateError) as raised:
            read_prices(path)
        assert raised.value.code == "TG0612"
    with pytest.raises(GateError):
        read_prices(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="usd_per_m_in"):
        ApiPrice(usd_per_m_in=-1, usd_per_m_out=0, source="x")
