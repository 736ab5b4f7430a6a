"""Source files as bytes and lines: decompressed by suffix, each line with its number and offset, in flat memory."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import zstandard

from schemas.errors import DataError, SecurityError
from tasks.sources.readers.records import MAX_ROW_BYTES, Numbers

COMPRESSED = (".gz", ".zst")
_CHUNK_BYTES = 1 << 19  # a chunk and what is parsed from it fit a core's cache
_BLOCK_LINES = 2048
MAX_RATIO = 250
"""Highest ratio of decompressed to compressed size; exports of tickets have 5 to 40."""
FREE_BYTES = 1 << 27
"""Files that decompress to no more bytes are never refused for their ratio."""
MAX_PLAIN_BYTES = 1 << 36
"""Largest decompressed size of any file, 64 GiB."""
_ZSTD_PIECE_BYTES = 4096
"""Bytes passed to zstd at once. A block of four bytes may decompress to 128 KiB, so this is at most 128 MiB."""
_WIDE_MARKS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
"""Byte order marks of encodings that are not read; that of UTF-32 begins with that of UTF-16."""
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its line break; `data` is None for a line over MAX_ROW_BYTES."""

    number: int
    offset: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Consecutive lines without their line breaks; None for a line over MAX_ROW_BYTES."""

    number: int
    """Of the first line."""
    offsets: Numbers
    lines: Sequence[bytes | None]
    ended: bool
    """The last line ends with a line break."""


class _Filling(Protocol):
    """Something that reads into a buffer."""

    def readinto(self, buffer: memoryview, /) -> int: ...


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open the file, decompressing .gz and .zst.

    Raises:
        DataError: TG0202, the compressed data is damaged or truncated; raised while reading.
        SecurityError: TG0816, it decompresses to more than a file of tickets would; raised while reading.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.open(raw, "rb") as stream:
                    yield io.BufferedReader(_Capped(stream, path), _CHUNK_BYTES)
            elif path.suffix == ".zst":
                yield io.BufferedReader(_Capped(_ZstdFrames(raw), path), _CHUNK_BYTES)
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"the compressed file is damaged or truncated: {error}",
            code="TG0202",
            where=str(path),
            hint="copy the file again; nothing was read from it",
        ) from None


class _Capped(io.RawIOBase):
    """A decompressed stream with a size limit that depends on the compressed size."""

    def __init__(self, plain: _Filling, path: Path) -> None:
        self._plain, self._path, self._n_bytes = plain, path, 0
        self._most = min(max(FREE_BYTES, MAX_RATIO * path.stat().st_size), MAX_PLAIN_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n_bytes = self._plain.readinto(buffer)
        self._n_bytes += n_bytes
        if self._n_bytes > self._most:
            raise SecurityError(
                f"the file becomes more than {self._most:,} bytes when it is decompressed; allowed are {MAX_RATIO} "
                f"times its own {self._path.stat().st_size:,} bytes ({FREE_BYTES:,} always, {MAX_PLAIN_BYTES:,} never)",
                code="TG0816",
                where=str(self._path),
                hint="if these are tickets, decompress the file yourself and name the result",
            )
        return n_bytes


class _ZstdFrames(io.RawIOBase):
    """zstd frames, one after another. Unlike zstandard's own stream reader it raises on a truncated file."""

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
                self._compressed = self._raw.read(_ZSTD_PIECE_BYTES)
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
    """Every line of the stream; a byte order mark is removed, but counted in offsets.

    Raises:
        DataError: TG0202, the stream is UTF-16 or UTF-32.
    """
    number = offset = 0
    while data := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        start, offset = offset, offset + len(data)
        too_long = len(data) > MAX_ROW_BYTES and not data.endswith(b"\n")
        if number == 1:
            data = _without_mark(data, where)
        if too_long:
            while rest := stream.readline(_CHUNK_BYTES):
                offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield Line(number, start, None)
        else:
            yield Line(number, start, data)


def read_blocks(stream: BinaryIO, *, where: str) -> Iterator[LineBlock]:
    """The lines of `read_lines`, many at once, which is faster.

    Raises:
        DataError: TG0202, the stream is UTF-16 or UTF-32.
    """
    number, offset = 1, 0
    held: list[bytes] = []  # the start of a line that has not been read to its end
    n_held = 0
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        at_end = not chunk
        if number == 1 and n_held < len(_UTF8_MARK):
            _refuse_wide(b"".join([*held, chunk]), where)
        end = chunk.rfind(b"\n") + 1
        if not end and not at_end:
            n_held += len(chunk)
            if n_held <= MAX_ROW_BYTES:
                held.append(chunk)
            else:
                held.clear()
            continue
        if n_held > MAX_ROW_BYTES:
            rest = chunk.find(b"\n") + 1
            yield LineBlock(number, np.array([offset], np.int64), [None], ended=not at_end)
            number, offset = number + 1, offset + n_held + rest
            chunk, end, n_held = chunk[rest:], end - rest, 0
            held.clear()
        data = b"".join([*held, chunk[:end]])
        if data:
            block = _block(data, number, offset)
            yield block
            number, offset = number + len(block.lines), offset + len(data)
        if at_end:
            return
        held, n_held = [chunk[end:]], len(chunk) - end


def blocks_of(lines: Iterable[bytes]) -> Iterator[LineBlock]:
    """Lines made in memory, as if they were in a file; a missing line break is added."""
    number, offset = 1, 0
    source = iter(lines)
    while made := list(islice(source, _BLOCK_LINES)):
        data = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in made)
        block = _block(data, number, offset)
        yield block
        number, offset = number + len(block.lines), offset + len(data)


def _block(data: bytes, number: int, offset: int) -> LineBlock:
    whole = data.split(b"\n")
    ended = not whole[-1]
    if ended:
        whole.pop()
    sizes = list(map(len, whole))
    offsets = np.empty(len(sizes), np.int64)
    offsets[0] = offset
    np.cumsum(np.array(sizes[:-1], np.int64) + 1, out=offsets[1:])
    offsets[1:] += offset
    if number == 1:
        whole[0] = whole[0].removeprefix(_UTF8_MARK)
    if max(sizes) > MAX_ROW_BYTES:
        short = [line if size <= MAX_ROW_BYTES else None for line, size in zip(whole, sizes, strict=True)]
        return LineBlock(number, offsets, short, ended)
    return LineBlock(number, offsets, whole, ended)


def _without_mark(data: bytes, where: str) -> bytes:
    _refuse_wide(data, where)
    return data.removeprefix(_UTF8_MARK)


def _refuse_wide(data: bytes, where: str) -> None:
    for mark, encoding in _WIDE_MARKS.items():
        if data.startswith(mark):
            raise DataError(
                f"the file is {encoding}; only UTF-8 is read",
                code="TG0202",
                where=where,
                hint=f"convert it: iconv -f {encoding} -t UTF-8 FILE > FILE.utf8",
            )
