"""Which files and weeks have labels that disagree with the others: a wrong export is named, and chance is not."""

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.artifacts import LabelSources
from tasks.monitor.label_sources import MIN_EXCESS, MIN_TICKETS, compare_groups, compare_label_sources
from tests.tasks.curate.conftest import MakeSplits

Row = dict[str, Any]
WORDS = {
    "billing": "invoice charged card refund total payment bank", "delivery": "parcel courier street late lost van",
    "returns": "exchange size label box return shop", "technical": "screen lamp switch firmware broken restart",
}  # fmt: skip
COMMON = ("please", "help", "me", "with", "this", "today", "thank", "you", "since", "monday", "order", "number")


def week_of(number: int, n_tickets: int, *, seed: int) -> list[Row]:
    """Tickets of one file and week; a tenth has the words of another category, as real ones do."""
    rng = random.Random(f"{number}/{seed}")
    rows = []
    for place in range(n_tickets):
        category = rng.choice(list(WORDS))
        spoken = category if rng.random() < 0.9 else rng.choice(list(WORDS))
        body = " ".join(rng.choices(WORDS[spoken].split(), k=4) + rng.choices(COMMON, k=6) + [f"x{number}y{place}"])
        rows.append(
            {
                "ticket_id": f"T-{number:02}-{place:04}", "body": body, "category": category, "priority": "low",
                "created_at": datetime(2026, 6, 1) + timedelta(weeks=number, minutes=place),
                "source": f"week{number}.csv", "source_line": place + 1,
            }
        )  # fmt: skip
    return rows


def swapped(rows: Sequence[Row]) -> list[Row]:
    names = sorted(WORDS)
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return [row | {"category": following[row["category"]]} for row in rows]


@pytest.fixture
def checked(make_splits: MakeSplits, new_folder: Callable[[], Path]) -> Callable[..., LabelSources]:
    """The check of these tickets; a fifth is held out."""

    def check(rows: Sequence[Row], known: Sequence[Row] | None = None) -> LabelSources:
        def split(given: Sequence[Row]) -> Any:
            return make_splits(
                train=[row for place, row in enumerate(given) if place % 5],
                test=[row for place, row in enumerate(given) if not place % 5],
            )

        before = None if known is None else split(known)
        return compare_label_sources(new_folder(), splits=split(rows), known=before, field="category")

    return check


def named(found: LabelSources) -> list[str]:
    return [group.name for group in found.groups if group.disagrees]


def test_a_wrong_export_is_named_with_its_week_even_if_it_is_larger_than_all_that_is_known(
    checked: Callable[..., LabelSources],
) -> None:
    good = [row for number in range(4) for row in week_of(number, 60, seed=1)]
    wrong = swapped(week_of(4, 400, seed=1))
    found = checked([*good, *wrong], known=good)
    assert named(found) == ["week4.csv", "2026-W27"]
    assert found.groups[0].n_checked == 400
    assert found.groups[0].share > 0.5 > found.groups[0].share_elsewhere
    assert not any(shift.drifted for shift in found.shifts)  # a swap leaves the mix as it is
    listed = pq.read_table(found.suspects).to_pylist()
    assert len(listed) == found.n_suspects
    assert listed[0].keys() == {
        "ticket_id", "source", "source_line", "week", "split", "value", "confidence", "suggested",
        "suggested_confidence",
    }  # fmt: skip
    assert all(row["value"] != row["suggested"] for row in listed)


def test_known_tickets_whose_labels_were_rewritten_count_as_new(checked: Callable[..., LabelSources]) -> None:
    weeks = [week_of(number, 80, seed=2) for number in range(5)]
    rewritten = [*weeks[0], *weeks[1], *weeks[2], *swapped(weeks[3]), *swapped(weeks[4])]
    found = checked(rewritten, known=[row for week in weeks for row in week])
    assert sorted(named(found)) == ["2026-W26", "2026-W27", "week3.csv", "week4.csv"]


def test_clean_weeks_are_not_named_whether_or_not_their_mix_has_changed(checked: Callable[..., LabelSources]) -> None:
    for seed in range(8):
        weeks = [row for number in range(5) for row in week_of(number, 60, seed=seed)]
        # More of one topic: another mix, but each label as right as before.
        more = [row for row in week_of(5, 400, seed=seed) if row["category"] == "billing"]
        found = checked([*weeks, *more], known=weeks)
        assert named(found) == []
        assert [shift.field for shift in found.shifts if shift.drifted] == ["category"]
    assert found.shifts[0].sentence().startswith("category billing has 100 % of the")


