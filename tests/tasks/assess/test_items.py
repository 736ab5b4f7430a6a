"""The held-out items: chosen by hash, the same ones every time, or the newest."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import Splits
from schemas.errors import DataError
from schemas.tables import TICKET_COLUMNS
from schemas.training import PromptSpec
from schemas.verdicts import JudgedItems, SeenItems
from tasks.assess import items
from tasks.assess.items import EXTRA, count_available, extra_items, select_items
from tasks.curate.rows import read_rows
from tasks.tickets.draw import hash_rank, item_hash
from tests.support.plant import raise_on

NewFolder = Callable[[], Path]
MakeSplits = Callable[..., Splits]


def _tickets(n: int, *, first: int = 0) -> list[dict[str, str]]:
    return [{"ticket_id": f"t{i:04d}", "body": f"Question {i}", "reply": f" Answer {i} "} for i in range(first, n)]


def _chosen(folder: Path) -> list[str]:
    ids: list[str] = pq.read_table(folder / "items.parquet").column("item_id").to_pylist()
    return ids


def test_items_carry_the_ticket_its_id_and_the_rendered_answer(make_splits: MakeSplits, tmp_path: Path) -> None:
    chosen = select_items(splits=make_splits(test=_tickets(5)), max_items=9, seed=1, answer="> {reply}", out=tmp_path)
    assert (chosen.n_items, chosen.n_available) == (5, 5)
    table = pq.read_table(tmp_path / "items.parquet")
    assert table.column_names == [*TICKET_COLUMNS, "item_id", "answer"]
    assert table.column("item_id").to_pylist() == [f"t000{i}" for i in range(5)]
    assert table.column("answer").to_pylist()[3] == ">  Answer 3 "


def test_a_ticket_with_its_own_conversation_brings_its_last_turn_as_answer(
    make_splits: MakeSplits, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"ticket_id": "a", "messages": orjson.dumps(turns).decode()}]
    select_items(splits=make_splits(test=rows), max_items=1, seed=0, answer="{reply}", out=tmp_path)
    assert pq.read_table(tmp_path / "items.parquet").column("answer").to_pylist() == ["Hello"]


def test_the_choice_depends_on_the_seed_and_on_nothing_else(make_splits: MakeSplits, new_folder: NewFolder) -> None:
    rows = _tickets(100)
    first, again, other = new_folder(), new_folder(), new_folder()
    select_items(splits=make_splits(test=rows), max_items=20, seed=1, answer="{reply}", out=first)
    select_items(splits=make_splits(test=rows[::-1]), max_items=20, seed=1, answer="{reply}", out=again)
    select_items(splits=make_splits(test=rows), max_items=20, seed=2, answer="{reply}", out=other)
    assert _chosen(first) == _chosen(again)
    assert _chosen(first) != _chosen(other)


def test_items_that_people_saw_are_taken_only_when_there_are_no_others(
    make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    splits, first, fresh, few = make_splits(test=_tickets(12)), new_folder(), new_folder(), new_folder()
    select_items(splits=splits, max_items=8, seed=1, answer="{reply}", out=first)
    shown = _chosen(first)[:3]
    seen = SeenItems(salt="s", hashes=tuple(sorted(item_hash(item, salt="s") for item in shown)))
    chosen = select_items(splits=splits, max_items=8, seed=1, answer="{reply}", seen=seen, out=fresh)
    assert (chosen.n_available, chosen.n_fresh) == (12, 1)
    assert not set(_chosen(fresh)) & set(shown)
    assert set(_chosen(first)) - set(_chosen(fresh)) == set(shown)  # the others stay
    select_items(splits=splits, max_items=10, seed=1, answer="{reply}", seen=seen, out=few)
    assert len(set(_chosen(few)) & set(shown)) == 1


def test_items_give_way_once_they_have_judged_too_many_and_those_never_judged_come_first(
    make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    splits, first, next_, last = make_splits(test=_tickets(90)), new_folder(), new_folder(), new_folder()
    select_items(splits=splits, max_items=60, seed=1, answer="{reply}", out=first)
    used = _chosen(first)

    def judged(n: int) -> JudgedItems:
        counts = sorted((item_hash(item, salt="s"), n) for item in used)
        return JudgedItems(salt="s", counts=tuple(counts), budget=20)

    select_items(splits=splits, max_items=60, seed=1, answer="{reply}", judged=judged(18), out=next_)
    assert _chosen(next_) == used  # the budget is not near: the answers are reused
    chosen = select_items(splits=splits, max_items=60, seed=1, answer="{reply}", judged=judged(20), out=next_)
    assert chosen.n_items == 60
    assert len(set(_chosen(next_)) - set(used)) == 6  # a tenth: the mean is 18 of at most 18.05
    few = select_items(splits=splits, max_items=90, seed=1, answer="{reply}", judged=judged(45), out=last)
    assert (few.n_items, len(set(_chosen(last)) - set(used))) == (50, 30)  # all new and 20 old ones
    select_items(splits=splits, max_items=60, seed=1, answer="{reply}", judged=judged(60), out=last)
    assert _chosen(last) == used  # of new and old ones 42 would be left, with which every verdict is HOLD too


def test_the_newest_are_chosen_where_the_gate_asks_about_the_present(make_splits: MakeSplits, tmp_path: Path) -> None:
    """Written the later the smaller the number; the last five at one time, and five without any."""
    rows: list[dict[str, object]] = [
        {**row, "created_at": datetime(2026, 6, 1 + max(0, 24 - place))} for place, row in enumerate(_tickets(30))
    ]
    rows += _tickets(35, first=30)
    splits = make_splits(test=rows)
    ranked = sorted((f"t{i:04d}" for i in range(24, 30)), key=lambda name: hash_rank(name, seed=1))
    for n_items, chosen in (
        (10, [f"t{i:04d}" for i in range(10)]),
        (26, sorted([*(f"t{i:04d}" for i in range(24)), *ranked[:2]])),
    ):
        select_items(splits=splits, max_items=n_items, seed=1, answer="{reply}", out=tmp_path, choose="newest")
        assert _chosen(tmp_path) == chosen
    select_items(splits=splits, max_items=30, seed=1, answer="{reply}", out=tmp_path, choose="newest")
    assert _chosen(tmp_path) == [f"t{i:04d}" for i in range(30)]


def test_without_times_each_label_has_its_share_of_the_items(make_splits: MakeSplits, tmp_path: Path) -> None:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    rows = [{**row, "category": label} for row, label in zip(_tickets(100), labels, strict=True)]
    choices: tuple[Literal["hash", "newest"], ...] = ("hash", "newest")
    for choose in choices:
        select_items(
            splits=make_splits(test=rows), max_items=20, seed=1, answer="{reply}", out=tmp_path,
            choose=choose, stratify="category",
        )  # fmt: skip
        found = Counter(labels[int(name[1:])] for name in _chosen(tmp_path))
        assert found == {"a": 12, "b": 6, "c": 2}
    dated = [{**row, "created_at": datetime(2026, 6, 1)} for row in rows]
    select_items(
        splits=make_splits(test=dated), max_items=20, seed=1, answer="{reply}", out=tmp_path, stratify="category"
    )
    plain = sorted((row["ticket_id"] for row in rows), key=lambda name: hash_rank(name, seed=1))[:20]
    assert _chosen(tmp_path) == sorted(plain), "with times the items of an existing home stay"


def test_new_tickets_only_displace_items_and_never_reshuffle_them(
    make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    before, after = new_folder(), new_folder()
    select_items(splits=make_splits(test=_tickets(100)), max_items=40, seed=1, answer="{reply}", out=before)
    select_items(splits=make_splits(test=_tickets(110)), max_items=40, seed=1, answer="{reply}", out=after)
    new = {f"t{i:04d}" for i in range(100, 110)}
    stayed = set(_chosen(after)) - new
    assert stayed < set(_chosen(before))
    assert len(stayed) >= 30


TURNS = [{"role": "user", "content": "my secret text"}, {"role": "user", "content": "Hi"}]
MALFORMED = {"messages": orjson.dumps(TURNS).decode()}


@pytest.mark.parametrize("choose", ["hash", "newest"])
def test_a_ticket_of_which_no_prompt_can_be_made_is_quarantined_and_the_next_takes_its_place(
    make_splits: MakeSplits, new_folder: NewFolder, choose: Any
) -> None:
    """Whoever may write tickets must neither end the run nor take an item's place."""
    rows = _tickets(30)
    ranked = sorted((row["ticket_id"] for row in rows), key=lambda name: hash_rank(name, seed=1))
    bad = {ranked[0], ranked[3], ranked[4], ranked[7]}
    planted = [row | (MALFORMED if row["ticket_id"] in bad else {}) for row in rows]
    sound = [row for row in rows if row["ticket_id"] not in bad]
    folders = [new_folder(), new_folder()]
    faulty, expected = (
        select_items(
            splits=make_splits(test=some), max_items=6, seed=1, answer="{reply}", out=folder, choose=choose,
            prompts=(PromptSpec(user="{body}"),),
        )
        for some, folder in zip((planted, sound), folders, strict=True)
    )  # fmt: skip
    assert _chosen(folders[0]) == _chosen(folders[1])
    assert (faulty.n_items, faulty.n_available, faulty.n_quarantined) == (6, 30, 4)
    removed = read_rows(folders[0] / "removed.parquet").to_pylist()
    assert {(row["ticket_id"], row["outcome"], row["code"]) for row in removed} == {
        (name, "quarantined", "TG0301") for name in bad
    }
    assert "secret" not in str(removed)
    assert [path.name for path in folders[1].iterdir()] == ["items.parquet"], "equal bytes to those of ever"
    assert expected.n_quarantined == 0


