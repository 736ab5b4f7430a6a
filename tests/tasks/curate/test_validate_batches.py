"""Validation batch by batch gives the bytes that all rows at once give, wherever the borders of batches are."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import TableSpec
from schemas.errors import DataError
from tasks.curate import row_groups, rows, spill, validate
from tasks.curate.one_per_id import keep_one_per_id
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets
from tasks.curate.validate import clean_text

Row = dict[str, Any]
Conflict = Literal["newest", "quarantine"]
CONFLICTS: tuple[Conflict, ...] = ("newest", "quarantine")
RING = "A\u030a"
"""One letter as two: as one it comes after every ASCII letter, and not before `B`."""


def in_groups(patched: pytest.MonkeyPatch, n_rows: int) -> None:
    """Cut tables that are written, and those handed over, into batches of so many rows."""
    for module in (row_groups, rows):
        patched.setattr(module, "GROUP_ROWS", n_rows)


def stage(folder: Path, given_rows: list[Row], *, is_read_next: bool = True) -> TicketTable:
    folder.mkdir()
    placed = [{"source": "t.jsonl", "source_line": line, **row} for line, row in enumerate(given_rows, start=1)]
    n_rows = write_tickets(ticket_table(placed), folder, is_read_next=is_read_next)
    write_removed([], folder)
    return TicketTable(root=folder, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def in_batches(tickets: TicketTable, out: Path, on_conflict: Conflict) -> TicketTable:
    out.mkdir()
    table = TableSpec(on_conflicting_id=on_conflict, fail_above=1, warn_above=1)
    validated = validate.validate_tickets(tickets=tickets, table=table, out=out)
    assert {path.name for path in out.iterdir()} == {"tickets.parquet", "removed.parquet"}
    return validated


def at_once(tickets: TicketTable, out: Path, on_conflict: Conflict) -> tuple[list[Row], list[Row], int]:
    """The rows kept and removed, written to `out`, and the number of texts changed: each id alone, and no batches."""
    out.mkdir()
    groups: dict[str, list[Row]] = {}
    removed: list[Row] = []
    n_changed = 0
    for row in read_rows(tickets.tickets).to_pylist():
        clean = {name: _clean(row[name]) for name in ("ticket_id", "body")}
        n_changed += sum(clean[name] != row[name] for name in clean)
        empty = [name for name in clean if clean[name] is None]
        if empty:
            place = {"ticket_id": clean["ticket_id"], "source": row["source"], "source_line": row["source_line"]}
            reason = f"Field {empty[0]} is required and empty."
            removed.append({**place, "outcome": "quarantined", "code": "TG0210", "reason": reason, "field": empty[0]})
        else:
            groups.setdefault(str(clean["ticket_id"]), []).append(row | clean)
    kept: list[Row] = []
    for group in groups.values():
        for rows_kept, rows_gone in keep_one_per_id([ticket_table(group)], on_conflict):
            kept += rows_kept.to_pylist()
            removed += rows_gone
    write_tickets(ticket_table(kept), out, is_read_next=False)
    write_removed(removed, out)
    return kept, removed, n_changed


def _clean(text: str | None) -> str | None:
    return None if text is None else clean_text(text) or None


def check(given_rows: list[Row], *, n_rows: int, on_conflict: Conflict, is_read_next: bool = True) -> RowCounts:
    """Validate in batches of `n_rows`, compare with all rows at once, and return the counts of both."""
    result = refused = None
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        in_groups(patched, n_rows)
        root = Path(folder)
        kept, removed, n_changed = at_once(stage(root / "one", given_rows), root / "plain", on_conflict)
        try:
            tickets = stage(root / "two", given_rows, is_read_next=is_read_next)
            result = in_batches(tickets, root / "out", on_conflict)
        except DataError as error:
            refused = error.code
        assert refused == (None if kept else "TG0221")
        for name in ("tickets.parquet", "removed.parquet"):
            assert (root / "out" / name).read_bytes() == (root / "plain" / name).read_bytes(), name
    outcomes = Counter(row["outcome"] for row in removed)
    counts = RowCounts(
        n_in=len(given_rows),
        n_out=len(kept),
        n_quarantined=outcomes["quarantined"],
        n_dropped=outcomes["dropped"],
        n_merged=outcomes["merged"],
    )
    if result is not None:
        codes = Counter(row["code"] for row in removed)
        assert result.rows == counts
        n_nul = sum("\0" in (row.get(name) or "") for row in given_rows for name in ("ticket_id", "body"))
        texts = {"normalised_texts": n_changed, "nul_texts": n_nul}
        assert result.notes == {**codes, **{name: n for name, n in texts.items() if n}}
    return counts


IDS = ("a", "b", "c", "B", "\0", "a\0", "\0c", "b\r", "\x07zz", RING, f"{RING}x", "Å")
BODIES = ("one", "two", "one\0", "Cafe\u0301", "\0", None)
TIMES = (None, datetime(2026, 1, 1), datetime(2026, 1, 2))
ROW = st.fixed_dictionaries(
    {"ticket_id": st.sampled_from(IDS), "body": st.sampled_from(BODIES), "updated_at": st.sampled_from(TIMES)}
)


@given(st.lists(ROW, max_size=30), st.integers(1, 6), st.sampled_from(CONFLICTS), st.booleans())
def test_any_rows_give_the_bytes_of_all_at_once(
    drawn: list[Row], n_rows: int, on_conflict: Conflict, is_read_next: bool
) -> None:
    check(drawn, n_rows=n_rows, on_conflict=on_conflict, is_read_next=is_read_next)


@pytest.mark.parametrize("on_conflict", CONFLICTS)
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 100])
def test_rows_of_one_id_meet_over_any_number_of_borders(n_rows: int, on_conflict: Conflict) -> None:
    ids = ["a", "b", "b", "b", "b", "b", "b", "b", "c", "d", "d", "e"]
    repeated = [{"ticket_id": name, "body": f"text {place % 3}"} for place, name in enumerate(ids)]
    counts = check(repeated, n_rows=n_rows, on_conflict=on_conflict)
    assert counts.n_merged == 4
    assert counts.n_out == (5 if on_conflict == "newest" else 3)


def test_the_size_of_batches_that_are_read_leaves_no_trace(tmp_path: Path) -> None:
    given_rows = [{"ticket_id": f"{place % 40:02d}", "body": f"text {place % 3}"} for place in range(120)]
    results = []
    for n_rows in (1, 7, 1000):
        with pytest.MonkeyPatch.context() as patched:
            in_groups(patched, n_rows)
            tickets = stage(tmp_path / f"extract {n_rows}", given_rows, is_read_next=False)
        result = in_batches(tickets, tmp_path / f"out {n_rows}", "newest")
        results.append((result.tickets.read_bytes(), result.removed.read_bytes(), result.rows, result.notes))
    assert results[0] == results[1] == results[2]


def test_long_texts_cut_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "GROUP_BYTES", 400)
    given_rows = [{"ticket_id": f"{place % 9}", "body": "long text " * (place % 7 + 1)} for place in range(40)]
    assert check(given_rows, n_rows=100, on_conflict="newest", is_read_next=False).n_out == 9


@pytest.mark.parametrize(("ids", "is_sorted_aside"), [(("A", "B\0", "C"), False), (("A", RING, "B"), True)])
def test_only_ids_that_change_places_are_sorted_in_files_aside(
    ids: tuple[str, ...], is_sorted_aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[Path] = []
    write = spill.SortedPart.__init__

    def noting(part: spill.SortedPart, path: Path, table: Any) -> None:
        paths.append(path)
        write(part, path, table)

    monkeypatch.setattr(spill.SortedPart, "__init__", noting)
    given_rows = [{"ticket_id": name, "body": body} for name in ids for body in ("one", "two", "one")]
    assert check(given_rows, n_rows=2, on_conflict="newest").n_out == 3
    assert bool(paths) == is_sorted_aside


def test_an_empty_table_has_no_valid_ticket_and_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TG0221.*no valid ticket is left of 0 rows read: there were none"):
        in_batches(stage(tmp_path / "extract", []), tmp_path / "out", "newest")
    assert read_rows(tmp_path / "out" / "tickets.parquet").num_rows == 0
