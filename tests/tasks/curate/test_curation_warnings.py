"""Warnings of a run: rules that drop more than 5 %, straddlers with what alternatives lose, a grown test share."""

from datetime import datetime
from pathlib import Path

import pytest

from schemas.artifacts import RowCounts, Splits, TicketTable
from schemas.curation import SplitSpec
from tasks.curate.curation_warnings import NO_TIMES, curation_warnings


def table(n_in: int, **notes: int) -> TicketTable:
    n_dropped = sum(n for name, n in notes.items() if name.startswith("dropped_"))
    return TicketTable(
        root=Path("x"), rows=RowCounts(n_in=n_in, n_out=n_in - n_dropped, n_dropped=n_dropped), notes=notes
    )


def split_of(n_in: int, **notes: int) -> Splits:
    return Splits(
        root=Path("x"), rows=RowCounts(n_in=n_in, n_out=n_in), n_train=n_in, n_validation=0, n_test=0, notes=notes,
        cut=datetime(2026, 6, 1),
    )  # fmt: skip


def warnings(*tables: tuple[str, TicketTable], split: Splits | None = None, **spec: object) -> list[str]:
    return curation_warnings(tables, split or split_of(100), SplitSpec.model_validate(spec), pipeline="desk")


def test_a_rule_that_drops_more_than_five_percent_is_named_with_its_share() -> None:
    steps = ("rules", table(1000, dropped_few=50, dropped_many=51)), ("cap", table(0, dropped_cap=0))
    assert warnings(*steps) == [
        "rules drops 51 of 1,000 rows (5.1%) by `many`; `tunegate data funnel desk --reasons` shows all rules"
    ]
    sql = TicketTable(root=Path("x"), rows=RowCounts(n_in=10, n_out=4, n_dropped=6))
    assert [text.partition(";")[0] for text in warnings(("sql", sql))] == ["sql drops 6 of 10 rows (60.0%) by `sql`"]


@pytest.mark.parametrize(
    ("spec", "offers"),
    [
        ({}, "`keep_early` 300, `keep_late` 500"),
        ({"straddlers": "keep_early"}, "`keep_late` 500"),
        ({"straddlers": "keep_late"}, "`keep_early` 300"),
    ],
)
def test_the_loss_of_straddlers_is_reported_with_that_of_the_other_settings(
    spec: dict[str, object], offers: str
) -> None:
    counts = {"dropped_straddles_cut_early": 80, "dropped_straddles_cut_late": 140}
    split = split_of(1000, straddling_early=500, straddling_late=300, **counts)
    assert warnings(split=split, **spec) == [
        "split drops 220 of 1,000 rows (22.0%) of customers and threads on both sides of the cut: 80 before it, 140 "
        f"after it; with `split.straddlers` it would drop: {offers}"
    ]
    (continued,) = warnings(split=split_of(1000, new_tickets=9, **counts))
    assert "straddlers" not in continued


def test_a_split_by_customer_alone_is_named_unless_it_is_declared() -> None:
    split = split_of(100).model_copy(update={"cut": None})
    assert warnings(split=split) == [NO_TIMES]
    assert warnings(split=split, by_time=False) == []


def test_a_grown_test_share_is_reported_with_a_value_for_retire_after_days() -> None:
    assert warnings(split=split_of(1000, warn_test_share=370, proposed_retire_after_days=21)) == [
        "test is 37 % of the rows, above test_fraction 0.2, as no held-out ticket retires; "
        "`split.retire_after_days: 21` brings it back"
    ]
