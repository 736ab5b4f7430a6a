"""A split that continues the previous one: no ticket moves as others arrive, windows retire, bytes stay equal."""

import random
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import Splits
from schemas.curation import SplitSpec
from schemas.errors import DataError
from tasks.curate.rows import read_rows
from tasks.curate.split import split_tickets

START = datetime(2026, 6, 1)
WEEK = timedelta(weeks=1)
PARTS = ("train", "validation", "test")
FILES = (*PARTS, "removed", "assignments", "strata")
Row = dict[str, Any]


def sides(splits: Splits) -> dict[str, str]:
    return {name: part for part in PARTS for name in read_rows(getattr(splits, part))["ticket_id"].to_pylist()}


def assigned(splits: Splits) -> dict[str, Row]:
    return {row["ticket_id"]: row for row in read_rows(splits.assignments).to_pylist()}


def check_owners(splits: Splits, columns: tuple[str, ...] = ("customer_id", "thread_id")) -> None:
    for column in columns:
        values = [{value for value in read_rows(getattr(splits, p))[column].to_pylist() if value} for p in PARTS]
        assert not values[0] & values[1] | values[0] & values[2] | values[1] & values[2]


def growing_desk(n_weeks: int, *, seed: int, per_week: int = 120, timed: bool = True) -> list[list[Row]]:
    """Tickets by week of arrival: old and new customers, threads that join customers, some that arrive late."""
    rng = random.Random(seed)
    weeks: list[list[Row]] = []
    for week in range(n_weeks):
        rows = []
        for number in range(per_week):
            late = WEEK * rng.randrange(1, 4) if rng.random() < 0.03 else timedelta(0)
            customer = rng.randrange(20 * week + 60) if rng.random() < 0.8 else None
            thread = rng.randrange(40 * week + 150) if rng.random() < 0.2 else None
            rows.append(
                {
                    "ticket_id": f"w{week:02d}-{number:03d}",
                    "customer_id": None if customer is None else f"c{customer}",
                    "thread_id": None if thread is None else f"h{thread}",
                    "created_at": START + (week + rng.random()) * WEEK - late if timed else None,
                    "body": f"question {rng.random()}",
                    "category": rng.choice("abc"),
                }
            )
        weeks.append(rows)
    return weeks


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_eight_weekly_runs_keep_every_ticket_in_its_split(
    make_tickets: Any, new_folder: Any, seed: int, by_time: bool
) -> None:
    split = SplitSpec(validation_fraction=0.1, by_time=by_time, seed=seed)
    weeks = growing_desk(16, seed=seed, timed=by_time)
    rows = list(chain(*weeks[:8]))
    previous = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    first = previous
    for week in weeks[8:]:
        rows = rows + week
        current = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder(), previous=previous)
        before, after = sides(previous), sides(current)
        assert {name: after.get(name) for name in before} == before
        check_owners(current)
        if by_time:
            assert previous.cut < current.cut
            places = assigned(current)
            for row in read_rows(current.test).to_pylist():
                assert row["created_at"] >= places[row["ticket_id"]]["since"] >= first.cut
            for part in (current.train, current.validation):
                assert all(row["created_at"] < current.cut for row in read_rows(part).to_pylist())
        assert current.notes["new_tickets"] == len(week)
        previous = current
    assert current.n_train > 1.3 * first.n_train
    assert current.n_test > 1.1 * first.n_test
    assert current.n_validation > first.n_validation


@pytest.mark.parametrize("by_time", [True, False])
@pytest.mark.parametrize("retire", [None, 7])
def test_splitting_again_with_its_own_output_changes_no_byte(
    make_tickets: Any, new_folder: Any, by_time: bool, retire: int | None
) -> None:
    split = SplitSpec(validation_fraction=0.1, by_time=by_time, retire_after_days=retire)
    weeks = growing_desk(9, seed=5)
    rows = list(chain(*weeks[:8]))
    for row in rows[::50]:
        row["created_at"] = None
    one = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    grown = make_tickets(rows + weeks[8])
    two = split_tickets(tickets=grown, split=split, out=new_folder(), previous=one)
    assert (two.notes["retired"] > 0) == (retire is not None and by_time)
    for before, tickets in ((one, make_tickets(rows)), (two, grown)):
        again = split_tickets(tickets=tickets, split=split, out=new_folder(), previous=before)
        for name in FILES:
            assert getattr(again, name).read_bytes() == getattr(before, name).read_bytes()
        assert again.cut == before.cut


