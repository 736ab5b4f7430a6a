"""The fast ways of reading give what the plain ways give: lines, values and rows."""

import io
import sys
import unicodedata
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import DataError
from schemas.source import FilesSource
from tasks.curate.gather import Gathered
from tasks.curate.validate import PERHAPS_UNCLEAN, PERHAPS_UNCLEAN_MESSAGES, clean_messages, clean_text
from tasks.sources.readers import streams
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.paths import MISSING, parse_path, walk
from tasks.sources.readers.read_arrow import arrow_batches, read_parquet
from tasks.sources.readers.read_jsonl import parse_blocks, parse_lines
from tasks.sources.readers.records import Fault, Record, RowBatch, in_batches
from tasks.sources.readers.rows_read import ArrowRows
from tasks.sources.readers.typed import typed_column
from tasks.sources.readers.values import to_rating, to_text, to_time

# Lines

LINE = st.one_of(
    st.binary(max_size=12),
    st.just(b"\xef\xbb\xbf{}"),
    st.just(b" \r"),
    st.builds(orjson.dumps, st.dictionaries(st.sampled_from(["body", "x"]), st.text(max_size=8))),
)


def records(batches: Iterable[RowBatch]) -> list[Record]:
    """The rows of batches one by one, in the order of their lines."""
    found: list[Record] = []
    for batch in batches:
        found += batch.faulty
        for index in range(len(batch.rows)):
            content = batch.rows.pick(index, batch.rows.names(index))
            found.append(Record(int(batch.lines[index]), int(batch.offsets[index]), content))  # type: ignore[index]
    return sorted(found, key=lambda record: record.line)


@given(
    data=st.lists(LINE, max_size=12).map(b"\n".join), chunk=st.integers(1, 40), longest=st.sampled_from([5, 20, 999])
)
@example(data=b"\xef\xbb\xbf" + b"x" * 30 + b"\n{}", chunk=7, longest=20)
@example(data=b"{}\n" + b"x" * 50 + b"\n", chunk=10, longest=20)
@example(data=b"\xfe\xff", chunk=1, longest=20)
def test_blocks_hold_the_lines_that_are_read_one_by_one(data: bytes, chunk: int, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_CHUNK_BYTES", chunk)  # private: at its true size no example has a second chunk
        patch.setattr(streams, "MAX_ROW_BYTES", longest)
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            with pytest.raises(DataError, match="UTF-16"):
                list(streams.read_blocks(io.BytesIO(data), where="t"))
            return
        plain = list(parse_lines(streams.read_lines(io.BytesIO(data), where="t")))
        fast = records(parse_blocks(streams.read_blocks(io.BytesIO(data), where="t")))
    assert fast == plain


@given(lines=st.lists(LINE.filter(lambda line: b"\n" not in line), max_size=10))
def test_lines_made_in_memory_are_numbered_as_in_a_file(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    plain = list(parse_lines(streams.read_lines(io.BytesIO(data), where="t")))
    assert records(parse_blocks(streams.blocks_of(lines))) == plain


# Values

ISO = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["0001", "1899", "1970", "2024", "2099", "2100", "9999"]),
    st.sampled_from(["00", "01", "02", "04", "12", "13"]),
    st.sampled_from(["00", "01", "28", "29", "30", "31", "32"]),
    st.sampled_from(["T", " ", "t"]),
    st.sampled_from(["00", "23", "24", "9"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["", ".5", ".123", ".123456", ".123456789"]),
    st.sampled_from(["", "Z", "z", " UTC", "+02:00", "-19:59", "+23:59", "+24:00", "+0200", "+02", " +01:00"]),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-5, 5), st.floats(), st.text(max_size=6), ISO,
    st.sampled_from(["", " ", "\u3000", "\x1c", "4", " 4.5 ", "4,5", "1_0", "\u0664", "nan", "inf", "1e999", "1.", ".5",
                     "good", "1780300800", "2026-06-01", "-1"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip
PLAIN = {"body": to_text, "ticket_id": to_text, "created_at": to_time, "rating": to_rating}


def one_by_one(column: str, values: list[Any]) -> tuple[list[object], dict[int, Fault]]:
    made = [PLAIN[column](column, value) for value in values]
    faults = {index: value for index, value in enumerate(made) if isinstance(value, Fault)}
    return [None if index in faults else value for index, value in enumerate(made)], faults


@pytest.mark.parametrize(
    "text", ["1_0", "1_780_300_800", "\u0661", "\uff11\uff17\uff18\uff10\uff13\uff10\uff10\uff18\uff10\uff10"]
)
@pytest.mark.parametrize("column", ["rating", "created_at"])
def test_what_only_python_reads_as_a_number_is_quarantined(column: str, text: str) -> None:
    assert isinstance(PLAIN[column](column, text), Fault)
    array, faults = typed_column(column, [text, None])
    assert (array.to_pylist(), list(faults)) == ([None, None], [0])


@given(column=st.sampled_from(sorted(PLAIN)), values=st.lists(VALUES, max_size=8))
@example(column="rating", values=[2**53 + 1, 1.5, None])
@example(column="rating", values=[10**400, float("nan"), float("inf")])
@example(column="created_at", values=["2026-02-29T10:00:00Z", "2024-02-29T10:00:00Z", None])
def test_a_column_is_typed_as_its_values_are(column: str, values: list[Any]) -> None:
    array, faults = typed_column(column, values)
    assert (array.to_pylist(), faults) == one_by_one(column, values)


@given(
    column=st.sampled_from(["created_at", "body"]), values=st.lists(st.one_of(ISO, st.none()), min_size=1, max_size=30)
)
def test_a_column_of_times_is_typed_as_its_values_are(column: str, values: list[Any]) -> None:
    array, faults = typed_column(column, values)
    assert (array.to_pylist(), faults) == one_by_one(column, values)


ARROW_COLUMNS = [
    pa.array(["a", " ", None, ""]), pa.array(["a", None], pa.large_string()), pa.array(["a", "b"], pa.string_view()),
    pa.array(["a", "b", "a"]).dictionary_encode(), pa.array([b"ok", b"\xff"]), pa.array([1, None, -3]),
    pa.array([2**64 - 1], pa.uint64()), pa.array([True, None]), pa.array([1.5, float("nan"), float("inf"), None]),
    pa.array([Decimal("4.5"), None]), pa.array([datetime(2026, 1, 2, 3), None], pa.timestamp("us")),
    pa.array([datetime(2026, 1, 2, 3)], pa.timestamp("us", tz="UTC")), pa.array([date(2026, 1, 2), None]),
    pa.array(["2026-06-01T10:00:00+02:00", "2026-06-01 10:00:00", "yesterday"]), pa.array([None, None]),
    pa.array([["a"], None]), pa.array([{"a": 1}]), pa.array([2**53 + 1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("values", ARROW_COLUMNS, ids=lambda values: str(values.type))
@pytest.mark.parametrize("column", sorted(PLAIN))
def test_a_column_of_arrow_is_typed_as_its_values_are(column: str, values: pa.Array) -> None:
    array, faults = typed_column(column, values)
    assert (array.to_pylist(), faults) == one_by_one(column, values.to_pylist())


def test_white_space_is_the_same_for_arrow_and_for_python() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    assert pc.utf8_is_space(pa.array(characters)).to_pylist() == [each.isspace() for each in characters]


# Rows

PAIRS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.sampled_from(["a", ""])}
    ),
    max_size=3,
)
ROWS = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from(["ticket_id", "body", "reply", "created_at", "rating", "note", "requester", "text"]),
            st.one_of(st.none(), st.sampled_from(["a", "b", " ", "2026-01-01"]), st.integers(0, 9),
                      st.fixed_dictionaries({"id": st.sampled_from([None, "c", 7, True])})),
            max_size=5,
        ),
        st.fixed_dictionaries({"messages": PAIRS}, optional={"ticket_id": st.just("m"), "body": st.just("b")}),
        st.fixed_dictionaries({"instruction": st.just("i"), "output": st.sampled_from(["o", "", 3])}),
    ),
    max_size=12,
)  # fmt: skip
SOURCES: list[dict[str, Any]] = [
    {},
    {"shape": "ticket"},
    {"shape": "messages"},
    {"extra_columns": "error"},
    {"columns": {"body": "text", "customer_id": "requester.id"}},
    {"columns": {"reply": "messages[-1].content", "body": "messages[0].content", "ticket_id": "requester.id"}},
]


