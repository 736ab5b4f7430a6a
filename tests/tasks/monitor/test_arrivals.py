"""Counts new, edited and freshly held-out tickets; copies and touched tickets are not new."""

from datetime import datetime

from tasks.monitor.arrivals import count_arrivals, newest_time, windows
from tests.tasks.curate.conftest import MakeSplits
from tests.tasks.monitor.conftest import MakeWarehouse, splits_of, ticket


def test_everything_is_new_before_the_first_verdict(make_splits: MakeSplits, make_warehouse: MakeWarehouse) -> None:
    found = count_arrivals(
        now=splits_of(make_splits, range(1, 8), (8, 9)), used=None, last=None, warehouse=make_warehouse()
    )
    assert (found.n_curated, found.n_new, found.n_edited, found.n_held_out, found.n_fresh_held_out) == (9, 9, 0, 2, 2)


def test_a_ticket_is_new_edited_touched_or_a_copy(make_splits: MakeSplits, make_warehouse: MakeWarehouse) -> None:
    then = make_splits(train=[ticket(number) for number in (1, 2, 3, 4)], test=[ticket(5)])
    now = make_splits(
        train=[
            ticket(1),
            ticket(2, reply="another answer"),  # a late edit: a new version of the ticket
            ticket(3, updated_at=datetime(2026, 7, 1)),  # touched, but not changed
            ticket(6),  # new
            ticket(7),  # a newer copy, kept instead of the known ticket 4
        ],
        test=[ticket(5, category="returns"), ticket(8)],
    )
    found = count_arrivals(
        now=now, used=then, last=then, warehouse=make_warehouse([("T-004", "T-007"), ("T-007", "T-007")])
    )
    assert (found.n_new, found.n_edited) == (2, 2)
    assert (found.n_held_out, found.n_fresh_held_out) == (2, 1)


def test_the_same_tickets_are_not_new(make_splits: MakeSplits, make_warehouse: MakeWarehouse) -> None:
    then, now = (splits_of(make_splits, (1, 2), (3,)) for _ in range(2))
    found = count_arrivals(now=now, used=then, last=then, warehouse=make_warehouse())
    assert (found.n_new, found.n_edited, found.n_fresh_held_out) == (0, 0, 0)


def test_after_a_hold_tickets_stay_new_and_those_that_are_gone_count_as_changed(
    make_splits: MakeSplits, make_warehouse: MakeWarehouse
) -> None:
    used = splits_of(make_splits, (1, 2), (3,))
    last = splits_of(make_splits, (1, 2, 4, 5, 6), (3, 7))  # HOLD: 4 to 7 were new
    now = splits_of(make_splits, (1, 2, 4, 8), (3, 7, 9))  # 5 is gone, 6 was merged into 8, 9 is new
    warehouse = make_warehouse([("T-006", "T-008")])
    found = count_arrivals(now=now, used=used, last=last, tried=True, warehouse=warehouse)
    assert (found.n_new, found.n_edited, found.n_changed) == (4, 0, 2)
    assert found.n_fresh_held_out == 1  # that verdict has used 7
    everything = count_arrivals(now=now, used=None, last=None, tried=True, warehouse=warehouse)
    assert (everything.n_new, everything.n_changed, everything.n_fresh_held_out) == (7, 7, 3)
    promoted = count_arrivals(now=now, used=last, last=last, warehouse=warehouse)
    assert (promoted.n_new, promoted.n_changed) == (1, None)


def test_windows_are_the_newest_tickets_of_each_side(make_splits: MakeSplits, make_warehouse: MakeWarehouse) -> None:
    then, now = splits_of(make_splits, (1, 2, 3), (4,)), splits_of(make_splits, (1, 2, 3, 5, 6), (4, 7))
    current, reference = windows(now=now, then=then, warehouse=make_warehouse(), size=2)
    assert current.texts == ("\nquestion 7", "\nquestion 6")
    assert reference.texts == ("\nquestion 4", "\nquestion 3")
    assert current.routing == ("billing | low",) * 2


def test_the_watermark_is_the_newest_time(make_splits: MakeSplits) -> None:
    late = make_splits(train=[ticket(1, updated_at=datetime(2026, 8, 1, 12))], test=[ticket(2)])
    assert newest_time(late) == "2026-08-01T12:00:00"
    assert newest_time(make_splits(train=[ticket(1, created_at=None)], test=[])) == ""
