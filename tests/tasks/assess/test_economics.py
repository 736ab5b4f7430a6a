"""The economics, held to figures that were computed by hand; the price book; no figure without a measurement."""

import math
import os
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flows.cli.output import Result, render
from flows.cli.study import costs_text, payback_sentences
from flows.views.advice import AdviceEvidence, conclude
from schemas.costs import CardLine, CostReport, QueryLine
from schemas.errors import GateError
from tasks.assess.economics import (
    MAX_BYTES,
    ApiPrice,
    GpuPrice,
    Measures,
    PriceBook,
    Volume,
    bandwidth_bound_s,
    break_even_queries,
    cards_needed,
    compute_costs,
    hosted_usd_per_query,
    payback_days,
    read_prices,
)

LLAMA_2_7B = 6_738_415_616


def test_a_hosted_query_and_one_of_the_small_api_cost_what_was_computed_by_hand() -> None:
    assert hosted_usd_per_query(usd_per_hour=0.80, seconds_per_query=1.35) == pytest.approx(0.0003)
    assert read_prices().apis["small"].usd(500, 200) == pytest.approx(0.000195)


@pytest.mark.parametrize(
    ("api", "rent", "queries"), [(0.01, 500, 50_000), (0.01, 2000, 200_000), (0.03, 500, 16_667), (0.03, 2000, 66_667)]
)
def test_break_even_is_rent_over_the_price_of_a_query(api: float, rent: float, queries: int) -> None:
    assert round(break_even_queries(usd_per_month=rent, api_usd_per_query=api)) == queries


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


@pytest.mark.timeout(60)
def test_a_price_book_that_never_ends_is_too_large_or_is_not_utf8_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "bytes").write_bytes(b"\xff")
    for path, message in (
        (tmp_path / "pipe", "a pipe, a device"), (Path("/dev/zero"), "a pipe, a device"),
        (tmp_path / "large", "larger than"), (tmp_path / "bytes", "UnicodeDecodeError"),
    ):  # fmt: skip
        with pytest.raises(GateError, match=rf"TG0612.*{message}"):
            read_prices(path)


def test_every_price_is_dated_and_says_where_it_comes_from(tmp_path: Path) -> None:
    book = read_prices()
    assert book.dated
    assert all(price.source for price in [*book.gpus.values(), *book.apis.values()])
    assert book.gpus["h100"].usd_per_month() == pytest.approx(2920)
    path = tmp_path / "prices.yaml"
    for text in ("dated: '2026-06-01'\ngpus: {l4: {usd_per_hour: 1}}\napis: {}\n", "gpus: {}\napis: {}\n", "["):
        path.write_text(text)
        with pytest.raises(GateError, match="TG0612"):
            read_prices(path)
    with pytest.raises(GateError):
        read_prices(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="usd_per_m_in"):
        ApiPrice(usd_per_m_in=-1, usd_per_m_out=0, source="x")


def known(**change: Any) -> Measures:
    plain: dict[str, Any] = {
        "n_parameters": LLAMA_2_7B,
        "weight_bytes": 2 * LLAMA_2_7B,
        "reply_tokens": 200.0,
        "prompt_tokens": {"tuned": 120.0, "few_shot": 500.0, "zero_shot": 150.0},
        "measured": {"tokens_per_s": 40.0},
        "batched_seconds": 0.9,
        "training_seconds": 3600.0,
    }
    return Measures(**{**plain, **change})


def test_a_report_has_the_bound_the_saved_tokens_the_own_lines_and_every_api() -> None:
    report = compute_costs(read_prices(), known(), machine="l4", volume=Volume(1e6), one_off_usd=464)
    lines = {line.what: line for line in report.queries}
    assert lines["own model, one at a time, on l4"].seconds == 5.0
    assert lines["own model, one at a time, on l4"].usd == pytest.approx(0.8 * 5 / 3600)
    assert lines["own model, in the evaluation's batches, on l4"].usd == pytest.approx(0.8 * 0.9 / 3600)
    assert lines["API small, few_shot prompt"].usd_per_month == pytest.approx(195)
    assert report.saved_tokens == 380
    assert report.saved_usd_per_1k["small"] == pytest.approx(1000 * 380 * 0.15e-6)
    assert [round(card.least_seconds, 1) for card in report.cards] == [9.0, 4.5, 1.3, 0.8]
    assert report.cards[0].most_queries == pytest.approx(730 * 3600 / report.cards[0].least_seconds)
    assert report.one_off_usd == pytest.approx(464.8)  # an hour of an L4 beside what was given
    one, batch = lines["own model, one at a time, on l4"], lines["own model, in the evaluation's batches, on l4"]
    assert [(line.n_cards, line.usd_per_month) for line in (one, batch)] == [(4, 4 * 584), (1, 584)]
    assert one.idle_share == pytest.approx(1 - 1e6 * 5 / (4 * 730 * 3600))
    days = {line.api: line.days for line in report.payback}
    assert days["small"] is None  # rent is 584, the API costs 195 a month
    assert days["large"] == pytest.approx(464.8 / (11_000 - 584) * 730 / 24)


