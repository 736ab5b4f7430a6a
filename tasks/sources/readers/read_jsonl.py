"""JSON files as records: JSON Lines line by line, and `.json` documents that hold a list of objects."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson

from schemas.errors import SecurityError
from tasks.sources.readers.records import MAX_ROW_BYTES, Fault, Record, RowBatch, fault_of
from tasks.sources.readers.repeated_keys import repeated_key, without_repeated_keys
from tasks.sources.readers.rows_read import DictRows
from tasks.sources.readers.streams import Line, LineBlock, open_binary, read_blocks, read_lines
from tasks.sources.readers.values import kind_of

_BLANK = b" \t\r\n"
MAX_BLANK_LINES = 100_000
"""Beyond ten for each row; a compressed file of 3 MB can hold 800 million, each examined like a row."""
MAX_DOCUMENT_BYTES = 1 << 31
"""Of a `.json` file, which is one value and read whole: 2 GiB."""


def read_jsonl(path: Path) -> Iterator[RowBatch]:
    """Every line that is not blank, as an object or as its fault; a bad line does not hide the next one.

    Raises:
        DataError: TG0202, the file is UTF-16 or UTF-32, or its compression is damaged.
        SecurityError: TG0816, as `parse_blocks`.
    """
    with open_binary(path) as stream:
        yield from parse_blocks(read_blocks(stream, where=str(path)))


def parse_blocks(blocks: Iterable[LineBlock]) -> Iterator[RowBatch]:
    """What `parse_lines` makes of the same lines, one batch per block.

    Raises:
        SecurityError: TG0816, far more lines are blank than hold a row.
    """
    n_blank = n_rows = 0
    for block in blocks:
        batch = _parse_block(block)
        n_here = len(batch)
        n_blank, n_rows = n_blank + len(block.lines) - n_here, n_rows + n_here
        if n_blank > MAX_BLANK_LINES + 10 * n_rows:
            raise SecurityError(
                f"{n_blank:,} lines are blank and {n_rows:,} are rows; the limit is {MAX_BLANK_LINES:,} "
                "blank lines plus ten per row",
                code="TG0816",
                hint="if these are tickets, remove the blank lines: grep -v '^$'",
            )
        yield batch


def _parse_block(block: LineBlock) -> RowBatch:
    loads = orjson.loads
    rows: list[Mapping[str, object]] = []
    odd: list[int] = []  # lines that hold no object, and lines to examine again
    for place, data in enumerate(block.lines):
        if data == b"":  # checked first: a block may hold half a million blank lines
            odd.append(place)
            continue
        try:
            value = loads(data)  # type: ignore[arg-type]  # None is refused as any other fault
        except Exception:  # parsed again below, where errors of the machine are raised
            odd.append(place)
            continue
        if type(value) is dict:
            rows.append(value)
        else:
            odd.append(place)
    lines = np.arange(block.number, block.number + len(block.lines))
    rows, odd = without_repeated_keys(block.lines, rows, odd)
    if not odd:
        return RowBatch(DictRows(rows), lines, block.offsets)
    faulty = list(parse_lines(_line(block, place) for place in odd if block.lines[place] != b""))
    return RowBatch(DictRows(rows), np.delete(lines, odd), np.delete(block.offsets, odd), faulty)


def _line(block: LineBlock, place: int) -> Line:
    data = block.lines[place]
    has_break = block.ended or place + 1 < len(block.lines)
    whole = data + b"\n" if data is not None and has_break else data
    return Line(block.number + place, int(block.offsets[place]), whole)


def read_json(path: Path) -> Iterator[Record]:
    """The objects of a `.json` file: a list of them, one alone, or one per line. Records count from 1.

    Items of a list have no line of their own, so they are numbered by position, without offsets. A list that does not
    parse is one faulty record, since its items cannot be separated.

    Raises:
        SecurityError: TG0816, it is larger than memory should hold.
    """
    with open_binary(path) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SecurityError(
            f"a .json document is read whole; the limit is {MAX_DOCUMENT_BYTES:,} bytes",
            code="TG0816",
            where=str(path),
            hint="write one object per line to a .jsonl file, which is read in pieces",
        )
    if not data.strip(_BLANK):
        return
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if data.lstrip(_BLANK).startswith(b"["):
            yield Record(max(error.lineno, 1), None, _why(data, error, unit="file"))
        else:
            with open_binary(path) as stream:
                yield from parse_lines(read_lines(stream, where=str(path)))
        return
    values = document if isinstance(document, list) else [document]
    repeated = repeated_key(data, document)
    for position, value in enumerate(values, start=1):
        found = repeated.get(position - 1) or (value if isinstance(value, dict) else _not_an_object(value))
        yield Record(position, None, found)


def parse_lines(lines: Iterable[Line]) -> Iterator[Record]:
    """Lines of JSON as records, one at a time; blank lines are no rows."""
    for line in lines:
        if line.data is None:
            reason = f"The row is longer than {MAX_ROW_BYTES:,} bytes."
            yield Record(line.number, line.offset, Fault("TG0243", reason))
        elif line.data.strip(_BLANK):
            yield Record(line.number, line.offset, _parsed(line.data))


def _parsed(data: bytes) -> dict[str, object] | Fault:
    try:
        return _parse(data)
    except Exception as error:
        return fault_of(error)


def _parse(data: bytes) -> dict[str, object] | Fault:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _why(data, error, unit="line")
    if not isinstance(value, dict):
        return _not_an_object(value)
    return repeated_key(data, value).get(0, value)


def _not_an_object(value: object) -> Fault:
    return Fault("TG0240", f"The row is JSON of kind {kind_of(value)}; a row is an object.")


def _why(data: bytes, error: orjson.JSONDecodeError, *, unit: str) -> Fault:
    """Name the fault without repeating the data: orjson's message holds none, its `doc` does."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as broken:
        return Fault("TG0241", f"The {unit} is not UTF-8 at its byte {broken.start + 1}.")
    if b"\0" in data:
        return Fault("TG0240", f"The {unit} holds a NUL byte at its byte {data.index(0) + 1}.")
    cut = not data.endswith(b"\n") and error.pos >= len(data.decode("utf-8").rstrip())
    end = "; it ends without a line break, as if cut off" if cut and unit == "line" else ""
    return Fault("TG0240", f"The {unit} is not JSON: {error.msg} at character {error.pos + 1}{end}.")
