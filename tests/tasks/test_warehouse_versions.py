"""DuckDB files of other storage versions: refused, or rewritten."""

import re
import struct
from pathlib import Path

import duckdb
import pytest

from schemas.errors import StorageError
from tasks.storage.warehouse import connect, create_database
from tasks.warehouse_versions import OURS, rewrite, storage_version


def of_version(path: Path, version: str) -> Path:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH '{path}' AS made (STORAGE_VERSION '{version}')")
        connection.execute("CREATE TABLE made.t AS SELECT range AS n, 'text ' || range AS text FROM range(500)")
        connection.execute("CREATE VIEW made.few AS SELECT * FROM made.t WHERE n < 3")
        connection.execute("COMMENT ON TABLE made.t IS 'what it is'")
    return path


def stamp(path: Path, number: int) -> None:
    """Write another version into the header, with the matching checksum, which DuckDB itself reports."""
    data = bytearray(path.read_bytes())
    data[12:20] = struct.pack("<Q", number)
    path.write_bytes(data)
    with pytest.raises(duckdb.Error) as caught:
        duckdb.connect(str(path))
    data[0:8] = struct.pack("<Q", int(re.findall(r"computed checksum (\d+)", str(caught.value))[0]))
    path.write_bytes(data)


def test_new_files_have_our_version(tmp_path: Path) -> None:
    create_database(tmp_path / "a.duckdb")
    assert storage_version(tmp_path / "a.duckdb") == OURS
    (tmp_path / "b.duckdb").write_bytes(b"a,b,c,d,e,f,g,h,i,j,k,l,m")
    assert storage_version(tmp_path / "b.duckdb") == 0


@pytest.mark.parametrize(("number", "age"), [(70, "newer"), (63, "older")])
def test_an_unsupported_version_is_refused_and_the_file_is_kept(tmp_path: Path, number: int, age: str) -> None:
    path = of_version(tmp_path / "a.duckdb", "v1.5.0")
    stamp(path, number)
    before = path.read_bytes()
    for act in (lambda: connect(path).__enter__(), lambda: rewrite(path, tmp_path / "backup")):
        with pytest.raises(StorageError, match=rf"TG0519.*storage version {number}, {age}"):
            act()
    assert path.read_bytes() == before
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("version", ["v1.0.0", "latest"])
def test_a_readable_file_of_another_version_is_rewritten_after_a_backup(tmp_path: Path, version: str) -> None:
    path = of_version(tmp_path / "a.duckdb", version)
    before = path.read_bytes()
    assert storage_version(path) != OURS
    rewrite(path, tmp_path / "backup.duckdb")
    assert storage_version(path) == OURS
    assert (tmp_path / "backup.duckdb").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"a.duckdb", "backup.duckdb"}
    with connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*), sum(n), max(text) FROM t").fetchone() == (500, 124750, "text 99")
        assert connection.execute("SELECT count(*) FROM few").fetchone() == (3,)
        assert connection.execute("SELECT comment FROM duckdb_tables()").fetchone() == ("what it is",)
