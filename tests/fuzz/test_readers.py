"""Any bytes under any suffix give rows and faults that add up, or an error with a code and no ticket text."""

import gzip
import io
import tempfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

from schemas.errors import TunegateError
from schemas.source import DuckDBSource, FilesSource
from tasks.curate.extract import extract_tickets
from tasks.curate.rows import read_rows
from tasks.sources.kind import Place
from tasks.sources.registry import fingerprint_source
from tests.fuzz.fuzzing import JSON, LEAK, fuzz, mutated

ROWS = [
    {"ticket_id": "a", "body": LEAK, "reply": "Yes.", "created_at": "2026-06-01T10:00:00Z", "rating": 4.5},
    {"ticket_id": "b", "messages": [{"role": "user", "content": LEAK}, {"role": "assistant", "content": "No."}]},
    {"ticket_id": 7, "subject": None, "body": "ü\u2028x", "extra": [1, {"a": None}]},
]
LINES = [b"\n".join(map(orjson.dumps, ROWS)), b'{"body": 1e999}\n{"body"', b"\xef\xbb\xbf{}\r\n\r\n{}", b"[" * 300]
TABLES = [
    b"ticket_id,body,reply\n1,zqleakq,yes\n2,\"a\"\"b\nc\",\n", b"body\tx\n\"zqleakq\t1\n2\t3", b"\xff\xfea\x00",
    b"a,a\n1,2\n", b"ticket_id,body\r\n1,\"x", b"\n\n\n", b"body\n" + b"\0" * 9,
]  # fmt: skip
DOCUMENTS = [orjson.dumps(ROWS), orjson.dumps(ROWS[0]), b"[1, {}, [], null]", b"{" * 2000, b"[" + b"[" * 5000]


def parquet() -> bytes:
    """A small Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table({"ticket_id": ["a", "b"], "body": [LEAK, None], "rating": [1.0, float("nan")]}), out)
    return out.getvalue()


def reads_or_explains(name: str, data: bytes) -> None:
    """Fail unless the rows add up or an error has a code."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / name).write_bytes(data)
        (root / "out").mkdir()
        source = FilesSource(kind="files", paths=(name,))
        try:
            table = extract_tickets(
                source=source, fingerprint=fingerprint_source(source, root=root), place=Place(root), out=root / "out"
            )
        except TunegateError as error:
            assert LEAK not in str(error)
            return
        rows, removed = read_rows(table.tickets), read_rows(table.removed).to_pylist()
        assert rows.num_rows + len(removed) == table.rows.n_in
        assert not any(LEAK in row["reason"] for row in removed)
        assert all(row["code"].startswith("TG") and row["source_line"] for row in removed)


@fuzz(
    st.one_of(mutated(LINES), st.lists(JSON, max_size=5).map(lambda rows: b"\n".join(map(_dumped, rows)))), examples=50
)
def test_json_lines(data: bytes) -> None:
    reads_or_explains("a.jsonl", data)


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return str(value).encode("utf-8", "replace")


@fuzz(mutated(DOCUMENTS), examples=40)
def test_json_documents(data: bytes) -> None:
    reads_or_explains("a.json", data)


@fuzz(mutated(TABLES), st.sampled_from(["a.csv", "a.tsv"]), examples=50)
def test_csv(data: bytes, name: str) -> None:
    reads_or_explains(name, data)


@fuzz(mutated([parquet()]), examples=40)
def test_parquet(data: bytes) -> None:
    reads_or_explains("a.parquet", data)


@fuzz(
    st.one_of(
        mutated([gzip.compress(LINES[0], mtime=0), b"\x1f\x8b"]).map(lambda data: ("a.jsonl.gz", data)),
        mutated([zstandard.compress(LINES[0]), b"\x28\xb5\x2f\xfd"]).map(lambda data: ("a.jsonl.zst", data)),
    ),
    examples=40,
)
def test_compressed(named: tuple[str, bytes]) -> None:
    reads_or_explains(*named)


@fuzz(st.binary(max_size=4096), st.integers(0, 4000), examples=10)
def test_duckdb(noise: bytes, place: int) -> None:
    """A database with bytes overwritten in one place."""
    from tasks.storage.warehouse import connect

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with connect(root / "a.duckdb", threads=1) as connection:
            connection.execute("CREATE TABLE tickets AS SELECT 'a' AS ticket_id, 'zqleakq' AS body")
        data = bytearray((root / "a.duckdb").read_bytes())
        data[place : place + len(noise)] = noise
        (root / "a.duckdb").write_bytes(bytes(data))
        (root / "out").mkdir()
        source = DuckDBSource(kind="duckdb", database="a.duckdb", table="tickets")
        try:
            extract_tickets(
                source=source, fingerprint=fingerprint_source(source, root=root), place=Place(root), out=root / "out"
            )
        except TunegateError as error:
            assert LEAK not in str(error)
