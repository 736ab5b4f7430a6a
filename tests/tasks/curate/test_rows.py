"""The Parquet tables between curation steps."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.tables import REMOVED_COLUMNS, TICKET_COLUMNS
from tasks.curate.rows import read_rows, removed_table, ticket_table, write_removed, write_tickets


def tickets(n: int) -> list[dict[str, object]]:
    return [{"ticket_id": f"t{i % 7}", "source": "a.jsonl", "source_line": i, "body": "x" * i} for i in range(n)]


def test_rows_in_any_order_give_equal_bytes(tmp_path: Path) -> None:
    write_tickets(ticket_table(tickets(50)), tmp_path)
    first = (tmp_path / "tickets.parquet").read_bytes()
    write_tickets(ticket_table(tickets(50)[::-1]), tmp_path)
    assert (tmp_path / "tickets.parquet").read_bytes() == first


def test_row_groups_are_cut_by_text_too_and_bytes_stay_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.curate.rows.GROUP_BYTES", 500)
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