OWNER = st.one_of(st.none(), st.integers(0, 5))


@given(
    st.lists(st.tuples(OWNER, OWNER, st.one_of(st.none(), st.integers(0, 30))), min_size=4, max_size=40),
    st.integers(2, 39),
    st.booleans(),
    st.sampled_from((None, 3)),
)
def test_whatever_arrives_no_ticket_moves_and_no_owner_is_on_two_sides(
    make_tickets: Any,
    new_folder: Any,
    drawn: list[tuple[int | None, int | None, int | None]],
    n_first: int,
    by_time: bool,
    retire: int | None,
) -> None:
    rows = [
        {
            "ticket_id": f"{number:02d}",
            "customer_id": None if customer is None else f"c{customer}",
            "thread_id": None if thread is None else f"h{thread}",
            "created_at": None if day is None else START + timedelta(days=day),
        }
        for number, (customer, thread, day) in enumerate(drawn)
    ]
    split = SplitSpec(test_fraction=0.3, validation_fraction=0.2, by_time=by_time, retire_after_days=retire)
    try:
        one = split_tickets(tickets=make_tickets(rows[:n_first]), split=split, out=new_folder())
        two = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder(), previous=one)
        three = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder(), previous=two)
    except DataError:
        return
    check_owners(two)
    assert all(getattr(two, name).read_bytes() == getattr(three, name).read_bytes() for name in FILES)
    if "previous_ignored" in two.notes:
        return
    before, after = sides(one), sides(two)
    retired = {name for name, row in assigned(two).items() if row["retired"]}
    assert all(after[name] == part for name, part in before.items() if name not in retired)
    assert {after[name] for name in retired} <= {"train"}
    assert all(before.get(name) == "test" for name in retired)


def test_a_window_retires_as_a_whole_and_is_recorded(make_tickets: Any, new_folder: Any) -> None:
    split = SplitSpec(retire_after_days=21, validation_fraction=0)
    weeks = growing_desk(20, seed=2)
    rows = list(chain(*weeks[:8]))
    previous = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    n_retired, seen = 0, set()
    for week in weeks[8:]:
        rows = rows + week
        newest = max(row["created_at"] for row in rows)
        current = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder(), previous=previous)
        before, after = sides(previous), sides(current)
        moved = {name for name, part in before.items() if after.get(name) != part}
        assert {(before[name], after[name]) for name in moved} <= {("test", "train")}
        created = {row["ticket_id"]: row["created_at"] for row in rows}
        assert all(created[name] <= newest - timedelta(days=21) for name in moved)
        seen |= moved
        assert {name for name, row in assigned(current).items() if row["retired"]} == seen
        assert current.notes["retired"] == len(moved)
        check_owners(current)
        assert current.n_test
        n_retired += len(moved)
        previous = current
    assert n_retired > 100
    # Held out are new customers only, and few customers here are new; yet the window never closes.
    assert 40 <= current.n_test <= 150