def gathered(rows: list[Any], source: FilesSource, max_rows: int) -> tuple[object, ...]:
    """Everything that comes of the rows, or the error they end in."""
    lines = [Record(number, 10 * number, row) for number, row in enumerate(rows, start=1)]
    result = Gathered(TicketMaker(source))
    try:
        result.read("t", "t", in_batches(lines, max_rows=max_rows))
        result.finish()
    except DataError as error:
        return error.code, error.message, error.where, error.hint
    removed = sorted(result.removed().to_pylist(), key=lambda row: str(row["source_line"]))
    return result.n_rows, result.tickets().to_pylist(), removed, result.notes


@given(rows=ROWS, options=st.sampled_from(SOURCES))
def test_a_batch_makes_of_its_rows_what_each_row_alone_becomes(rows: list[Any], options: dict[str, Any]) -> None:
    source = FilesSource.model_validate({"kind": "files", "paths": ["t.jsonl"], **options})
    assert gathered(rows, source, max_rows=100) == gathered(rows, source, max_rows=1)


@given(rows=ROWS)
def test_no_row_is_lost_between_tickets_and_quarantine(rows: list[Any]) -> None:
    source = FilesSource(kind="files", paths=("t.jsonl",), shape="ticket")
    result = Gathered(TicketMaker(source))
    result.read("t", "t", in_batches(Record(n, None, row) for n, row in enumerate(rows, start=1)))
    assert result.tickets().num_rows + result.removed().num_rows == result.n_rows == len(rows)


def test_batches_end_before_long_rows_pile_up() -> None:
    far = [Record(number, number << 20, {"body": "x"}) for number in range(1, 6)]
    assert [len(batch) for batch in in_batches(far)] == [1] * 5