def test_tickets_with_the_same_prompt_are_one_item(
    make_splits: Callable[..., Splits], new_folder: Callable[[], Path]
) -> None:
    """Each model answers them alike, so that 400 copies of 20 questions prove what 20 questions prove."""
    copies = [{**row, "ticket_id": f"{row['ticket_id']}-{copy}"} for row in _tickets(20) for copy in range(20)]
    fewer, more = new_folder(), new_folder()
    chosen = [
        select_items(
            splits=make_splits(test=copies), max_items=n_items, seed=1, answer="{reply}", out=out,
            prompts=(PromptSpec(user="{body}"),),
        )
        for n_items, out in ((8, fewer), (400, more))
    ]  # fmt: skip
    assert [(each.n_items, each.n_available) for each in chosen] == [(8, 400), (20, 400)]
    assert chosen[1].n_repeated == 380
    assert {name.partition("-")[0] for name in _chosen(more)} == {row["ticket_id"] for row in _tickets(20)}
    assert set(_chosen(fewer)) < set(_chosen(more)), "the first by hash stay"


def test_an_unexpected_exception_on_one_item_is_named_by_its_type_and_one_on_every_item_ends_the_run(
    make_splits: MakeSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"t0001"}
    raise_on(monkeypatch, items, "render_text", lambda given: given[1]["ticket_id"] in bad)
    splits = make_splits(test=_tickets(5))
    chosen = select_items(splits=splits, max_items=9, seed=1, answer="{reply}", out=tmp_path)
    assert (chosen.n_items, chosen.n_quarantined) == (4, 1)
    (row,) = read_rows(tmp_path / "removed.parquet").to_pylist()
    assert (row["source_line"], row["code"], row["reason"]) == (2, "TG0218", "KeyError in step items.")
    bad |= {f"t000{number}" for number in range(5)}
    with pytest.raises(KeyError, match="secret"):
        select_items(splits=splits, max_items=9, seed=1, answer="{reply}", out=tmp_path)