def test_a_test_share_above_the_fraction_is_reported_with_the_age_that_brings_it_back(
    make_tickets: Any, new_folder: Any
) -> None:
    rows = [
        {"ticket_id": f"t{n:03d}", "customer_id": f"c{n}", "created_at": START + timedelta(hours=2.4 * n)}
        for n in range(220)
    ]

    def split(n_rows: int, fraction: float, previous: Splits | None, retire: int | None = None) -> Splits:
        spec = SplitSpec(test_fraction=fraction, validation_fraction=0, retire_after_days=retire)
        return split_tickets(tickets=make_tickets(rows[:n_rows]), split=spec, out=new_folder(), previous=previous)

    first = split(200, 0.2, None)
    grown = split(220, 0.1, first)
    assert (grown.n_train, grown.n_test) == (178, 42)
    assert grown.notes["warn_test_share"] == 1000 * 42 // 220
    assert grown.notes["proposed_retire_after_days"] == 4
    retired = split(220, 0.1, grown, retire=4)
    assert (retired.n_train, retired.n_test) == (198, 22)
    assert not {"warn_test_share", "proposed_retire_after_days"} & (first.notes.keys() | retired.notes.keys())


def test_a_ticket_that_links_two_sides_is_dropped_by_name(make_tickets: Any, new_folder: Any) -> None:
    rows = [
        {"ticket_id": f"{n:02d}", "customer_id": f"c{n}", "created_at": START + timedelta(days=n)} for n in range(20)
    ]
    one = split_tickets(tickets=make_tickets(rows), split=SplitSpec(validation_fraction=0), out=new_folder())
    assert sides(one) == {f"{n:02d}": "train" if n < 16 else "test" for n in range(20)}
    later = START + timedelta(days=25)
    rows += [
        {"ticket_id": "joins-train", "customer_id": "c3", "thread_id": "h1", "created_at": later},
        {"ticket_id": "joins-test", "customer_id": "c18", "thread_id": "h1", "created_at": later},
        {"ticket_id": "follows-test", "customer_id": "c19", "thread_id": "h2", "created_at": later},
        {"ticket_id": "came-late", "customer_id": "c19", "created_at": START},
        {"ticket_id": "new", "customer_id": "n1", "created_at": later + timedelta(days=9)},
    ]
    two = split_tickets(
        tickets=make_tickets(rows), split=SplitSpec(validation_fraction=0), out=new_folder(), previous=one
    )
    codes = {row["ticket_id"]: row["code"] for row in read_rows(two.removed).to_pylist()}
    assert codes == {
        "joins-train": "straddles_sides",
        "joins-test": "straddles_sides",
        "came-late": "straddles_cut_early",
    }
    assert sides(two)["follows-test"] == sides(two)["new"] == "test"


def test_customers_that_were_merged_in_the_source_leave_train(make_tickets: Any, new_folder: Any) -> None:
    rows = [{"ticket_id": f"{n:02d}", "customer_id": f"c{n}", "created_at": START + n * WEEK} for n in range(20)]
    one = split_tickets(tickets=make_tickets(rows), split=SplitSpec(), out=new_folder())
    merged = [row | {"customer_id": "c19"} if row["ticket_id"] == "03" else row for row in rows]
    two = split_tickets(tickets=make_tickets(merged), split=SplitSpec(), out=new_folder(), previous=one)
    assert sides(one)["03"] != "test"
    assert [row["ticket_id"] for row in read_rows(two.removed).to_pylist()] == ["03"]
    check_owners(two)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"group_by": ("customer_id",)}, {"by_time": False}], ids=["seed", "group_by", "by_time"]
)
def test_a_split_of_another_kind_is_not_continued(make_tickets: Any, new_folder: Any, other: dict[str, Any]) -> None:
    weeks = growing_desk(9, seed=1)
    tickets = make_tickets(list(chain(*weeks)))
    for split in (SplitSpec(), SplitSpec(**other)):
        fresh = split_tickets(tickets=tickets, split=split, out=new_folder())
        different = SplitSpec(**other) if split == SplitSpec() else SplitSpec()
        before = split_tickets(tickets=make_tickets(list(chain(*weeks[:8]))), split=different, out=new_folder())
        after = split_tickets(tickets=tickets, split=split, out=new_folder(), previous=before)
        assert after.notes["previous_ignored"] == 1
        assert sides(after) == sides(fresh)