def test_without_a_card_a_volume_or_a_measurement_no_figure_is_supposed() -> None:
    report = compute_costs(
        read_prices(), known(measured={}, batched_seconds=None, prompt_tokens={"tuned": 120.0}), one_off_usd=0
    )
    assert [line.what for line in report.queries] == ["API small", "API large"]
    assert (report.saved_tokens, report.one_off_usd, report.payback) == (None, None, ())
    message = " ".join(report.notes)
    for words in ("gates.latency", "--machine", "--queries", "few_shot"):
        assert words in message
    unpriced = compute_costs(read_prices(), known())
    assert [line.usd for line in unpriced.queries if line.what.startswith("own")] == [None, None]


def test_tickets_that_are_routed_and_the_hours_of_review_are_counted() -> None:
    routing = known(routed_share=0.6, minutes_per_review=3.0)
    report = compute_costs(read_prices(), routing, volume=Volume(50_000))
    assert report.routed_per_month == pytest.approx(30_000)
    assert report.review_minutes == pytest.approx(1.2)
    assert report.review_hours_per_month == pytest.approx(1000)
    [line] = [each for each in map(str, costs_text(report, title="t")) if "without a person" in each]
    assert line == (
        "routed without a person: 60.0 % of tickets, 30,000 of 50,000 a month; review takes 1.20 minutes a ticket, "
        "1,000 hours a month"
    )
    alone = compute_costs(read_prices(), known())
    assert (alone.routed_share, alone.review_minutes) == (None, None)
    assert not [each for each in map(str, costs_text(alone, title="t")) if "without a person" in each]


def test_an_api_for_nothing_is_never_beaten_by_rent() -> None:
    book = PriceBook(
        dated="2026-01-01",
        gpus={"card": GpuPrice(usd_per_hour=1, bandwidth_gb_s=100, source="x")},
        apis={"free": ApiPrice(usd_per_m_in=0, usd_per_m_out=0, source="x")},
    )
    report = compute_costs(book, known(), machine="card", volume=Volume(1e9))
    assert report.cards[0].break_even == {"free": None}
    assert report.payback[0].days is None
    assert break_even_queries(usd_per_month=1, api_usd_per_query=0) == math.inf


def test_a_volume_beyond_one_card_rents_more_of_them_and_no_break_even_exceeds_what_a_card_serves() -> None:
    # One card of 50.5 million queries a month and a small API: 100 million need two cards, at full use.
    seconds = 730 * 3600 / 50.5e6
    report = compute_costs(
        read_prices(), known(given_seconds=seconds, prompt_tokens={"tuned": 100.0}, reply_tokens=10.0),
        machine="h100", volume=Volume(100e6, 1.0), one_off_usd=500,
    )  # fmt: skip
    (own,) = (line for line in report.queries if line.what.startswith("own"))
    assert (own.what, own.n_cards, own.usd_per_month) == ("own model, as given, on h100", 2, 5840)
    assert own.usd_at_volume == pytest.approx(5840 / 100e6)
    card = next(card for card in report.cards if card.card == "h100")
    assert (card.measured, card.serves) == (True, pytest.approx(50.5e6))
    slow = compute_costs(read_prices(), known(given_seconds=3.6), machine="h100", volume=Volume(1e6, 0.5))
    (own,) = (line for line in slow.queries if line.what.startswith("own"))
    assert own.usd == pytest.approx(0.004)
    assert next(card for card in slow.cards if card.card == "h100").break_even["small"] is None
    assert [line.days for line in slow.payback if line.api == "small"] == [None]