def test_one_ticket_per_customer_is_the_first_of_each(make_splits: MakeSplits, new_folder: NewFolder) -> None:
    rows = [{**row, "customer_id": None if n < 4 else f"c{n % 10}"} for n, row in enumerate(_tickets(64))]
    splits = make_splits(test=rows)
    every, single = new_folder(), new_folder()
    select_items(splits=splits, max_items=64, seed=3, answer="{reply}", out=every)
    chosen = select_items(splits=splits, max_items=64, seed=3, answer="{reply}", one_per="customer_id", out=single)
    owner = {row["ticket_id"]: row["customer_id"] for row in rows}
    counts = Counter(owner[name] for name in _chosen(single))
    assert counts.pop(None) == 4  # whoever wrote those
    assert set(counts.values()) == {1}
    assert len(counts) == 10
    first = {owner[name]: name for name in sorted(owner, key=lambda name: hash_rank(name, seed=3), reverse=True)}
    assert {name for name in _chosen(single) if owner[name]} == {name for one, name in first.items() if one}
    assert (chosen.n_available, count_available(splits, "customer_id"), count_available(splits, None)) == (14, 14, 64)


def test_small_slices_are_topped_up_with_marked_items_and_the_planned_ones_stay(
    make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    rows = [
        {**row, "product": "Lamp" if number % 20 == 0 else "Desk", "channel": "mail"}
        for number, row in enumerate(_tickets(200))
    ]
    splits, plain, topped = make_splits(test=rows), new_folder(), new_folder()
    select_items(splits=splits, max_items=40, seed=3, answer="{reply}", out=plain)
    found = select_items(
        splits=splits, max_items=40, seed=3, answer="{reply}", slices=("product", "channel"), top_up=6, out=topped
    )
    table = pq.read_table(topped / "items.parquet").to_pylist()
    planned = [row["item_id"] for row in table if not row[EXTRA]]
    assert planned == _chosen(plain)
    assert EXTRA not in pq.read_schema(plain / "items.parquet").names
    assert extra_items(found) == {row["item_id"] for row in table if row[EXTRA]} != frozenset()
    assert all(row["product"] == "Lamp" for row in table if row[EXTRA])
    assert Counter(row["product"] for row in table)["Lamp"] == 6
    # as many as there are, if there are not enough
    every = select_items(
        splits=splits, max_items=40, seed=3, answer="{reply}", slices=("product",), top_up=500, out=new_folder()
    )
    assert every.n_items == 200


def test_an_empty_test_split_is_a_data_error(make_splits: MakeSplits, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TG0221.*test split is empty"):
        select_items(splits=make_splits(), max_items=5, seed=0, answer="{reply}", out=tmp_path)


def test_a_repeated_ticket_id_is_a_data_error(make_splits: MakeSplits, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TG0231.*twice"):
        select_items(splits=make_splits(test=_tickets(2) * 2), max_items=5, seed=0, answer="{reply}", out=tmp_path)


def test_of_declared_looks_the_largest_is_taken_and_it_holds_the_items_of_the_look_before(
    make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    def look(
        n_tickets: int, *, first: int = 0, before: tuple[str, ...] = (), at: tuple[int, ...] = (8, 16, 24)
    ) -> set[str]:
        out = new_folder()
        again = SeenItems(salt="s", hashes=tuple(sorted(item_hash(name, salt="s") for name in before)))
        chosen = select_items(
            splits=make_splits(test=_tickets(n_tickets, first=first)), max_items=24, seed=1, answer="{reply}", at=at,
            again=again, judged=JudgedItems(salt="s", counts=tuple((each, 30) for each in again.hashes), budget=20),
            out=out,
        )  # fmt: skip
        assert chosen.n_items == len(_chosen(out))
        return set(_chosen(out))

    assert [len(look(n)) for n in (5, 8, 15, 16, 40)] == [5, 8, 8, 16, 24]
    small = look(12)
    assert len(small) == 8
    larger = look(60, before=tuple(small), at=(16, 24))
    assert small < larger  # also those that judged more candidates than the budget allows
    assert len(larger) == 24
    assert len(look(12, before=tuple(small), at=(16, 24))) == 12  # too few: whoever judges again sees that
    assert not small <= look(60, first=12, before=tuple(small), at=(16, 24))