def texts(*values: bytes | None, large: bool = False) -> pa.Array:
    """Texts that no library would write: their bytes as they are."""
    raw = pa.array(values, pa.large_binary() if large else pa.binary())
    return pa.Array.from_buffers(pa.large_string() if large else pa.string(), len(raw), raw.buffers())


@pytest.mark.parametrize("large", [False, True])
def test_a_row_of_a_parquet_file_with_a_text_that_is_not_utf8_is_faulty_and_the_others_are_read(
    tmp_path: Path, large: bool
) -> None:
    ids = [f"t{number}" for number in range(9)]
    bodies = [b"Caf\xc3\xa9", None, b"secret\xff", *[b"Text"] * 5, b"\xc3"]
    columns = {"ticket_id": pa.array(ids), "body": texts(*bodies, large=large), "n": pa.array(range(9))}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (batch,) = read_parquet(tmp_path / "t.parquet")
    assert len(batch) == 9
    assert batch.lines.tolist() == [1, 2, 4, 5, 6, 7, 8]
    assert [batch.rows.pick(row, ["ticket_id", "body", "n"]) for row in range(2)] == [
        {"ticket_id": "t0", "body": "Café", "n": 0},
        {"ticket_id": "t1", "body": None, "n": 1},
    ]
    assert [(record.line, record.content) for record in batch.faulty] == [
        (line, Fault("TG0241", "A text of the row is not UTF-8.")) for line in (3, 9)
    ]


def test_texts_that_are_not_utf8_are_found_in_conversations_too() -> None:
    said = [texts(b"user", b"user", b"user"), texts(b"A", b"\xff", b"B")]
    turns = pa.StructArray.from_arrays(said, ["role", "content"])
    messages = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), turns)
    (batch,) = arrow_batches([pa.RecordBatch.from_arrays([messages], ["messages"])])
    assert batch.lines.tolist() == [1, 3]
    assert batch.rows.pick(1, ["messages"]) == {"messages": [{"role": "user", "content": "B"}]}
    assert [record.line for record in batch.faulty] == [2]


def test_offsets_that_lead_out_of_a_batch_are_refused() -> None:
    wild = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1 << 30, 2], np.int32)), pa.py_buffer(b"\xff\xff")]
    )
    with pytest.raises(pa.ArrowInvalid):
        list(arrow_batches([pa.RecordBatch.from_arrays([wild], ["body"])]))


# Paths


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("requester.id", ("requester", "id")),
        ("comments[0].body", ("comments", 0, "body")),
        ("a.b[-1][2].c d", ("a", "b", -1, 2, "c d")),
        *((name, None) for name in ("body", "a.", ".a", "a..b", "a[]", "a[x]", "[0]", "a]b", "a[0]b", "")),
    ],
)
def test_what_is_a_path_and_what_only_a_name(name: str, path: tuple[str | int, ...] | None) -> None:
    assert parse_path(name) == path


def test_a_path_that_leads_nowhere_is_missing_and_one_to_null_is_null() -> None:
    row = {"a": [{"b": None}]}
    assert walk(row, ("a", 0, "b")) is None
    for path in (("a", 1, "b"), ("a", -2), ("a", "b"), ("a", 0, "c"), ("x",), ("a", 0, "b", "c")):
        assert walk(row, path) is MISSING


def test_arrow_rows_are_walked_like_objects() -> None:
    rows = [{"requester": {"id": "c"}, "comments": [{"body": "x"}, {"body": "y"}]}, {"requester": None, "comments": []}]
    arrow = ArrowRows(pa.RecordBatch.from_pylist(rows))
    for name in ("requester.id", "comments[-1].body", "absent.id"):
        path = parse_path(name)
        assert path is not None
        assert arrow.reach(name, path) == [walk(row, path) for row in rows]


# Text


def test_every_character_the_pattern_passes_is_in_its_one_form() -> None:
    """Safe are characters that are their own NFC, of class 0, and never the second of a composition."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    parts = (unicodedata.decomposition(each).split() for each in characters)
    second = {chr(int(part[1], 16)) for part in parts if len(part) == 2 and not part[0].startswith("<")}
    second |= {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # Hangul composes by rule
    picked = pc.match_substring_regex(pa.array(characters), PERHAPS_UNCLEAN).to_pylist()
    passed = [each for each, odd in zip(characters, picked, strict=True) if not odd]
    assert len(passed) > 30_000
    assert [each for each in passed if each in second or unicodedata.combining(each)] == []
    assert [each for each in passed if clean_text(each) != each] == []


@given(text=st.text())
def test_what_the_pattern_passes_cleaning_does_not_change(text: str) -> None:
    messages = orjson.dumps([{"role": "user", "content": text}]).decode()
    for value, pattern, clean in (
        (text, PERHAPS_UNCLEAN, clean_text), (messages, PERHAPS_UNCLEAN_MESSAGES, clean_messages)
    ):  # fmt: skip
        assert pc.match_substring_regex(pa.array([value]), pattern)[0].as_py() or clean(value) == value


# Memory