def test_the_batching_curve_is_one_line_per_batch_size() -> None:
    report = compute_costs(
        read_prices(), known(measured={"tokens_per_s": 40.0, "batch_4_s": 6.0, "batch_16_s": 8.0}), machine="l4"
    )
    curve = {line.what: (line.seconds, line.wait_s) for line in report.queries if line.wait_s is not None}
    assert curve == {
        "own model, one at a time, on l4": (5.0, 5.0),
        "own model, batches of 4, on l4": (1.5, 6.0),
        "own model, batches of 16, on l4": (0.5, 8.0),
    }


def test_every_number_of_a_sentence_follows_from_the_table_over_a_thousand_settings() -> None:
    random, book = Random(7), read_prices()
    outcomes = set()
    for _ in range(1000):
        utilisation = random.choice([1.0, 0.5, random.uniform(0.01, 1)])
        queries, machine = 10 ** random.uniform(0, 9), random.choice([*book.gpus])
        figures: dict[str, Any] = {"tokens_per_s": 10 ** random.uniform(0, 4), "batch_8_s": 10 ** random.uniform(-2, 2)}
        report = compute_costs(
            book,
            known(
                reply_tokens=10 ** random.uniform(0, 3),
                prompt_tokens={"tuned": 80.0, "few_shot": 10 ** random.uniform(1, 4)},
                measured=figures if random.random() < 0.7 else {},
                batched_seconds=random.choice([None, 10 ** random.uniform(-4, 2)]),
                given_seconds=random.choice([None, None, 10 ** random.uniform(-4, 2)]),
            ),
            machine=machine, volume=Volume(queries, utilisation), one_off_usd=random.choice([0, 500, 1e5]),
        )  # fmt: skip
        own = [line for line in report.queries if line.what.startswith("own")]
        apis = {line.what.removeprefix("API ").partition(",")[0]: line for line in report.queries if line not in own}
        month_s, rent = 730 * 3600, book.gpus[machine].usd_per_hour * 730
        for line in own:
            assert line.seconds is not None
            assert line.n_cards == max(1, math.ceil(queries * line.seconds / (month_s * utilisation)))
            assert line.usd_per_month == pytest.approx(line.n_cards * rent)
            assert line.usd_at_volume == pytest.approx(line.n_cards * rent / queries)
            assert line.idle_share == pytest.approx(1 - queries * line.seconds / (line.n_cards * month_s), abs=1e-9)
            assert line.idle_share >= 1 - utilisation - 1e-9
        for card in report.cards:
            for name, api in apis.items():
                check_range(card, name, api.usd or 0)
        card = next(card for card in report.cards if card.card == machine)
        fewest = min((line.n_cards or 0 for line in own), default=0)
        for payback in report.payback:
            # A card's cell is about one card, the sentence about the cards of the volume: they agree where both apply.
            within = bool(re.fullmatch(r"[\d,]+ to [\d,]+", card.pays_at(payback.api))) and (
                (card.break_even[payback.api] or 0) <= queries <= (card.serves or 0)
            )
            assert within == (payback.days is not None and fewest == 1)
            outcomes.add(("one card", within))
        assert bool(report.payback) == bool(own)
        for payback, sentence in zip(report.payback, payback_sentences(report), strict=True):
            line, api = next(line for line in own if line.what == payback.own), apis[payback.api]
            saved = (api.usd_per_month or 0) - (line.usd_per_month or 0)
            # Paid back exactly if the table's own query costs less than the API's.
            assert (payback.days is not None) == (saved > 0) == ((line.usd_at_volume or 0) < (api.usd_at_volume or 0))
            outcomes.add(payback.days is not None)
            days = [] if payback.days is None else [f"{(report.one_off_usd or 0) / saved * 730 / 24:,.1f}"]
            assert numbers(sentence, report) <= {*days, *printed(line), *printed(api)}
        advice = conclude(AdviceEvidence("desk", costs=report, card=machine, queries=queries))
        (cost,) = (reason for reason in (*advice.reasons, *advice.missing) if reason.rule == "cost")
        cheap, rents = min(apis.values(), key=lambda line: line.usd or 0), {f"{rent:,.2f}", f"{queries:,.0f}"}
        assert numbers(cost.evidence, report) <= {
            *rents,
            *printed(cheap),
            *(text for line in own for text in printed(line)),
        }
        least = min((line.usd_per_month or 0 for line in own), default=rent)
        assert cost.says == ("API" if (cheap.usd_per_month or 0) <= least else "own model" if own else "missing")
        outcomes.add(cost.says)
        missing = conclude(AdviceEvidence("desk", costs=unplanned(report), card=machine))
        (cost,) = (reason for reason in missing.missing if reason.rule == "cost")
        name = cheap.what.removeprefix("API ").partition(",")[0]
        assert cost.evidence.endswith(
            "not less within that" if card.break_even[name] is None else f"less at {card.pays_at(name)}"
        )
    assert outcomes == {True, False, "API", "own model", "missing", ("one card", True), ("one card", False)}


