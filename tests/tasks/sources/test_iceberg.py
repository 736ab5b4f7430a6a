"""Iceberg tables: one snapshot, each of its rows once, and of deleted rows none."""

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigError, DataError, SecurityError
from schemas.source import DuckDBSource, IcebergSource
from tasks.curate.extract import extract_tickets
from tasks.curate.rows import read_rows
from tasks.sources import iceberg as reader
from tasks.sources.duckdb_file import read_duckdb
from tasks.sources.iceberg import Deletes
from tasks.sources.kind import Place
from tasks.sources.registry import check_source, fingerprint_source, ingest_source, ingested
from tests.support.iceberg_table import NAME, Lake

_numbers = itertools.count()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(tmp_path / "lake")
    try:
        yield lake
    finally:
        lake.close()


def source(lake: Lake | None = None, **options: Any) -> IcebergSource:
    named = {"catalog": str(lake.database), "table": NAME} if lake is not None else {}
    usual = {"kind": "iceberg", "columns": {"body": "question"}}
    return IcebergSource.model_validate({**usual, **named, **options})


def fingerprint(spec: IcebergSource, root: Path = Path()) -> str:
    return fingerprint_source(spec, root=root)


def rows(spec: IcebergSource, tmp_path: Path, root: Path = Path()) -> dict[str, dict[str, Any]]:
    out = tmp_path / f"out-{next(_numbers)}"
    out.mkdir()
    table = extract_tickets(source=spec, fingerprint=fingerprint(spec, root), place=Place(root), out=out)
    found = read_rows(table.tickets).to_pylist()
    assert table.rows.n_in == table.rows.n_out == len({row["ticket_id"] for row in found}) == len(found)
    return {row["ticket_id"]: row for row in found}


def named(*numbers: int) -> set[str]:
    return {f"t{number}" for number in numbers}


def test_rows_of_the_current_snapshot_are_read_and_name_it(lake: Lake, tmp_path: Path) -> None:
    lake.append(range(3))
    lake.append(range(3, 5))
    found = rows(source(lake), tmp_path)
    assert set(found) == named(0, 1, 2, 3, 4)
    row = found["t1"]
    assert (row["body"], row["reply"], row["customer_id"]) == ("question 1", "answer 1", "c1")
    assert str(row["created_at"]) == "2026-06-01 12:00:00.000001"
    assert {row["source"] for row in found.values()} == {f"iceberg:{NAME}@{lake.snapshot_id}"}
    assert ingest_source(source(lake), root=Path(), landed=tmp_path / "landed") is None
    assert ingested(source(lake), landed=tmp_path / "landed") is None


def test_deleted_rows_are_read_from_no_snapshot_in_which_they_are_deleted(lake: Lake, tmp_path: Path) -> None:
    one = lake.append(range(5))
    two = lake.append(range(5, 9))
    before = lake.snapshot_id
    lake.delete_positions({one: [0, 3], two: [1]})
    lake.delete_positions({two: [1, 2]})  # one place twice
    assert set(rows(source(lake), tmp_path)) == named(1, 2, 4, 5, 8)
    assert set(rows(source(lake, snapshot_id=before), tmp_path)) == named(*range(9))
    lake.append([20, 21, 22])  # later than the deletes: none of its places is meant
    lake.table.delete("ticket_id = 't4'")  # pyiceberg rewrites the file
    assert set(rows(source(lake), tmp_path)) == named(1, 2, 5, 8, 20, 21, 22)


def test_rows_that_deletion_vectors_name_are_not_read(lake: Lake, tmp_path: Path) -> None:
    one, two, _ = lake.append(range(5)), lake.append(range(5, 9)), lake.append(range(9, 12))
    path = lake.delete_by_vector({one: [0, 3], two: [1]})
    assert set(rows(source(lake), tmp_path)) == named(1, 2, 4, 5, 7, 8, 9, 10, 11)
    lake.delete_positions({one: [4]})
    assert set(rows(source(lake), tmp_path)) == named(1, 2, 5, 7, 8, 9, 10, 11)
    whole = path.read_bytes()
    for place in range(12, 60, 3):  # in the vector of the first data file
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="TG0202"):
            rows(source(lake), tmp_path)


