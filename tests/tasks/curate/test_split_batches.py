"""Splitting and decontaminating batch by batch give the bytes that the whole table gives."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from schemas.artifacts import RowCounts, Splits, TicketTable
from schemas.curation import DecontaminateSpec, SplitSpec
from schemas.errors import DataError
from tasks.curate.decontaminate import decontaminate
from tasks.curate.rows import read_rows, removed_table, ticket_table, write_removed, write_tickets
from tasks.curate.split import PARTS, split_tickets
from tests.tasks.curate.test_validate_batches import in_groups

Row = dict[str, Any]
REASONS = {
    "straddles_cut_early": "written before the cut by a held-out customer or thread",
    "straddles_cut_late": "written after the cut by a customer or thread that is in train",
    "straddles_sides": "its customers and threads have been placed on different sides",
    "no_created_at": "without a time it may be later than the held-out tickets",
}
SIZES = (1, 7, 10_000)


def some_tickets(n_tickets: int) -> list[Row]:
    """Tickets of customers on both sides of any cut, some without a time, some with equal questions."""
    draw = random.Random(5)
    return [
        {
            "ticket_id": f"t{number:04d}",
            "source": "s.jsonl",
            "source_line": n_tickets - number,
            "customer_id": draw.choice([None, "", *(f"c{n}" for n in range(60))]),
            "thread_id": draw.choice([None, f"h{number // 2}"]),
            "created_at": None if number % 50 == 7 else datetime(2026, 1, 1) + timedelta(hours=draw.randrange(2000)),
            "body": " ".join(f"w{draw.randrange(9000)}" for _ in range(30))
            if number % 9
            else "the same question again",
            "category": draw.choice(["billing", "other"]),
        }
        for number in range(n_tickets)
    ]


def stage(folder: Path, table: pa.Table, *, is_read_next: bool) -> TicketTable:
    folder.mkdir(parents=True)
    n_rows = write_tickets(table, folder, is_read_next=is_read_next)
    return TicketTable(root=folder, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def check_that_parts_are_the_table_filtered(table: pa.Table, splits: Splits, plain: Path) -> None:
    plain.mkdir()
    assigned = read_rows(splits.assignments)
    assert assigned["ticket_id"].equals(table["ticket_id"])
    for part in PARTS:
        write_tickets(table.filter(pc.equal(assigned["split"], part)), plain, name=f"{part}.parquet")
        assert getattr(splits, part).read_bytes() == (plain / f"{part}.parquet").read_bytes(), part
    places = table.select(["ticket_id", "source", "source_line"]).filter(pc.equal(assigned["split"], "dropped"))
    removed = read_rows(splits.removed).to_pylist()
    codes = {row["ticket_id"]: row["code"] for row in removed}
    removed = [
        {**place, "outcome": "dropped", "code": code, "reason": REASONS[code]}
        for place in places.to_pylist()
        for code in [codes[place["ticket_id"]]]
    ]
    write_removed(removed_table(removed), plain)
    assert splits.removed.read_bytes() == (plain / "removed.parquet").read_bytes()
    assert splits.rows == RowCounts(n_in=len(table), n_out=len(table) - len(removed), n_dropped=len(removed))


@pytest.mark.parametrize(
    "options",
    [{}, {"by_time": False, "group_by": ("customer_id",)}, {"group_by": (), "validation_fraction": 0}],
    ids=str,
)
@pytest.mark.parametrize(("n_rows", "is_read_next"), [(1, False), (7, False), (7, True), (10_000, False)])
def test_the_parts_have_the_bytes_of_the_filtered_table(
    n_rows: int, options: Row, is_read_next: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_groups(monkeypatch, n_rows)
    table = ticket_table(some_tickets(80))
    tickets = stage(tmp_path / "dedup", table, is_read_next=is_read_next)
    out = tmp_path / "split"
    out.mkdir()
    splits = split_tickets(tickets=tickets, split=SplitSpec(**options), out=out)
    check_that_parts_are_the_table_filtered(table, splits, tmp_path / "plain")


def files_of(splits: Splits, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (splits.root / f"{name}.parquet").read_bytes() for name in names}


def test_the_size_of_batches_changes_no_byte(tmp_path: Path) -> None:
    table = ticket_table(some_tickets(80))
    results = []
    for n_rows in SIZES:
        root = tmp_path / str(n_rows)
        with pytest.MonkeyPatch.context() as patched:
            in_groups(patched, n_rows)
            tickets = stage(root / "dedup", table, is_read_next=False)
        (root / "split").mkdir()
        splits = split_tickets(tickets=tickets, split=SplitSpec(), out=root / "split")
        results.append((files_of(splits, (*PARTS, "removed", "assignments", "strata")), splits.rows, splits.notes))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("n_rows", SIZES)
def test_decontamination_writes_the_bytes_of_the_filtered_part(
    n_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_groups(monkeypatch, n_rows)
    tickets = stage(tmp_path / "dedup", ticket_table(some_tickets(150)), is_read_next=False)
    for name in ("split", "clean", "plain"):
        (tmp_path / name).mkdir()
    split = split_tickets(tickets=tickets, split=SplitSpec(), out=tmp_path / "split")
    parts = {part: read_rows(getattr(split, part)) for part in ("train", "validation")}
    clean = decontaminate(splits=split, spec=DecontaminateSpec(), out=tmp_path / "clean")
    removed = read_rows(clean.removed)
    assert {"leak_exact"} == set(removed["code"].to_pylist())
    assert len(removed) > 5
    for part, table in parts.items():
        stays = pc.invert(pc.is_in(table["ticket_id"], value_set=removed["ticket_id"].combine_chunks()))
        write_tickets(table.filter(stays), tmp_path / "plain", name=f"{part}.parquet")
        assert getattr(clean, part).read_bytes() == (tmp_path / "plain" / f"{part}.parquet").read_bytes(), part
    assert clean.n_train + clean.n_validation == split.n_train + split.n_validation - len(removed)


def test_an_empty_table_is_refused_with_its_numbers(tmp_path: Path) -> None:
    tickets = stage(tmp_path / "dedup", ticket_table([]), is_read_next=False)
    with pytest.raises(DataError, match=r"TG0221.*0 tickets of 0 customers"):
        split_tickets(tickets=tickets, split=SplitSpec(), out=tmp_path)
