"""What a proposed gate guards, with which price."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.load import load_file
from tasks.start.guards import (
    Guards,
    ReplyRange,
    as_counted,
    guard_customers,
    guard_reply,
    guard_slices,
    propose_guards,
    reply_range,
)
from tasks.start.held_out import SplitShares
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import propose_pipeline
from tests.tasks.start.conftest import WriteCsv, ticket

APART = ReplyRange(right=0.46, wrong=0.36, spread=0.12)


def customers(n_items: int, n_customers: int) -> SplitShares:
    """The parts of 10,000 tickets."""
    crowd = n_items / n_customers
    return SplitShares(0.8, n_items / 10_000, 0.0, customers=n_customers / 10_000, crowd=crowd)


@pytest.mark.parametrize(
    ("n_items", "found", "metric", "margin"),
    [(60, APART, "reply", 0.15), (100, APART, "reply", 0.1), (319, APART, "reply", 0.1), (320, APART, "chrf", 0.025),
     (1000, None, "reply", 0.1), (1000, replace(APART, wrong=0.45), "reply", 0.1),
     (400, replace(APART, spread=0.3), "reply", 0.1), (2000, replace(APART, spread=0.3), "chrf", 0.025)],
)  # fmt: skip
def test_replies_are_judged_by_chrf_where_it_tells_right_from_wrong_with_these_items(
    n_items: int, found: ReplyRange | None, metric: str, margin: float
) -> None:
    rule, note, spread = guard_reply(found, n_items=n_items)
    assert (rule.metric, rule.change_threshold and rule.change_threshold.margin) == (metric, margin)
    assert rule.change_threshold is not None
    assert rule.change_threshold.mode == "no_worse"
    assert (spread is not None) == (metric == "chrf")
    assert "Price in power: an equal candidate is held in" in note


def test_the_range_of_chrf_is_that_of_right_and_wrong_replies(shared_data: Path) -> None:
    path = shared_data / "bitext_support" / "bitext_support_training_2023-08-18.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        tickets = [(row["intent"], row["response"]) for row in csv.DictReader(stream)][::5]
    found = reply_range(tickets)
    assert found is not None
    assert 0.42 < found.right < 0.5
    assert 0.32 < found.wrong < 0.39
    assert guard_reply(found, n_items=500)[0].metric == "chrf"
    assert reply_range([("one", reply) for _, reply in tickets[:100]]) is None  # no other label is wrong
    assert reply_range([]) is None


def test_slices_with_items_enough_are_guarded_and_their_price_is_named() -> None:
    columns, note = guard_slices({"product": (500, 300, 200), "category": (990, 10)}, n_items=500)
    assert columns == ("product",)  # the other category has 5 items
    assert "12 points in the largest slice" not in note
    assert "the smallest of 3 with 20 or more (100 items)" in note
    price = float(note.partition("Price in power: blocks ")[2].partition(" %")[0])
    assert 0 <= price <= 1
    assert guard_slices({"product": (1,) * 900}, n_items=500) == ((), "")
    assert guard_slices({}, n_items=500) == ((), "")


def test_customers_are_counted_where_they_have_several_tickets() -> None:
    assert guard_customers(customers(500, 450), 10_000, continuous=False) == (None, "")
    many, note = guard_customers(customers(500, 125), 10_000, continuous=False)
    assert many == "cluster_by"
    assert "500 held-out tickets come from 125 customers" in note
    assert "500 of them prove as much as 312 single ones" in note
    # Where fewer are answered than there are customers, one of each costs nothing.
    part, note = guard_customers(customers(500, 125), 10_000, continuous=False, n_answered=120)
    assert part == "one_per"
    assert "Price in power: none" in note
    assert guard_customers(customers(500, 125), 10_000, continuous=False, n_answered=250)[0] == "cluster_by"
    few, note = guard_customers(customers(400, 70), 10_000, continuous=False)
    assert few == "one_per"
    assert "Price in power: 70 items instead of 400" in note
    # Of so few nothing is known, and a continuous metric needs 320 items.
    assert guard_customers(customers(400, 30), 10_000, continuous=False)[0] is None
    assert "more often than the confidence says" in guard_customers(customers(400, 30), 10_000, continuous=False)[1]
    assert guard_customers(customers(400, 70), 10_000, continuous=True)[0] == "cluster_by"
    assert as_counted(customers(400, 70), 10_000, continuous=False).held_out == 70 / 10_000
    assert as_counted(customers(500, 125), 10_000, continuous=False).held_out == 500 / 10_000


def test_without_a_label_or_replies_there_is_less_to_guard() -> None:
    def guards(*learned: bool) -> Guards:
        return propose_guards(
            APART, customers(500, 500), {"product": (500, 500)}, learned=(learned[0], learned[1]), n_tickets=10_000,
            n_items=500,
        )  # fmt: skip

    both, replies, labels = guards(True, True), guards(True, False), guards(False, True)
    assert (both.reply is not None, both.slices, both.spread) == (True, ("product",), 0.12)
    assert (replies.reply, replies.slices) == (None, ())
    assert (labels.reply, labels.slices) == (None, ("product",))


def test_a_proposed_file_has_the_guards_that_its_columns_allow(write_csv: WriteCsv, tmp_path: Path) -> None:
    rows = [
        {**ticket(n), "Requester": f"cust{n // 2}", "Product": ("lamp", "desk")[n % 2],
         "Created": f"2026-01-{1 + n // 24:02d}T{n % 24:02d}:15:00Z"}
        for n in range(560)
    ]  # fmt: skip
    proposal = propose_pipeline(write_csv(rows), name=None, root=tmp_path)
    (tmp_path / "pipelines.yaml").write_text(write_pipeline(proposal))
    spec = load_file(tmp_path / "pipelines.yaml").get("tickets")
    assert spec.gates.slices is not None
    assert spec.gates.slices.by == ("product", "category")
    assert spec.gates.slices.metric == "field_category"
    assert proposal.guards.customers == "one_per"
    assert spec.evaluate.one_per == "customer_id"
    assert 50 <= proposal.sizes.n_held_out < 90
    assert [rule.metric for rule in spec.gates.rules][-1] == "reply"
    assert "reply" in spec.evaluate.metric_names()