def test_tickets_that_suddenly_have_no_label_are_named_in_words(checked: Callable[..., LabelSources]) -> None:
    weeks = [row for number in range(5) for row in week_of(number, 60, seed=6)]
    half = [row | {"category": row["category"] if n % 2 else None} for n, row in enumerate(week_of(5, 200, seed=6))]
    [shift] = [shift for shift in checked([*weeks, *half], known=weeks).shifts if shift.drifted]
    assert shift.sentence() == "50 % of the 200 new tickets have no category, and 0 % of those that the champion knew"


def test_a_new_label_that_its_words_explain_is_not_an_error(checked: Callable[..., LabelSources]) -> None:
    """A product is launched, and all its tickets go to a desk of their own."""
    weeks = [row for number in range(5) for row in week_of(number, 60, seed=3)]
    launched = [row | {"body": f"lumen panel {row['body']}", "category": "solar"} for row in week_of(5, 60, seed=3)]
    assert named(checked([*weeks, *launched], known=weeks)) == []


@pytest.mark.parametrize("rows", [[], [{"ticket_id": "a", "body": "x", "category": None}], week_of(0, 30, seed=4)])
def test_nothing_is_named_without_labels_or_with_one_file(checked: Callable[..., LabelSources], rows: Any) -> None:
    found = checked(rows)
    assert named(found) == []
    assert found.shifts == ()


def test_equally_wrong_files_are_named_in_at_most_one_run_of_a_hundred() -> None:
    """Twenty files and weeks of 25 to 300 tickets, whose labels are doubted equally often, 5 to 40 %."""
    rng = np.random.default_rng(0)
    n_named = n_significant = 0
    for _ in range(1000):
        sizes = rng.integers(25, 300, size=20)
        suspects = rng.random(int(sizes.sum())) < rng.uniform(0.05, 0.4)
        files = np.repeat([f"file{number}" for number in range(20)], sizes)
        weeks = rng.permutation(np.repeat([f"2026-W{number:02}" for number in range(20)], sizes))
        found = compare_groups({"file": files.tolist(), "week": weeks.tolist()}, suspects)
        n_named += any(group.disagrees for group in found)
        n_significant += any(group.p_chance <= 0.01 for group in found)
    assert n_named <= 20, "above 1 % only by chance: of 1,000 runs with 1 %, 21 have a probability of 0.002"
    assert n_significant <= 20


def test_a_file_with_twenty_points_more_is_nearly_always_named() -> None:
    rng = np.random.default_rng(1)
    n_named = 0
    for _ in range(200):
        sizes = [150] * 10
        shares = np.repeat([0.1] * 9 + [0.3], sizes)
        files = np.repeat([f"file{number}" for number in range(10)], sizes)
        found = compare_groups({"file": files.tolist()}, rng.random(len(shares)) < shares)
        n_named += [group.name for group in found if group.disagrees] == ["file9"]
    assert n_named >= 180


def test_no_file_is_named_where_most_labels_elsewhere_are_in_doubt_too() -> None:
    suspects = np.repeat([0, 1, 0, 1], [50, 150, 10, 190]).astype(bool)  # 75 % of all others, 95 % of the file
    names = ["others"] * 200 + ["file"] * 200
    groups = {group.name: group for group in compare_groups({"file": names}, suspects)}
    assert groups["file"].p_chance < 0.001
    assert not any(group.disagrees for group in groups.values())
    some = compare_groups({"file": names}, np.repeat([0, 1, 0, 1], [110, 90, 10, 190]).astype(bool))
    assert [group.name for group in some if group.disagrees] == ["file"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 120), st.floats(0, 1)), min_size=0, max_size=12))
def test_what_is_named_is_large_enough_and_worse_by_the_least_difference(files: list[tuple[int, float]]) -> None:
    names = [f"f{number}" for number, (size, _) in enumerate(files) for _ in range(size)]
    suspects = np.array([place < share * size for size, share in files for place in range(size)], bool)
    groups = compare_groups({"file": names, "week": [None] * len(names)}, suspects)
    assert all(group.n_checked >= MIN_TICKETS for group in groups)
    for group in groups:
        assert 0 <= group.p_chance <= 1
        if group.disagrees:
            assert group.share - group.share_elsewhere >= MIN_EXCESS - 1e-6
            assert group.p_chance <= 0.01
    assert [group.disagrees for group in groups] == sorted((group.disagrees for group in groups), reverse=True)
