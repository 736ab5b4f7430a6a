"""No customer on two sides, test later than train, membership by ids, times and seed alone, and little lost."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.curation import SplitSpec
from schemas.errors import DataError
from tasks.curate.split import split_tickets

START = datetime(2026, 6, 1)
WEEKS = timedelta(weeks=1)
PARTS = ("train", "validation", "test")


def a_help_desk(*, n_tickets: int, n_customers: int, n_weeks: float = 8, seed: int = 0) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [
        {
            "ticket_id": f"t{number:05d}",
            "customer_id": f"c{rng.randrange(n_customers)}",
            "created_at": START + rng.random() * n_weeks * WEEKS,
            "body": f"question {number}",
        }
        for number in range(n_tickets)
    ]


def check_that_sides_are_clean(splits: Any, rows_of: Any, columns: tuple[str, ...]) -> None:
    parts = {part: list(rows_of(getattr(splits, part)).values()) for part in PARTS}
    for column in columns:
        values = {part: {row[column] for row in rows if row[column]} for part, rows in parts.items()}
        assert not values["train"] & values["test"]
        assert not values["train"] & values["validation"]
        assert not values["validation"] & values["test"]
    assert [len(rows) for rows in parts.values()] == [splits.n_train, splits.n_validation, splits.n_test]
    listed = [row["ticket_id"] for rows in parts.values() for row in rows] + list(rows_of(splits.removed))
    assert len(listed) == len(set(listed)) == splits.rows.n_in


def test_when_nearly_every_customer_is_on_both_sides_of_the_cut_most_tickets_remain(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    """The figures of the demo: 3,000 tickets, 400 customers, 8 weeks, of which the last two stay true."""
    tickets = make_tickets(a_help_desk(n_tickets=3000, n_customers=400))
    splits = split_tickets(tickets=tickets, split=SplitSpec(validation_fraction=0.02), out=new_folder())
    check_that_sides_are_clean(splits, rows_of, ("customer_id",))
    assert splits.notes["straddling_groups"] > 250
    assert splits.n_train + splits.n_validation >= 0.6 * 3000
    assert splits.n_test >= 250
    assert 0.015 <= splits.n_validation / (splits.n_train + splits.n_validation) <= 0.02
    test_times = [row["created_at"] for row in rows_of(splits.test).values()]
    train_times = [row["created_at"] for part in (splits.train, splits.validation) for row in rows_of(part).values()]
    assert max(train_times) < min(test_times)
    assert min(test_times) >= START + 6 * WEEKS
    removed = rows_of(splits.removed)
    assert {row["outcome"] for row in removed.values()} == {"dropped"}
    assert (
        splits.rows.n_dropped
        == len(removed)
        == sum(splits.notes[f"dropped_straddles_cut_{side}"] for side in ("early", "late"))
    )


@pytest.mark.parametrize(("straddlers", "lost"), [("keep_early", "late"), ("keep_late", "early")])
def test_straddlers_keep_the_side_that_is_declared(
    make_tickets: Any, new_folder: Any, rows_of: Any, straddlers: Any, lost: str
) -> None:
    rows = a_help_desk(n_tickets=2000, n_customers=400, n_weeks=8)
    rows += a_help_desk(n_tickets=400, n_customers=10**6, n_weeks=8, seed=1)  # customers with one ticket
    rows = [row | {"ticket_id": f"t{number:05d}"} for number, row in enumerate(rows)]
    split = SplitSpec(validation_fraction=0.02, straddlers=straddlers)
    splits = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    check_that_sides_are_clean(splits, rows_of, ("customer_id",))
    removed = rows_of(splits.removed)
    assert {row["code"] for row in removed.values()} == {f"straddles_cut_{lost}"}
    assert splits.rows.n_dropped == splits.notes[f"straddling_{lost}"] > 0
    train = [row for part in (splits.train, splits.validation) for row in rows_of(part).values()]
    assert max(row["created_at"] for row in train) < min(row["created_at"] for row in rows_of(splits.test).values())
    before, after = (
        {row["customer_id"] for row in rows if (row["created_at"] >= splits.cut) == is_late}
        for is_late in (False, True)
    )
    sides = {row["customer_id"] for row in (train if straddlers == "keep_early" else rows_of(splits.test).values())}
    assert before & after <= sides


def test_customers_with_one_ticket_lose_nothing(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [row | {"customer_id": None} for row in a_help_desk(n_tickets=500, n_customers=1)]
    splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(validation_fraction=0), out=new_folder())
    assert (splits.n_train, splits.n_validation, splits.n_test, splits.rows.n_dropped) == (400, 0, 100, 0)


def test_texts_replies_and_labels_do_not_move_a_ticket(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = a_help_desk(n_tickets=800, n_customers=90)
    others = [row | {"body": "other", "reply": "swapped", "category": "billing"} for row in rows]
    one, two = (
        split_tickets(tickets=make_tickets(table), split=SplitSpec(), out=new_folder()) for table in (rows, others)
    )
    for part in PARTS:
        assert rows_of(getattr(one, part)).keys() == rows_of(getattr(two, part)).keys()


def test_the_order_of_rows_changes_no_byte_and_the_seed_does(make_tickets: Any, new_folder: Any) -> None:
    rows = [row | {"source": "s", "source_line": i} for i, row in enumerate(a_help_desk(n_tickets=300, n_customers=40))]
    shuffled = random.Random(1).sample(rows, len(rows))
    one, two, other = (
        split_tickets(tickets=make_tickets(order), split=SplitSpec(seed=seed, by_time=False), out=new_folder())
        for order, seed in ((rows, 0), (shuffled, 0), (rows, 1))
    )
    for part in (*PARTS, "removed"):
        assert getattr(one, part).read_bytes() == getattr(two, part).read_bytes()
    assert one.test.read_bytes() != other.test.read_bytes()


def test_a_thread_binds_its_customers_together(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rng = random.Random(3)
    rows = [row | {"thread_id": f"h{rng.randrange(70)}"} for row in a_help_desk(n_tickets=120, n_customers=300)]
    for by_time in (True, False):
        splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(by_time=by_time), out=new_folder())
        check_that_sides_are_clean(splits, rows_of, ("customer_id", "thread_id"))
        assert splits.group_by == ("customer_id", "thread_id")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "", "a", "b", "c", "d", "e"]),
            st.sampled_from([None, "x", "y", "z"]),
            st.one_of(st.none(), st.integers(min_value=0, max_value=20)),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from((0.05, 0.2, 0.5, 0.9)),
    st.booleans(),
)
def test_any_tickets_are_split_cleanly_or_refused_with_numbers(
    make_tickets: Any,
    new_folder: Any,
    rows_of: Any,
    drawn: list[tuple[str | None, str | None, int | None]],
    fraction: float,
    by_time: bool,
) -> None:
    rows = [
        {
            "ticket_id": f"{number:02d}",
            "customer_id": customer,
            "thread_id": thread,
            "created_at": None if day is None else START + timedelta(days=day),
        }
        for number, (customer, thread, day) in enumerate(drawn)
    ]
    split = SplitSpec(test_fraction=fraction, validation_fraction=0.2, by_time=by_time)
    refused = None
    try:
        splits = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    except DataError as error:
        refused = error
    if refused is not None:
        assert refused.code == "TG0221"
        assert f"{len(rows)} tickets" in refused.message
        return
    check_that_sides_are_clean(splits, rows_of, ("customer_id", "thread_id"))
    assert splits.n_train
    assert splits.n_test
    if by_time and any(row["created_at"] for row in rows):
        earlier = [
            row["created_at"] for part in ("train", "validation") for row in rows_of(getattr(splits, part)).values()
        ]
        assert max(earlier) < min(row["created_at"] for row in rows_of(splits.test).values())


def test_without_times_whole_customers_are_held_out_up_to_the_fraction(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = [row | {"created_at": None} for row in a_help_desk(n_tickets=1000, n_customers=200)]
    splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(validation_fraction=0.1), out=new_folder())
    check_that_sides_are_clean(splits, rows_of, ("customer_id",))
    assert 190 <= splits.n_test <= 200
    assert 70 <= splits.n_validation <= 80
    assert splits.rows.n_dropped == 0


def test_a_ticket_without_a_time_among_timed_ones_is_dropped_by_name(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = a_help_desk(n_tickets=50, n_customers=10_000)
    rows[7]["created_at"] = None
    splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(), out=new_folder())
    assert {name: row["code"] for name, row in rows_of(splits.removed).items()} == {"t00007": "no_created_at"}


def test_new_tickets_move_few_held_out_customers(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [row | {"created_at": None} for row in a_help_desk(n_tickets=1100, n_customers=200)]
    before, after = (
        {
            row["customer_id"]
            for row in rows_of(
                split_tickets(tickets=make_tickets(rows[:n_rows]), split=SplitSpec(), out=new_folder()).test
            ).values()
        }
        for n_rows in (1000, 1100)
    )
    assert len(before & after) >= 0.85 * len(before)


def test_one_customer_alone_is_refused(make_tickets: Any, new_folder: Any) -> None:
    rows = a_help_desk(n_tickets=30, n_customers=1)
    for by_time in (True, False):
        with pytest.raises(DataError, match="30 tickets of 1 customers") as error:
            split_tickets(tickets=make_tickets(rows), split=SplitSpec(by_time=by_time), out=new_folder())
        assert error.value.hint
