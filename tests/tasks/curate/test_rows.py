"""The Parquet tables between curation steps."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import REMOVED_COLUMNS, TICKET_COLUMNS
from tasks.curate import row_groups, table_cache
from tasks.curate import rows as tables
from tasks.curate.rows import (
    count_rows,
    read_batches,
    read_batches_with,
    read_columns,
    read_rows,
    removed_table,
    ticket_table,
    write_ordered_tickets,
    write_removed,
    write_tickets,
)
from tasks.curate.table_cache import peek_cached


def tickets(n: int) -> list[dict[str, object]]:
    return [{"ticket_id": f"t{i % 7}", "source": "a.jsonl", "source_line": i, "body": "x" * i} for i in range(n)]


def test_rows_in_any_order_give_equal_bytes(tmp_path: Path) -> None:
    write_tickets(ticket_table(tickets(50)), tmp_path)
    first = (tmp_path / "tickets.parquet").read_bytes()
    write_tickets(ticket_table(tickets(50)[::-1]), tmp_path)
    assert (tmp_path / "tickets.parquet").read_bytes() == first


def test_row_groups_are_cut_by_text_too_and_bytes_stay_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.curate.row_groups.GROUP_BYTES", 500)
    in_order = sorted(tickets(60), key=lambda row: (row["ticket_id"], row["source_line"]))
    wanted = ticket_table(in_order)
    written = []
    ids_in_order = sorted(in_order, key=lambda row: (str(row["ticket_id"]), -int(str(row["source_line"]))))
    for rows in (in_order, in_order[::-1], ids_in_order):
        write_tickets(ticket_table(rows), tmp_path)
        written.append((tmp_path / "tickets.parquet").read_bytes())
    assert written[0] == written[1] == written[2]
    assert read_rows(tmp_path / "tickets.parquet").equals(wanted)
    with pq.ParquetFile(tmp_path / "tickets.parquet") as file:
        groups = [file.read_row_group(number).column("body").nbytes for number in range(file.num_row_groups)]
    assert len(groups) > 3
    assert max(groups) < 1000


def test_chunks_of_a_table_leave_no_trace_in_the_file(tmp_path: Path) -> None:
    rows = [{**row, "ticket_id": f"t{place:03}"} for place, row in enumerate(tickets(50))]
    write_tickets(ticket_table(rows), tmp_path)
    whole = (tmp_path / "tickets.parquet").read_bytes()
    write_tickets(pa.concat_tables([ticket_table(rows[:7]), ticket_table(rows[7:8]), ticket_table(rows[8:])]), tmp_path)
    assert (tmp_path / "tickets.parquet").read_bytes() == whole


def test_written_tables_have_the_declared_columns_in_order(tmp_path: Path) -> None:
    write_tickets(ticket_table(tickets(3)), tmp_path)
    write_removed([{"outcome": "dropped", "code": "rule", "reason": "Too short."}], tmp_path)
    assert tuple(read_rows(tmp_path / "tickets.parquet").column_names) == TICKET_COLUMNS
    assert tuple(read_rows(tmp_path / "removed.parquet").column_names) == REMOVED_COLUMNS


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    assert write_tickets(ticket_table([]), tmp_path) == 0
    assert write_removed([], tmp_path) == 0
    assert read_rows(tmp_path / "tickets.parquet").num_rows == 0


def test_a_null_ticket_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 nulls in ticket_id"):
        write_tickets(ticket_table([{"source": "a", "source_line": 1}]), tmp_path)


def test_a_column_of_another_kind_is_refused(tmp_path: Path) -> None:
    table = ticket_table(tickets(2))
    table = table.set_column(table.column_names.index("body"), "body", pa.array([1, 2]))
    with pytest.raises(ValueError, match="body is int64, must be string"):
        write_tickets(table, tmp_path)


def test_an_unknown_column_of_a_removed_row_is_refused() -> None:
    with pytest.raises(ValueError, match="body"):
        removed_table([{"outcome": "dropped", "code": "rule", "reason": "Too short.", "body": "text"}])


def no_reading(*_: object, **__: object) -> None:
    raise AssertionError("the file was read")


def test_the_first_reader_gets_what_was_written_wherever_the_file_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = [{**row, "ticket_id": f"t{place:03}"} for place, row in enumerate(tickets(50))]
    (tmp_path / "aside").mkdir()
    write_tickets(ticket_table(in_order), tmp_path / "aside")
    (tmp_path / "aside").rename(tmp_path / "stored")
    path = tmp_path / "stored" / "tickets.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(tables.pq, "read_table", no_reading)
        two = read_columns(path, ("ticket_id", "body"))
        handed = read_rows(path)
    from_file = read_rows(path)
    assert handed.equals(from_file, check_metadata=True)
    assert handed.schema == from_file.schema
    assert two.equals(read_columns(path, ("ticket_id", "body")))


def test_a_file_that_is_another_one_now_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tickets.parquet"
    first, second = (ticket_table([{"ticket_id": "t1", "source": "a", "source_line": 1, "body": b}]) for b in "xy")
    write_tickets(first, tmp_path)
    (tmp_path / "other").mkdir()
    write_tickets(second, tmp_path / "other", is_read_next=False)
    path.write_bytes((tmp_path / "other" / "tickets.parquet").read_bytes())
    assert read_rows(path).equals(second)


def test_no_more_is_held_than_allowed_and_nothing_that_was_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [{"ticket_id": "t1", "source": "a", "source_line": 1, "body": "x" * 1000}]
    monkeypatch.setattr(table_cache, "CACHED_BYTES", int(1.5 * ticket_table(one).nbytes))
    for name in ("a.parquet", "b.parquet"):
        write_tickets(ticket_table(one), tmp_path, name=name)
    assert peek_cached(tmp_path / "a.parquet") is None
    assert peek_cached(tmp_path / "b.parquet") is not None
    write_tickets(ticket_table(tickets(20)), tmp_path)
    assert peek_cached(tmp_path / "b.parquet") is not None
    assert peek_cached(tmp_path / "tickets.parquet") is None
    assert read_rows(tmp_path / "tickets.parquet").num_rows == 20


def test_no_more_tables_are_held_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs for months: tables that nothing reads must not add up."""
    monkeypatch.setattr(table_cache, "CACHED_TABLES", 2)
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        write_tickets(ticket_table(tickets(1)), tmp_path, name=name)
    held = [peek_cached(tmp_path / name) is not None for name in ("a.parquet", "b.parquet", "c.parquet")]
    assert held == [False, True, True]


