"""Small files that stand for large ones are refused before they fill memory or disk."""

import gzip
import time
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from schemas.errors import SecurityError
from schemas.source import FilesSource
from tasks.sources.readers import read_jsonl, streams
from tasks.sources.readers.read_jsonl import read_json
from tasks.sources.readers.streams import open_binary
from tests.support.synced import extract

MIB = 1 << 20


def bomb(path: Path, n_bytes: int) -> Path:
    """A file that becomes so many zeros."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=9) as stream:
            for _ in range(n_bytes // MIB):
                stream.write(bytes(MIB))
    else:
        with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as stream:
            for _ in range(n_bytes // MIB):
                stream.write(bytes(MIB))
    return path


def _read_through(path: Path) -> None:
    with open_binary(path) as stream:
        while stream.read(MIB):
            pass


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_bomb_ends_the_reading_with_memory_flat(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 8 * MIB)
    path = bomb(tmp_path / name, 256 * MIB)
    assert path.stat().st_size < MIB
    tracemalloc.start()
    try:
        with pytest.raises(SecurityError, match="TG0816") as caught:
            _read_through(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 * MIB  # one piece of zstd at most, never the whole
    assert "allowed are 250 times" in str(caught.value)
    assert caught.value.where == str(path)


def test_a_source_that_is_a_bomb_ends_the_step_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE_BYTES", 8 * MIB)
    bomb(tmp_path / "a.csv.zst", 64 * MIB)
    source = FilesSource(kind="files", paths=("a.csv.zst",))
    with pytest.raises(SecurityError, match="TG0816"):
        extract(source, tmp_path)


def test_real_exports_and_small_files_pass(tmp_path: Path) -> None:
    lines = b"".join(b'{"ticket_id": "%d", "body": "the same words again and again"}\n' % n for n in range(20_000))
    for path, data in ((tmp_path / "a.gz", gzip.compress(lines, 9)), (tmp_path / "a.zst", zstandard.compress(lines))):
        path.write_bytes(data)
        with open_binary(path) as stream:
            assert stream.read() == lines


def test_a_json_document_too_large_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_jsonl, "MAX_DOCUMENT_BYTES", 10)
    (tmp_path / "a.json").write_text("[{}, {}, {}]")
    with pytest.raises(SecurityError, match=r"TG0816.*the limit is 10 bytes"):
        list(read_json(tmp_path / "a.json"))


@pytest.mark.parametrize("line", [b"\n", b" \t\n"])
def test_a_file_of_blank_lines_is_refused_within_seconds(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "blank.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as stream:
        for _ in range(100):
            stream.write(line * (MIB // len(line)))
    began = time.process_time()  # of this process alone: a busy machine is no fault of the reader
    with pytest.raises(SecurityError, match=r"TG0816.*blank"):
        list(read_jsonl.read_jsonl(path))
    assert time.process_time() - began < 5


def test_blank_lines_between_rows_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "spaced.jsonl"
    path.write_bytes(b'{"a": 1}\n\n \n' * 200_000)
    assert sum(len(batch) for batch in read_jsonl.read_jsonl(path)) == 200_000