def test_a_byte_that_changed_inside_a_page_of_a_data_file_is_noticed(lake: Lake, tmp_path: Path) -> None:
    path = Path(lake.append(range(500)).removeprefix("file://"))
    pq.write_table(pq.read_table(path), path, write_page_checksum=True, use_dictionary=False, compression="none")
    assert len(rows(source(lake), tmp_path)) == 500
    path.write_bytes(path.read_bytes().replace(b"question 250", b"question 999"))
    with pytest.raises(DataError, match="TG0202"):
        rows(source(lake), tmp_path)


def test_equality_deletes_are_refused_and_an_earlier_snapshot_is_not(lake: Lake, tmp_path: Path) -> None:
    lake.append(range(5))
    before = lake.snapshot_id
    lake.delete_equal("customer_id", ["c1"])
    with pytest.raises(DataError, match=r"TG0273.*equality deletes") as raised:
        rows(source(lake), tmp_path)
    assert "rewrite_data_files" in str(raised.value.hint)
    assert len(rows(source(lake, snapshot_id=before), tmp_path)) == 5


def test_deletes_that_do_not_match_their_rows_are_refused(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lake.append(range(5))
    lake.delete_positions({path.removeprefix("file://"): [0, 3]})  # another spelling of the same file
    with pytest.raises(DataError, match=r"TG0273.*yields 5 rows, but 3 of its rows are not deleted"):
        rows(source(lake), tmp_path)
    monkeypatch.setattr(Deletes, "n_rows", lambda *_: 0)
    assert len(rows(source(lake), tmp_path)) == 5, "without our own count two deleted rows would be learned from"


def test_an_equal_snapshot_has_an_equal_fingerprint_and_another_one_another(lake: Lake, tmp_path: Path) -> None:
    lake.append(range(3))
    pinned = source(lake, snapshot_id=lake.snapshot_id)
    first, held = fingerprint(source(lake)), fingerprint(pinned)
    assert first == held
    lake.append([7])
    assert fingerprint(source(lake)) != first
    assert fingerprint(pinned) == held
    assert set(rows(pinned, tmp_path)) == named(0, 1, 2)
    with lake.table.update_schema() as update:
        update.rename_column("question", "inquiry")
    assert fingerprint(pinned) == held
    assert rows(pinned, tmp_path)["t1"]["body"] == "question 1"
    renamed = source(lake, columns={"body": "inquiry"})
    assert fingerprint(renamed) != fingerprint(pinned)
    assert rows(renamed, tmp_path)["t7"]["body"] == "question 7"


def test_a_table_that_was_copied_here_is_read_from_the_copy_alone(lake: Lake, tmp_path: Path) -> None:
    lake.delete_positions({lake.append(range(4)): [2]})
    expected = fingerprint(source(lake))
    copy = tmp_path / "copied" / "tickets"
    shutil.copytree(lake.root, copy)
    shutil.rmtree(lake.root)
    spec = source(path=f"tickets/metadata/{lake_metadata(copy)}")
    assert set(rows(spec, tmp_path, root=copy.parent)) == named(0, 1, 3)
    assert fingerprint(spec, copy.parent) == expected
    folder = source(path="tickets")
    with pytest.raises(DataError, match=r"TG0201.*version-hint.text"):
        rows(folder, tmp_path, root=copy.parent)
    for hint in (lake_metadata(copy).removesuffix(".metadata.json"), lake_metadata(copy)):
        (copy / "metadata" / "version-hint.text").write_text(hint)
        assert len(rows(folder, tmp_path, root=copy.parent)) == 3
    shutil.copy(copy / "metadata" / lake_metadata(copy), copy / "metadata" / "v9.metadata.json")
    (copy / "metadata" / "version-hint.text").write_text("9\n")
    assert len(rows(folder, tmp_path, root=copy.parent)) == 3


def lake_metadata(folder: Path) -> str:
    return max((folder / "metadata").glob("*-*.metadata.json"), key=lambda path: path.stat().st_mtime).name


@pytest.mark.parametrize("place", ["/etc/hostname", "file:///etc/hostname", "s3://other/x.parquet", "../../x.parquet"])
def test_a_file_outside_of_the_table_is_not_opened(lake: Lake, tmp_path: Path, place: str) -> None:
    lake.append(range(2))
    metadata = json.loads(lake.metadata.read_text())
    for snapshot in metadata["snapshots"]:
        snapshot["manifest-list"] = f"{metadata['location']}/{place}" if place.startswith("..") else place
    lake.publish(metadata)
    with pytest.raises(SecurityError, match="TG0818"):
        rows(source(lake), tmp_path)


def test_a_link_that_leads_out_of_the_table_is_not_followed(lake: Lake, tmp_path: Path) -> None:
    path = Path(lake.append(range(2)).removeprefix("file://"))
    path.rename(tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(SecurityError, match="TG0818"):
        rows(source(lake), tmp_path)


def test_properties_of_the_table_name_no_code_and_no_place(lake: Lake, tmp_path: Path) -> None:
    lake.append(range(2))
    metadata = json.loads(lake.metadata.read_text())
    metadata["properties"] |= {
        "py-io-impl": "antigravity.Files", "s3.endpoint": "http://127.0.0.1:1", "write.data.path": "/etc",
    }  # fmt: skip
    lake.publish(metadata)
    assert len(rows(source(lake), tmp_path)) == 2
    assert "antigravity" not in sys.modules


def test_a_missing_table_or_file_is_named(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.append(range(2))
    with pytest.raises(ConfigError, match=r"TG0130.*support.ticket"):
        fingerprint(source(lake, table="support.ticket"))
    with pytest.raises(ConfigError, match=rf"TG0130.*no snapshot 12; the latest are {lake.snapshot_id}"):
        fingerprint(source(lake, snapshot_id=12))
    with pytest.raises(DataError, match=r"TG0201.*no such catalog"):
        fingerprint(source(lake, catalog=str(tmp_path / "none.db")))
    with pytest.raises(DataError, match=r"TG0202.*not an SQL catalog"):
        fingerprint(source(lake, catalog=str(lake.metadata)))
    for place in ("none", "none/metadata/v1.metadata.json"):
        with pytest.raises(DataError, match="TG0201"):
            fingerprint(source(path=str(tmp_path / place)))
    broken = tmp_path / "t" / "metadata" / "v1.metadata.json"
    broken.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"format-version": 9}', '{"format-version": 2, "secret": "amber ibis"}'):
        broken.write_text(text)
        with pytest.raises(DataError, match="TG0202") as raised:
            fingerprint(source(path=str(broken)))
        assert "amber" not in str(raised.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"TG0112.*pyiceberg"):
        check_source(source(lake))


def test_a_damaged_or_lost_file_is_reported_and_nothing_is_kept(lake: Lake, tmp_path: Path) -> None:
    path = Path(lake.append(range(200)).removeprefix("file://"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="TG0202"):
        rows(source(lake), tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="TG0201"):
        rows(source(lake), tmp_path)


def test_a_damaged_list_of_deletes_deletes_no_row_less(lake: Lake, tmp_path: Path) -> None:
    lake.delete_positions({lake.append(range(100)): range(40)})
    kept = set(rows(source(lake), tmp_path))
    (path,) = lake.root.glob("data/delete-*.parquet")
    whole, outcomes = path.read_bytes(), set()
    for place in range(4, len(whole), len(whole) // 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = list(reader.read_iceberg(source(lake), root=Path()))
        except (DataError, SecurityError) as error:
            outcomes.add(error.code)
        else:
            assert sum(map(len, found)) == len(kept), place
            outcomes.add("read")
    assert outcomes >= {"read", "TG0202"}


def test_a_table_without_a_snapshot_holds_no_row(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="TG0221"):
        rows(source(lake), tmp_path)


def test_a_snapshot_that_comes_while_another_is_read_is_not_mixed_with_it(lake: Lake, tmp_path: Path) -> None:
    lake.append(range(3))
    spec = source(lake)
    seen = fingerprint(spec)
    lake.append([9])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="TG0203"):
        extract_tickets(source=spec, fingerprint=seen, place=Place(Path()), out=out)


def test_the_catalog_of_a_ducklake_is_named_as_one(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "lake.ducklake")) as connection:
        connection.execute("CREATE TABLE ducklake_snapshot (snapshot_id BIGINT); CREATE TABLE notes (body VARCHAR)")
    spec = DuckDBSource(kind="duckdb", database="lake.ducklake", table="tickets")
    with pytest.raises(ConfigError, match=r"TG0130.*no table 'tickets'") as raised:
        list(read_duckdb(spec, tmp_path / "lake.ducklake"))
    assert "DuckLake catalogs are not read; export the table there: COPY (FROM lake.tickets)" in str(raised.value.hint)
