"""Source files as bytes and lines: decompressed by suffix, every line with its number and offset, memory flat.

It knows nothing of what the lines mean. Called by the readers of tasks/curate.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from schemas.errors import DataError
from tasks.curate.readers.records import MAX_ROW_BYTES

COMPRESSED = (".gz", ".zst")
_CHUNK_BYTES = 1 << 20
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its break; `data` is None for a line over MAX_ROW_BYTES."""

    number: int
    offset: int
    data: bytes | None


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open the file, decompressing .gz and .zst.

    Raises:
        DataError: TG0202, the compression is damaged or cut off; raised where reading meets it.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.open(raw, "rb") as stream:
                    yield stream  # type: ignore[misc]
            elif path.suffix == ".zst":
                yield io.BufferedReader(_ZstdFrames(raw), _CHUNK_BYTES)
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"the compressed file is damaged or cut off: {error}",
            code="TG0202",
            where=str(path),
            hint="copy the file again; nothing was read from it",
        ) from None


class _ZstdFrames(io.RawIOBase):
    """Frames one after another. zstandard's own stream reader ends a cut-off file in silence; this one does not."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._plain:
            if not self._compressed:
                self._compressed = self._raw.read(_CHUNK_BYTES // 16)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("it ends inside a zstd frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(self._compressed))
            self._compressed = b""
            if self._frame.eof:
                self._compressed = self._frame.unused_data
                self._frame = None
        n_bytes = min(len(buffer), len(self._plain))
        buffer[:n_bytes] = self._plain[:n_bytes]
        self._plain = self._plain[n_bytes:]
        return n_bytes


def read_lines(stream: BinaryIO, *, where: str) -> Iterator[Line]:
    """Every line of the stream; a byte order mark before the first is taken off, offsets count it.

    Raises:
        DataError: TG0202, the stream is UTF-16.
    """
    number = offset = 0
    while data := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        start, offset = offset, offset + len(data)
        if number == 1:
            data = _without_mark(data, where)
        if len(data) > MAX_ROW_BYTES and not data.endswith(b"\n"):
            while rest := stream.readline(_CHUNK_BYTES):
                offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield Line(number, start, None)
        else:
            yield Line(number, start, data)


def number_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """Lines made in memory, numbered as if they stood in a file; a missing line break is added."""
    offset = 0
    for number, data in enumerate(lines, start=1):
        whole = data if data.endswith(b"\n") else data + b"\n"
        yield Line(number, offset, whole)
        offset += len(whole)


def _without_mark(data: bytes, where: str) -> bytes:
    if data.startswith(_UTF16_MARKS):
        raise DataError(
            "the file is UTF-16; only UTF-8 is read",
            code="TG0202",
            where=where,
            hint="convert it: iconv -f UTF-16 -t UTF-8 FILE > FILE.utf8",
        )
    return data.removeprefix(_UTF8_MARK)
