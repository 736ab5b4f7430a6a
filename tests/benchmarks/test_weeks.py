"""The simulated weeks: the same tickets for every policy, and none that is answered before it was trained on."""

from collections import Counter
from dataclasses import replace

from benchmarks.weeks import GONE, SHARES, WEEKS, Week, gone_tickets, summary, tickets_of


def test_each_week_has_its_products_and_no_ticket_comes_twice() -> None:
    weeks = tickets_of(1)
    assert len(weeks) == WEEKS + 1  # the last one is only answered
    assert [Counter(row["product"] for row in rows) for rows in weeks] == [Counter(shares) for shares in SHARES]
    bodies = [row["body"] for rows in [*weeks, gone_tickets(1)] for row in rows]
    assert len({*bodies}) == len(bodies)
    times = [row["created_at"] for rows in weeks for row in rows]
    assert times == sorted(times)
    assert {row["product"] for row in gone_tickets(1)} == {GONE}


def test_costs_are_added_up_per_seed_and_answers_are_those_after_the_last_week() -> None:
    first = Week("base", 1, 1, 72, 50, 1000, 2.0, coming=0.5, gone=0.25, general=1.0)
    weeks = [first, replace(first, week=2, n_steps=70, coming=0.75, general=0.5)]
    expected = {"steps": 120, "tokens": 2000, "seconds": 4, "coming": 0.625, "gone": 0.25, "general": 0.5}
    assert summary(weeks) == expected
    assert summary([*weeks, *(replace(each, seed=2) for each in weeks)]) == expected