def check_range(card: CardLine, api: str, usd: float) -> None:
    """At both printed ends one card is enough and costs less; one query beyond, it costs more or a second is needed."""
    capacity, text = card.serves or 0, card.pays_at(api)
    if " to " not in text:
        assert capacity * usd <= card.usd_per_month * (1 + 1e-9)
        return
    first, last = (int(each.replace(",", "")) for each in text.split(" to "))
    assert last == capacity
    assert first <= last
    assert (first - 1) * usd <= card.usd_per_month * (1 + 1e-12) < first * usd * (1 + 2e-12)


def unplanned(report: CostReport) -> CostReport:
    """The same costs without a volume."""
    queries = tuple(
        line.model_copy(update=dict.fromkeys(("n_cards", "idle_share", "usd_at_volume", "usd_per_month")))
        for line in report.queries
    )
    return report.model_copy(update={"queries_per_month": None, "queries": queries, "payback": ()})


def test_a_break_even_ends_where_a_second_card_is_rented() -> None:
    # The sentence says "never paid back" at 21 million queries; the table must not say "from 14,974,359" there.
    def costs(queries: float) -> CostReport:
        return compute_costs(
            read_prices(), known(given_seconds=0.132, prompt_tokens={"tuned": 500.0}), machine="h100",
            volume=Volume(queries, 1.0), one_off_usd=500,
        )  # fmt: skip

    card = next(card for card in costs(21e6).cards if card.card == "h100")
    assert card.pays_at("small") == "14,974,359 to 19,909,090"
    paid = {}
    for queries in (14_974_358, 14_974_359, 19_909_090, 19_909_091, 21_000_000, 2 * 14_974_359, 2 * 19_909_090):
        report = costs(queries)
        paid[queries] = (
            report.queries[0].n_cards, next(line.days is not None for line in report.payback if line.api == "small")
        )  # fmt: skip
    assert list(paid.values()) == [
        (1, False), (1, True), (1, True), (2, False), (2, False), (2, True), (2, True)
    ]  # fmt: skip
    cost = conclude(AdviceEvidence("desk", costs=unplanned(costs(21e6)), card="h100")).missing
    assert any("less at 14,974,359 to 19,909,090" in reason.evidence for reason in cost)


def test_the_rounding_of_a_division_rents_no_card() -> None:
    for busy_s in (0.07, 0.132, 0.3, 1.1):
        full = 730 * 3600 / busy_s
        assert [cards_needed(queries_per_month=n * full, seconds_per_query=busy_s) for n in (1, 3, 7)] == [1, 3, 7]


def test_the_utilisation_is_printed_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    for given, shown in ((0.015, "1.5"), (0.07, "7"), (0.5, "50"), (1.0, "100")):
        report = compute_costs(read_prices(), known(), volume=Volume(1e6, given))
        render(Result(None, costs_text(report, title="costs")), as_json=False)
        assert f"at most {shown} % of a month" in " ".join(capsys.readouterr().out.split())


def printed(line: QueryLine) -> set[str]:
    """The line's figures, as the table shows them."""
    return {
        f"{line.usd or 0:.6f}", f"{line.usd_at_volume or 0:.6f}", f"{line.usd_per_month or 0:,.2f}",
        f"{line.n_cards or 0:,}", f"{100 * (line.idle_share or 0):.1f}",
    }  # fmt: skip


def numbers(sentence: str, report: CostReport) -> set[str]:
    """The numbers of a sentence, without those in names."""
    for name in (*(line.what for line in report.queries), *(card.card for card in report.cards)):
        sentence = sentence.replace(name, "")
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", sentence))