def test_without_the_file_or_without_stable_the_split_starts_new(make_tickets: Any, new_folder: Any) -> None:
    weeks = growing_desk(9, seed=1)
    before = split_tickets(tickets=make_tickets(list(chain(*weeks[:8]))), split=SplitSpec(), out=new_folder())
    tickets = make_tickets(list(chain(*weeks)))
    fresh = split_tickets(tickets=tickets, split=SplitSpec(), out=new_folder())
    unstable = split_tickets(tickets=tickets, split=SplitSpec(stable=False), out=new_folder(), previous=before)
    assert "previous_ignored" not in unstable.notes
    Path(before.assignments).unlink()
    after = split_tickets(tickets=tickets, split=SplitSpec(), out=new_folder(), previous=before)
    assert after.notes["previous_ignored"] == 1
    assert sides(after) == sides(fresh) == sides(unstable)


def test_one_large_component_causes_a_warning_and_is_named_if_it_prevents_a_split(
    make_tickets: Any, new_folder: Any
) -> None:
    rng = random.Random(0)
    rows = [
        {
            "ticket_id": f"{n:03d}",
            "customer_id": f"c{rng.randrange(80)}",
            "thread_id": f"h{rng.randrange(130)}",
            "created_at": START + rng.random() * 8 * WEEK,
        }
        for n in range(300)
    ]
    with pytest.raises(DataError, match=r"TG0221.*100 % of the tickets are connected") as error:
        split_tickets(tickets=make_tickets(rows), split=SplitSpec(by_time=False), out=new_folder())
    assert "group_by" in str(error.value.hint)
    loners = [{"ticket_id": f"x{n:03d}", "created_at": START + 7.9 * WEEK} for n in range(60)]
    splits = split_tickets(tickets=make_tickets(rows + loners), split=SplitSpec(), out=new_folder())
    assert 700 < splits.notes["warn_percolation"] < 900
    alone = split_tickets(tickets=make_tickets(rows), split=SplitSpec(group_by=("customer_id",)), out=new_folder())
    assert "warn_percolation" not in alone.notes


def test_strata_show_shares_and_what_train_has_not_seen(make_tickets: Any, new_folder: Any) -> None:
    rows = [
        {
            "ticket_id": f"{n:02d}",
            "created_at": START + n * WEEK,
            "category": "old" if n < 18 else "new" if n == 18 else None,
            "channel": "mail",
        }
        for n in range(20)
    ]
    split = SplitSpec(validation_fraction=0, test_fraction=0.25)
    splits = split_tickets(tickets=make_tickets(rows), split=split, out=new_folder())
    assert splits.notes["warn_unseen_categories"] == 1
    strata = [tuple(row.values()) for row in read_rows(splits.strata).to_pylist()]
    assert strata == [
        ("category", "new", 0, 0, 1, 0.0, 0.2),
        ("category", "old", 15, 0, 3, 1.0, 0.6),
        ("category", None, 0, 0, 1, 0.0, 0.2),
        ("channel", "mail", 15, 0, 5, 1.0, 1.0),
    ]


def test_assignments_list_every_ticket_with_its_group_and_the_cut(make_tickets: Any, new_folder: Any) -> None:
    rows = [
        {"ticket_id": "1", "customer_id": "a", "thread_id": "t", "created_at": START},
        {"ticket_id": "2", "customer_id": "b", "thread_id": "t", "created_at": START + WEEK},
        {"ticket_id": "3", "created_at": START + 2 * WEEK},
        {"ticket_id": "4", "customer_id": "b", "created_at": START + 2 * WEEK},
    ]
    splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(validation_fraction=0), out=new_folder())
    cut = START + 2 * WEEK
    assert splits.cut == cut
    assert [tuple(row.values()) for row in assigned(splits).values()] == [
        ("1", "customer_id=a", "train", cut, False),
        ("2", "customer_id=a", "train", cut, False),
        ("3", "ticket_id=3", "test", cut, False),
        ("4", "customer_id=a", "dropped", cut, False),
    ]
