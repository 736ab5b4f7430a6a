"""Files that are no rows are named as what they are, with the way to a file that is read."""

import gzip
import io
import zipfile
from pathlib import Path

import duckdb
import pytest

from schemas.errors import TunegateError
from tasks.start.file_profile import profile_file

ROWS = "id,text\n" + "".join(f"{n},My lamp {n} is broken\n" for n in range(5))


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/sharedStrings.xml", ROWS)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "what", "hint"),
    [
        ("book.xlsx", workbook(), "an Excel workbook", "save the sheet with the tickets as CSV"),
        ("book.csv", workbook(), "an Excel workbook", "save the sheet with the tickets as CSV"),
        ("t.sqlite", b"SQLite format 3\0" + bytes(84), "a SQLite database", "sqlite3 -header -csv t.sqlite"),
        ("t.csv", gzip.compress(ROWS.encode(), mtime=0), "compressed with gzip", "mv t.csv t.csv.gz"),
        ("t.jsonl", b"%PDF-1.7 ", "a PDF", "as CSV or JSON Lines"),
        ("t 1.csv", ROWS.encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8 't 1.csv' > 'utf8-t 1.csv'"),
        ("t.csv", ROWS.encode("utf-32"), "UTF-32", "iconv -f UTF-32 -t UTF-8 t.csv > utf8-t.csv"),
        ("in.mbox", b"From a@example.org\n", "mail", "convert it to CSV or JSON Lines"),
        ("t.txt", ROWS.encode(), "no suffix that is read", "rename it to end in .csv, .tsv, .jsonl, .json or .parquet"),
        ("t.txt.gz", gzip.compress(ROWS.encode(), mtime=0), "no suffix that is read", "then .gz or .zst"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_named_with_what_to_do(
    name: str, data: bytes, what: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TunegateError) as caught:
        profile_file(tmp_path / name)
    assert what in caught.value.message
    assert hint in str(caught.value.hint)
    assert "lamp" not in str(caught.value)


def test_a_duckdb_database_is_declared_as_a_source(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "t.db")).execute("CREATE TABLE t AS SELECT 1 AS id").close()
    with pytest.raises(TunegateError, match="a DuckDB database") as caught:
        profile_file(tmp_path / "t.db")
    assert "source: {kind: duckdb, database: FILE, table: TABLE}" in str(caught.value.hint)