def in_order(n: int) -> list[dict[str, object]]:
    return sorted(tickets(n), key=lambda row: (str(row["ticket_id"]), row["source_line"]))


@given(
    n=st.integers(0, 80),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 900)),
)
def test_batches_cut_anywhere_make_the_file_of_the_whole(
    n: int, cuts: list[int], sizes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in zip(("GROUP_ROWS", "GROUP_BYTES"), sizes, strict=True):
        monkeypatch.setattr(row_groups, name, size)
    table = ticket_table(in_order(n))
    write_tickets(table, tmp_path, is_read_next=False)
    whole = (tmp_path / "tickets.parquet").read_bytes()
    places = sorted([0, *(min(cut, n) for cut in cuts), n])
    batches = [table.slice(start, stop - start) for start, stop in itertools.pairwise(places)]
    assert write_ordered_tickets(batches, tmp_path, name="again.parquet") == n == count_rows(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == whole
    handed, from_file = (pa.concat_tables(read_batches(tmp_path / "again.parquet")) for _ in range(2))
    assert handed.equals(from_file)
    assert from_file.equals(table)


@pytest.mark.parametrize("at_once", [True, False])
def test_rows_out_of_order_are_refused(at_once: bool, tmp_path: Path) -> None:
    table = ticket_table(in_order(20))
    batches = [table.slice(10), table.slice(0, 10)]
    with pytest.raises(ValueError, match="not in the order of ticket_id"):
        write_ordered_tickets([pa.concat_tables(batches)] if at_once else batches, tmp_path)


def test_a_writer_that_is_broken_off_hands_nothing_over(tmp_path: Path) -> None:
    def broken_off() -> Iterator[pa.Table]:
        yield ticket_table(in_order(5))
        raise RuntimeError("in the middle of a step")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_ordered_tickets(broken_off(), tmp_path)
    assert peek_cached(tmp_path / "tickets.parquet") is None


def test_what_is_too_much_to_be_held_is_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ticket_table(in_order(60))
    monkeypatch.setattr(tables, "CACHED_BYTES", int(table.nbytes / 2))
    write_ordered_tickets([table.slice(0, 30), table.slice(30)], tmp_path)
    assert table_cache.peek_cached(tmp_path / "tickets.parquet") is None
    assert read_rows(tmp_path / "tickets.parquet").equals(table)


def test_a_table_without_rows_comes_as_one_empty_batch(tmp_path: Path) -> None:
    write_tickets(ticket_table([]), tmp_path, is_read_next=False)
    [batch] = read_batches(tmp_path / "tickets.parquet", ("ticket_id", "body"))
    assert (batch.num_rows, batch.column_names) == (0, ["ticket_id", "body"])


def test_values_beside_come_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 7)
    table = ticket_table(in_order(50))
    write_tickets(table, tmp_path, is_read_next=False)
    path = tmp_path / "tickets.parquet"
    lines = table["source_line"]
    seen = list(read_batches_with(path, lines, np.array(lines)))
    assert len(seen) == 8
    for batch, column, array in seen:
        assert batch["source_line"].to_pylist() == column.to_pylist() == array.tolist()
    for wrong in (lines.slice(1), pa.chunked_array([*lines.chunks, pa.array([1])])):
        with pytest.raises(ValueError, match="50 rows, and another number of values"):
            list(read_batches_with(path, wrong))
