"""Extraction end to end: every row is a ticket or is quarantined with its place and reason."""

import csv
import gzip
import io
import json
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import TicketTable
from schemas.errors import ConfigError, DataError, SecurityError, StorageError
from schemas.file_reading import CsvForm, CsvSpec
from schemas.source import DuckDBSource, FilesSource, HuggingFaceSource
from tasks.curate.rows import read_rows
from tasks.sources.files import find_files
from tasks.sources.hub import load_from_hub
from tasks.sources.readers.read_csv import read_csv
from tasks.sources.readers.records import Fault
from tasks.sources.registry import fingerprint_source
from tasks.start.csv_form import find_csv_form
from tests.support.synced import extract

Rows = list[dict[str, Any]]


def files(*paths: str, **options: Any) -> FilesSource:
    return FilesSource(kind="files", paths=paths, **options)


def tickets(table: TicketTable) -> Rows:
    rows: Rows = read_rows(table.tickets).to_pylist()
    return rows


def removed(table: TicketTable) -> Rows:
    rows: Rows = read_rows(table.removed).to_pylist()
    return rows


def jsonl(*rows: object) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


# JSON Lines


def test_good_lines_become_tickets_and_bad_ones_keep_their_place(tmp_path: Path) -> None:
    good = b'{"ticket_id": "a", "body": "one", "created_at": "2026-06-01T10:00:00+02:00"}\n'
    bad = [b'{"ticket_id": "b"\n', b'{"body": "\xff"}\n', b"[1]\n", b'{"body": "x\x00"}\n', b"\n", b'{"bo']
    (tmp_path / "t.jsonl").write_bytes(good + b"".join(bad))
    table = extract(files("t.jsonl"), tmp_path)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (6, 1, 5)
    (ticket,) = tickets(table)
    assert (ticket["ticket_id"], ticket["body"], ticket["source"], ticket["source_line"]) == ("a", "one", "t.jsonl", 1)
    assert ticket["created_at"].isoformat() == "2026-06-01T08:00:00"
    kept = [(row["source_line"], row["byte_offset"], row["code"]) for row in removed(table)]
    offsets = [len(good) + sum(map(len, bad[:number])) for number in range(len(bad))]
    assert kept == [
        (2, offsets[0], "TG0240"),
        (3, offsets[1], "TG0241"),
        (4, offsets[2], "TG0240"),
        (5, offsets[3], "TG0240"),
        (7, offsets[5], "TG0240"),
    ]
    assert "cut off" in removed(table)[-1]["reason"]
    assert {row["outcome"] for row in removed(table)} == {"quarantined"}


def test_byte_order_mark_crlf_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "t.jsonl").write_bytes(b'{"ticket_id":"1","body":"x"}\n{"ticket_id":"2","body":"y"}\n')
    (tmp_path / "b" / "t.jsonl").write_bytes(
        b'\xef\xbb\xbf{"ticket_id":"1","body":"x"}\r\n{"ticket_id":"2","body":"y"}\r\n\r\n  \n'
    )
    plain, dressed = (extract(files("t.jsonl"), tmp_path / name) for name in ("a", "b"))
    assert plain.tickets.read_bytes() == dressed.tickets.read_bytes()
    assert plain.rows == dressed.rows


def test_the_header_between_joined_files_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('subject,body\na,x\nsubject,body\nb,"y\nz"\n"subject",body\nsubject,other\n')
    table = extract(files("t.csv"), tmp_path)
    assert (table.rows.n_in, table.rows.n_out) == (3, 3)
    assert [(row["subject"], row["body"]) for row in tickets(table)] == [
        ("a", "x"),
        ("b", "y\nz"),
        ("subject", "other"),
    ]
    assert [row["source_line"] for row in tickets(table)] == [2, 4, 7]
    (tmp_path / "one.csv").write_text("body\nx\nbody\n")
    assert [row["body"] for row in tickets(extract(files("one.csv"), tmp_path))] == ["x", "body"]


def test_a_line_over_the_limit_is_quarantined_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.sources.readers.streams.MAX_ROW_BYTES", 100)
    (tmp_path / "t.jsonl").write_bytes(jsonl({"body": "x" * 300}, {"body": "short"}))
    table = extract(files("t.jsonl"), tmp_path)
    assert [row["body"] for row in tickets(table)] == ["short"]
    assert [(row["code"], row["source_line"]) for row in removed(table)] == [("TG0243", 1)]
    assert tickets(table)[0]["ticket_id"] == "t-2"


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-16", ""), ("utf-16-be", "\ufeff"), ("utf-32", ""), ("utf-32-be", "\ufeff")]
)
def test_a_wide_encoding_is_refused_with_the_command_that_converts(
    tmp_path: Path, name: str, encoding: str, mark: str
) -> None:
    (tmp_path / name).write_bytes(f'{mark}{{"body": "x"}}\n'.encode(encoding))
    with pytest.raises(DataError, match=f"the file is {encoding[:6].upper()};") as caught:
        extract(files(name), tmp_path)
    assert f"iconv -f {encoding[:6].upper()} " in str(caught.value.hint)


def test_an_object_with_a_key_twice_is_quarantined(tmp_path: Path) -> None:
    chat = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","content":"b"}]}'
    bad = [
        b'{"body":"a","body":"b"}',
        b'{"body" :"a","x":"1:2","bod\\u0079": "b"}',
        b'{"x":{"y":1,"y":1},"body":"a"}',
        chat,
    ]
    good = [b'{"body":"a\\":b","x":{"y":"\\u0022:"}}', b'{"body" : "a :"}', b'{"body":"a","x":[{"y":1},{"y":2}]}']
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([*bad, b"{", *good]))
    (tmp_path / "t.json").write_bytes(b"[" + b",\n".join([*bad, *good]) + b"]")
    for name, n_broken in (("t.jsonl", 1), ("t.json", 0)):
        table = extract(files(name, shape="ticket"), tmp_path)
        assert table.rows.n_out == len(good)
        reasons = [row["reason"] for row in removed(table) if row["code"] == "TG0244"]
        assert reasons == [f"The row has the key {key} twice." for key in ("body", "body", "y", "content")]
        assert table.rows.n_quarantined == len(bad) + n_broken


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(orjson.dumps, st.dictionaries(st.sampled_from(["body", "ticket_id", "x"]), st.text())),
            )
        ).map(b"\n".join),
    )
)
def test_whatever_the_bytes_every_line_is_accounted_for(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.jsonl").write_bytes(data)
    n_lines = sum(1 for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r\n"))
    whole = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    try:
        table = extract(files("t.jsonl"), tmp_path)
    except DataError as error:
        refused = error.code
    else:
        refused = ""
        assert table.rows.n_in == n_lines
        assert len(tickets(table)) + len(removed(table)) == n_lines
    assert (refused == "TG0202") == whole
    assert (refused == "TG0221") == (not n_lines and not whole)
    assert refused in {"", "TG0202", "TG0204", "TG0221"}


# Compression and globs


def test_compressed_files_give_the_rows_of_the_plain_one(tmp_path: Path) -> None:
    data = jsonl(*({"ticket_id": f"{i:03}", "body": "word " * i} for i in range(200)))
    frames = zstandard.ZstdCompressor().compress(data[:5000]) + zstandard.ZstdCompressor().compress(data[5000:])
    made = {"t.jsonl": data, "t.jsonl.gz": gzip.compress(data), "t.jsonl.zst": frames}
    results = []
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
        results.append([{**row, "source": ""} for row in tickets(extract(files(name), tmp_path))])
    assert len(results[0]) == 200
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_cut_off_compressed_file_is_refused_and_not_half_read(tmp_path: Path, suffix: str) -> None:
    data = jsonl(*({"body": f"text {i * 7919}"} for i in range(500)))
    whole = gzip.compress(data) if suffix == ".gz" else zstandard.ZstdCompressor().compress(data)
    (tmp_path / f"t.jsonl{suffix}").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="TG0202"):
        extract(files(f"t.jsonl{suffix}"), tmp_path)


def test_globs_are_read_in_the_order_of_names_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl({"body": name}))
    table = extract(files("*.jsonl", "a.jsonl"), tmp_path)
    assert [row["ticket_id"] for row in tickets(table)] == ["a-1", "b-1", "c-1"]
    assert table.notes["files"] == 3
    assert table.notes["ids_made"] == 3


def test_files_of_one_stem_get_ids_that_differ(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.jsonl").write_bytes(jsonl({"body": folder}))
    assert [row["ticket_id"] for row in tickets(extract(files("*/t.jsonl"), tmp_path))] == ["x/t-1", "y/t-1"]


def test_a_missing_file_names_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "tickets.jsonl").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"no file 'tikets\.jsonl'") as caught:
        fingerprint_source(files("tikets.jsonl"), root=tmp_path)
    assert caught.value.hint == "did you mean tickets.jsonl?"


def test_a_glob_that_matches_nothing_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="no file matches") as caught:
        fingerprint_source(files("*.jsonl"), root=tmp_path)
    assert "notes.txt" in str(caught.value.hint)


def test_a_folder_and_an_unknown_suffix_are_configuration_errors(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.txt").write_bytes(b"{}\n")
    with pytest.raises(ConfigError, match=r"TG0130.*is a folder"):
        fingerprint_source(files("data"), root=tmp_path)
    with pytest.raises(ConfigError, match=r"TG0130.*has no known suffix"):
        extract(files("data/t.txt"), tmp_path)


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    (tmp_path / "u.csv").write_text("ticket_id,body\n", encoding="utf-8")
    with pytest.raises(DataError, match="TG0221"):
        extract(files("t.jsonl", "u.csv"), tmp_path)


# CSV


def test_columns_of_a_csv_go_by_name_not_by_position(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("body,subject,ticket_id\ntext,title,7\n", encoding="utf-8")
    (row,) = tickets(extract(files("t.csv"), tmp_path))
    assert (row["ticket_id"], row["subject"], row["body"]) == ("7", "title", "text")


def test_ragged_and_badly_quoted_rows_are_quarantined_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b"ticket_id,body\n", b"1,fine\n", b"2,too,many\n", b"3\n", b'4,"never closed\n', b"5,after\n", b'6,"a"b\n',
        b'7,"two\r\nlines"\n', b"8,\xff\n", b"\n", b'9,"quoted ""word"""\n', b'10,"open at the end\n',
    ]  # fmt: skip
    (tmp_path / "t.csv").write_bytes(b"".join(lines))
    table = extract(files("t.csv"), tmp_path)
    assert {row["ticket_id"]: row["body"] for row in tickets(table)} == {
        "1": "fine", "5": "after", "7": "two\r\nlines", "9": 'quoted "word"',
    }  # fmt: skip
    kept = {row["source_line"]: (row["code"], row["byte_offset"]) for row in removed(table)}
    offsets = {number: sum(map(len, lines[:number])) for number in range(len(lines))}
    assert kept == {
        3: ("TG0244", offsets[2]),
        4: ("TG0244", offsets[3]),
        5: ("TG0244", offsets[4]),
        7: ("TG0244", offsets[6]),
        10: ("TG0241", offsets[8]),
        13: ("TG0244", offsets[11]),
    }


IDS: dict[str, Callable[[int], str]] = {
    "numbers": str,
    "prefixed": lambda number: f"T-{number:05}",
    "uuids": lambda number: str(uuid.UUID(int=random.Random(number).getrandbits(128))),
    "labels": lambda number: ("refund", "card_lost", "parcel_lost")[number % 3],
}


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("names", [("ticket_id", "body"), ("body", "ticket_id")])
@pytest.mark.parametrize("ids", IDS)
def test_no_line_of_a_text_that_lost_a_quote_passes_for_a_row(
    tmp_path: Path, ids: str, names: tuple[str, str], quoting: Literal[0, 1]
) -> None:
    for seed in range(3):
        draw = random.Random(f"{seed} {ids}")
        rows = []
        for number in range(120):
            lines = [", ".join(draw.choices(("the lamp", "it broke", "thanks", "order 12"), k=draw.randint(1, 3)))
                     for _ in range(draw.randint(1, 8))]  # fmt: skip
            row = {"ticket_id": IDS[ids](number), "body": "\n".join(lines)}
            rows.append(tuple(row[name] for name in names))
        out = io.StringIO()
        csv.writer(out, quoting=quoting, lineterminator="\n").writerows([names, *rows])
        text = out.getvalue()
        quotes = [place for place, character in enumerate(text) if character == '"' and place > 40]
        lost = draw.choice(quotes)
        (tmp_path / "t.csv").write_text(text[:lost] + text[lost + 1 :], encoding="utf-8")
        read = [record.content for record in read_csv(tmp_path / "t.csv")]
        good = [tuple(row.values()) for row in read if not isinstance(row, Fault)]
        assert set(good) <= set(rows)
        assert len(rows) - 3 <= len(good) < len(rows)


def test_a_quote_inside_a_field_does_not_shift_the_columns_in_silence(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        'ticket_id,subject,body\n1,$78.07"All-Weather Tire, 2 pieces"\n2,a 27" screen,b\n'
        '3,"a 27"" screen",b\n4,a,b\n5,a,b\n',
        encoding="utf-8",
    )
    (tmp_path / "u.csv").write_text('ticket_id,subject,body\n1,a 27" screen,b\n', encoding="utf-8")
    table = extract(files("t.csv"), tmp_path)
    assert [(row["ticket_id"], row["subject"]) for row in tickets(table)] == [
        ("3", 'a 27" screen'),
        ("4", "a"),
        ("5", "a"),
    ]
    assert [(row["source_line"], row["code"], row["field"]) for row in removed(table)] == [
        (2, "TG0244", "subject"), (3, "TG0244", "subject"),
    ]  # fmt: skip
    assert extract(files("u.csv"), tmp_path).rows.n_out == 1  # no field of this file is quoted


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("ticket_id,body\r1,a\r2,b\r", "lines end with CR alone"),
        ("ticket_id,body,body\n1,a,b\n", "occurs twice"),
        ("2nd body #,body,2nd body #\n1,a,b\n", "column '2nd body #' occurs twice"),
        ("jane@x.org,jane@x.org\n1,a\n", "column 'j...g' .10 characters, hidden"),
        ("ticket_id;body\n1;a\n", "separated by semicolons"),
        ("a,b\n1,2\n", "no row has a ticket column"),
    ],
)
def test_an_unusable_header_is_refused(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(header, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=message):
        extract(files("t.csv"), tmp_path)


def test_a_mapped_column_that_is_absent_names_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ticket_id,message\n1,a\n", encoding="utf-8")
    with pytest.raises(DataError, match="'mesage', mapped to body") as caught:
        extract(files("t.csv", columns={"body": "mesage"}), tmp_path)
    assert caught.value.hint == "did you mean message?"


def test_extra_columns_are_counted_or_refused_as_declared(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ticket_id,body,boddy\n1,a,b\n2,a,b\n", encoding="utf-8")
    assert extract(files("t.csv"), tmp_path).notes["ignored_column:boddy"] == 2
    with pytest.raises(DataError, match="boddy is neither") as caught:
        extract(files("t.csv", extra_columns="error"), tmp_path)
    assert caught.value.hint == "did you mean body?"


def test_a_field_longer_than_the_csv_modules_own_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'ticket_id,body\n1,"{"x" * 200_000}"\n', encoding="utf-8")
    assert len(tickets(extract(files("t.csv"), tmp_path))[0]["body"]) == 200_000


def test_tab_separated_files_go_by_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("ticket_id\tbody\n1\ta, b\n", encoding="utf-8")
    assert tickets(extract(files("t.tsv"), tmp_path))[0]["body"] == "a, b"


# Types


def test_whole_numbers_name_things_and_other_kinds_are_quarantined(tmp_path: Path) -> None:
    rows = [
        {"ticket_id": 17, "priority": 2, "body": "a"},
        {"ticket_id": "b", "body": 5},
        {"ticket_id": "c", "body": ["a"]},
        {"ticket_id": "d", "body": "a", "customer_id": {"id": 1}},
        {"ticket_id": "e", "body": "a", "created_at": "yesterday"},
        {"ticket_id": 1.5, "body": "a"},
        {"ticket_id": "g", "body": "a", "category": True},
        {"ticket_id": None, "body": "a"},
    ]
    (tmp_path / "t.jsonl").write_bytes(jsonl(*rows))
    table = extract(files("t.jsonl"), tmp_path)
    (row,) = tickets(table)
    assert (row["ticket_id"], row["priority"]) == ("17", "2")
    assert [(row["source_line"], row["code"], row["field"], row["ticket_id"]) for row in removed(table)] == [
        (2, "TG0247", "body", "b"),
        (3, "TG0247", "body", "c"),
        (4, "TG0247", "customer_id", "d"),
        (5, "TG0214", "created_at", "e"),
        (6, "TG0247", "ticket_id", None),
        (7, "TG0247", "category", "g"),
        (8, "TG0246", "ticket_id", None),
    ]


def test_ids_that_are_stored_as_numbers_keep_every_digit_or_are_refused(tmp_path: Path) -> None:
    long = 12345678901234567890123456789012345678
    pq.write_table(
        pa.table({
            "ticket_id": pa.array([long, 7], pa.decimal128(38, 0)),
            "customer_id": pa.array([None, 17.0]),  # as pandas writes integers with gaps
            "thread_id": pa.array([Decimal("5.00"), None], pa.decimal128(9, 2)),
            "reference": pa.array([16777215.0, float("nan")], pa.float32()),
            "body": ["a", "b"],
        }),
        tmp_path / "t.parquet",
    )  # fmt: skip
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(f"create table t as from '{tmp_path}/t.parquet'")
    for source in (files("t.parquet"), DuckDBSource(kind="duckdb", database="w.duckdb", table="t")):
        one, two = tickets(extract(source, tmp_path))
        names = ("ticket_id", "customer_id", "thread_id", "reference")
        assert tuple(one[name] for name in names) == (str(long), None, "5", "16777215")
        assert tuple(two[name] for name in names) == ("7", "17", None, None)


@pytest.mark.parametrize("value", [2.0**53, 1.5, float("inf")])
def test_a_float_that_is_no_exact_id_is_quarantined(tmp_path: Path, value: float) -> None:
    pq.write_table(pa.table({"ticket_id": [value, 3.0], "body": ["a", "b"]}), tmp_path / "t.parquet")
    pq.write_table(
        pa.table({"ticket_id": pa.array([2.0**24, 3.0], pa.float32()), "body": ["a", "b"]}), tmp_path / "u.parquet"
    )
    for name in ("t.parquet", "u.parquet"):
        table = extract(files(name), tmp_path)
        assert [row["ticket_id"] for row in tickets(table)] == ["3"]
        assert [(row["code"], row["field"]) for row in removed(table)] == [("TG0247", "ticket_id")]


def test_a_large_integer_of_json_is_an_id_or_is_refused_with_a_hint(tmp_path: Path) -> None:
    ids = [b"18446744073709551615", b"18446744073709551616", b"12345678901234567890123", b"5.0"]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(b'{"body":"a","ticket_id":' + number + b"}" for number in ids))
    table = extract(files("t.jsonl"), tmp_path)
    assert [row["ticket_id"] for row in tickets(table)] == ["18446744073709551615", "5"]
    assert ["export it as text" in row["reason"] for row in removed(table)] == [True, True]


def test_reasons_hold_no_ticket_text(tmp_path: Path) -> None:
    secret = "Zanzibar77"
    rows = [
        b'{"body": "Zanzibar77", "created_at": "Zanzibar77"}', b'{"body": "Zanzibar77"', b'["Zanzibar77"]',
        b'{"messages": [{"role": "Zanzibar77", "content": "Zanzibar77"}]}', b'{"Zanzibar77@x.org": 1}',
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(rows))
    table = extract(files("t.jsonl", shape="ticket"), tmp_path)
    assert table.rows.n_quarantined == 5
    assert secret not in orjson.dumps([removed(table), table.notes]).decode()


# Shapes


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


SHAPES: list[tuple[str, dict[str, Any], tuple[str, str, int]]] = [
    ("messages", {"messages": turns(("user", "q"), ("assistant", "a"))}, ("q", "a", 0)),
    ("messages", {"messages": turns(("system", "s"), ("user", "q"), ("assistant", "a"))}, ("q", "a", 3)),
    ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ("q", "a", 0)),
    ("sharegpt", {"conversations": turns(("user", "q"), ("assistant", "a")), "system": "s"}, ("q", "a", 3)),
    ("alpaca", {"instruction": "do", "input": "this", "output": "done"}, ("do\n\nthis", "done", 0)),
    ("alpaca", {"instruction": "do", "output": "done", "history": [["p", "q"]]}, ("do", "done", 4)),
    ("prompt_completion", {"prompt": "p", "completion": "c"}, ("p", "c", 0)),
    ("ticket", {"body": "b", "reply": "r", "instruction": "i", "output": "o"}, ("b", "r", 0)),
    ("ticket", {"body": None, "messages": turns(("user", "q"), ("assistant", "a"))}, ("q", "a", 0)),
]


@pytest.mark.parametrize(("shape", "row", "expected"), SHAPES)
@pytest.mark.parametrize("declared", [False, True])
def test_each_shape_becomes_a_ticket(
    tmp_path: Path, shape: str, row: dict[str, Any], expected: tuple[str, str, int], declared: bool
) -> None:
    (tmp_path / "t.jsonl").write_bytes(jsonl({**row, "category": "billing"}))
    table = extract(files("t.jsonl", shape=shape if declared else "auto"), tmp_path)
    (ticket,) = tickets(table)
    body, reply, n_messages = expected
    assert (ticket["body"], ticket["reply"], ticket["category"]) == (body, reply, "billing")
    assert len(json.loads(ticket["messages"] or "[]")) == n_messages
    assert table.notes[f"shape_{shape}"] == 1


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], "TG0301"),
        ("not json", "TG0301"),
        (None, "TG0301"),
        (["hello"], "TG0301"),
        (turns(("moderator", "x"), ("assistant", "a")), "TG0301"),
        ([{"content": "x"}], "TG0301"),
        ([{"role": "user", "content": None}, {"role": "assistant", "content": "a"}], "TG0301"),
        (turns(("user", " "), ("assistant", "a")), "TG0301"),
        (turns(("user", "a"), ("user", "b"), ("assistant", "c")), "TG0301"),
        (turns(("assistant", "a"), ("user", "b")), "TG0301"),
        (turns(("user", "a"), ("assistant", "b"), ("user", "c")), "TG0301"),
        (turns(("system", "s")), "TG0301"),
        (turns(("user", "a"), ("system", "s"), ("assistant", "b")), "TG0301"),
        (turns(("user", "a"), ("tool", "b"), ("assistant", "c")), "TG0217"),
    ],
)
def test_a_conversation_that_cannot_teach_is_quarantined(tmp_path: Path, messages: Any, code: str) -> None:
    fine = {"ticket_id": "fine", "messages": turns(("user", "q"), ("assistant", "a"))}
    (tmp_path / "t.jsonl").write_bytes(jsonl(fine, {"ticket_id": "odd", "messages": messages}))
    table = extract(files("t.jsonl"), tmp_path)
    assert [row["ticket_id"] for row in tickets(table)] == ["fine"]
    assert [(row["ticket_id"], row["code"]) for row in removed(table)] == [("odd", code)]


def test_a_file_that_mixes_shapes_is_refused_with_both_lines(tmp_path: Path) -> None:
    alpaca, chat = {"instruction": "i", "output": "o"}, {"messages": turns(("user", "q"), ("assistant", "a"))}
    (tmp_path / "t.jsonl").write_bytes(jsonl({}, alpaca, alpaca, chat))
    with pytest.raises(DataError, match="line 2 is alpaca, line 4 is messages"):
        extract(files("t.jsonl"), tmp_path)


def test_two_files_may_have_two_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"instruction": "i", "output": "o"}))
    (tmp_path / "b.jsonl").write_bytes(jsonl({"prompt": "p", "completion": "c"}))
    notes = extract(files("*.jsonl"), tmp_path).notes
    assert (notes["shape_alpaca"], notes["shape_prompt_completion"]) == (1, 1)


# The same rows from every kind of source


@pytest.fixture
def tidy() -> pa.Table:
    return pa.table(
        {
            "ticket_id": ["1", "2", "3"],
            "body": ["one", "two", None],
            "created_at": pa.array([1_780_300_800_000_000_001, None, 0], pa.timestamp("ns", tz="Europe/Berlin")),
            "colour": [1, 2, 3],
        }
    )


def without_source(table: TicketTable) -> Rows:
    return [{**row, "source": ""} for row in tickets(table)]


def test_a_folder_of_a_datasets_parquet_files_is_read_split_by_split(tmp_path: Path, tidy: pa.Table) -> None:
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001", "default/odd/0"):
        (tmp_path / f"hub/{name}.parquet").parent.mkdir(parents=True, exist_ok=True)
    half = tidy.num_rows // 2
    pq.write_table(tidy.slice(0, half), tmp_path / "hub/data/train-00000-of-00002.parquet")
    pq.write_table(tidy.slice(half), tmp_path / "hub/data/train-00001-of-00002.parquet")
    pq.write_table(tidy.slice(0, 1), tmp_path / "hub/data/test-00000-of-00001.parquet")
    pq.write_table(tidy.slice(1, 1), tmp_path / "hub/default/odd/0.parquet")
    pq.write_table(tidy, tmp_path / "t.parquet")
    whole = without_source(extract(files("t.parquet"), tmp_path))

    def split(name: str) -> Rows:
        return without_source(extract(HuggingFaceSource(kind="hf", path="hub", split=name), tmp_path))

    assert split("train") == whole
    assert [row["ticket_id"] for row in split("test")] == [whole[0]["ticket_id"]]
    assert [row["ticket_id"] for row in split("odd")] == [whole[1]["ticket_id"]]
    with pytest.raises(ConfigError, match=r"TG0130.*test, train"):
        split("validation")
    (tmp_path / "hub/data/test-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match="TG0202"):
        split("test")


@pytest.mark.parametrize("kind", ["files", "hf", "hub"])
def test_a_byte_that_changed_inside_a_parquet_page_is_noticed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "hub" / "train.parquet"
    path.parent.mkdir()
    bodies = [f"please charge order {number}" for number in range(1000)]
    table = pa.table({"ticket_id": list(map(str, range(1000))), "body": bodies})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression="none")
    source = files("hub/*.parquet") if kind == "files" else HuggingFaceSource(kind="hf", path="hub")

    def n_read() -> int:
        if kind == "hub":  # the same calls load a folder
            return int(load_from_hub(HuggingFaceSource(kind="hf", path=str(path.parent))).num_rows)
        return extract(source, tmp_path).rows.n_out

    assert n_read() == 1000
    path.write_bytes(path.read_bytes().replace(b"charge order 500", b"refund order 500"))
    with pytest.raises(DataError, match="TG0202"):
        n_read()


def test_parquet_duckdb_and_saved_datasets_give_equal_rows(tmp_path: Path, tidy: pa.Table) -> None:
    import datasets

    pq.write_table(tidy, tmp_path / "t.parquet")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.register("tidy", tidy)
        connection.execute("set timezone='America/New_York'")
        connection.execute("create schema crm; create table crm.tickets as from tidy; create table other (a int)")
    datasets.Dataset(tidy).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "t.jsonl").write_bytes(
        jsonl(
            {"ticket_id": "1", "body": "one", "created_at": "2026-06-01T08:00:00Z"},
            {"ticket_id": "2", "body": "two"},
            {"ticket_id": "3", "created_at": "1970-01-01"},
        )
    )
    database = {"kind": "duckdb", "database": "w.duckdb"}
    sources = [
        files("t.jsonl"),
        files("t.parquet"),
        DuckDBSource.model_validate({**database, "table": "crm.tickets"}),
        DuckDBSource.model_validate({**database, "query": "select * from crm.tickets where true order by ticket_id"}),
        HuggingFaceSource(kind="hf", path="saved"),
    ]
    results = [without_source(extract(source, tmp_path)) for source in sources]
    assert len(results[0]) == 3
    for result in results[1:]:
        assert result == results[0]


@pytest.mark.parametrize(
    "query",
    [
        "drop table t",
        "select 1; select 2",
        "insert into t values (1)",
        "copy t to '/tmp/x.csv'",
        "set threads=1",
        "attach ':memory:' as x",
    ],
)
def test_a_query_that_is_not_one_select_is_refused(tmp_path: Path, query: str) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("create table t as select 1 as body")
    with pytest.raises(SecurityError):
        extract(DuckDBSource(kind="duckdb", database="w.duckdb", query=query), tmp_path)


def test_a_column_that_stands_twice_is_refused_in_parquet_and_duckdb(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["body", "body"]), tmp_path / "t.parquet"
    )
    duckdb.connect(str(tmp_path / "w.duckdb")).close()
    query = DuckDBSource(kind="duckdb", database="w.duckdb", query="select 'a' as body, 'b' as body")
    for source in (files("t.parquet"), query):
        with pytest.raises(DataError, match="occurs twice"):
            extract(source, tmp_path)


def test_a_query_cannot_read_files(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("body\nx\n", encoding="utf-8")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("create table t as select 1 as body")
    query = f"select * from read_csv('{tmp_path}/secret.csv')"
    with pytest.raises(DataError, match="disabled by configuration"):
        extract(DuckDBSource(kind="duckdb", database="w.duckdb", query=query), tmp_path)


def test_an_unknown_table_names_the_near_one_and_a_strange_name_is_only_a_name(tmp_path: Path) -> None:
    strange = 'x"; drop table tickets; --'
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("create table tickets as select '1' as ticket_id, 'a' as body")
        connection.execute('create table "x""; drop table tickets; --" as select * from tickets')
    with pytest.raises(ConfigError, match=r"TG0130.*no table 'tickts'") as caught:
        extract(DuckDBSource(kind="duckdb", database="w.duckdb", table="tickts"), tmp_path)
    assert caught.value.hint == "did you mean tickets?"
    for name in (strange, "tickets"):
        assert extract(DuckDBSource(kind="duckdb", database="w.duckdb", table=name), tmp_path).rows.n_out == 1


def test_an_absent_or_foreign_database_is_refused(tmp_path: Path) -> None:
    source = DuckDBSource(kind="duckdb", database="w.duckdb", table="t")
    with pytest.raises(DataError, match="no such DuckDB file"):
        fingerprint_source(source, root=tmp_path)
    (tmp_path / "w.duckdb").write_text("ticket_id,body\n1,a\n", encoding="utf-8")
    with pytest.raises(StorageError):
        fingerprint_source(source, root=tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"allow_download": True}, {"allow_download": True, "revision": "main"}, {"revision": "a" * 40}]
)
def test_nothing_is_fetched_without_permission_and_a_commit(tmp_path: Path, options: dict[str, Any]) -> None:
    source = HuggingFaceSource.model_validate({"kind": "hf", "path": "org/tickets", **options})
    with pytest.raises(ConfigError, match="TG0130"):
        fingerprint_source(source, root=tmp_path)


# Fingerprints


def test_the_fingerprint_follows_bytes_and_names(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(jsonl({"body": "a"}))
    first = fingerprint_source(files("*.jsonl"), root=tmp_path)
    assert fingerprint_source(files("t.jsonl", shape="ticket"), root=tmp_path) == first
    path.write_bytes(jsonl({"body": "b"}))
    assert fingerprint_source(files("*.jsonl"), root=tmp_path) != first
    path.write_bytes(jsonl({"body": "a"}))
    assert fingerprint_source(files("*.jsonl"), root=tmp_path) == first
    path.rename(tmp_path / "u.jsonl")
    assert fingerprint_source(files("*.jsonl"), root=tmp_path) != first


class Exporter:
    """A program that overwrites the file during the first reading, and may restore it while the reader waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *, restores: bool) -> None:
        self.n_reads, self.path, self.whole = 0, path, path.read_bytes()

        def wait(_seconds: float) -> None:
            if restores:
                path.write_bytes(self.whole)

        monkeypatch.setattr("time.sleep", wait)

    def report(self, _done: int, total: int | None, _unit: str, **_figures: float) -> None:
        """Progress of a reading; its last report has a total."""
        if total is None:
            return
        self.n_reads += 1
        if self.n_reads == 1:
            self.path.write_bytes(self.whole[:20])


def test_a_source_overwritten_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(jsonl(*({"body": f"row {i}"} for i in range(10))))
    exporter = Exporter(monkeypatch, path, restores=False)
    with pytest.raises(DataError, match=r"TG0203.*changed while it was read"):
        extract(files("t.jsonl"), tmp_path, progress=exporter.report)
    assert exporter.n_reads == 1


def test_a_source_that_is_itself_again_is_read_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(jsonl(*({"body": f"row {i}"} for i in range(10))))
    exporter = Exporter(monkeypatch, path, restores=True)
    assert extract(files("t.jsonl"), tmp_path, progress=exporter.report).rows.n_out == 10
    assert exporter.n_reads == 2


def test_a_link_that_leads_out_of_a_folder_of_exports_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.jsonl").write_text('{"ticket_id": "1", "body": "x"}\n')
    (tmp_path / "exports" / "b.jsonl").symlink_to(tmp_path / "exports" / "a.jsonl")
    inside = FilesSource(kind="files", paths=("exports/*.jsonl",))
    assert len(find_files(inside, root=tmp_path)) == 1
    (tmp_path / "secret.jsonl").write_text('{"ticket_id": "2", "body": "y"}\n')
    (tmp_path / "exports" / "c.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(SecurityError, match="TG0818"):
        find_files(inside, root=tmp_path)
    assert len(find_files(FilesSource(kind="files", paths=("exports/c.jsonl",)), root=tmp_path)) == 1  # named: meant


def test_as_of_a_day_keeps_what_was_created_by_its_end_in_utc_and_gives_a_reason_for_the_rest(tmp_path: Path) -> None:
    times = {
        "last": "2026-05-31T23:59:59.999999Z", "first": "2026-06-01T00:00:00Z", "east": "2026-06-01T01:30:00+02:00",
        "west": "2026-05-31T23:00:00-02:00", "none": None, "broken": "soon",
    }  # fmt: skip
    rows = [{"ticket_id": name, "body": "x", "created_at": at} for name, at in times.items()]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = extract(files("t.jsonl"), tmp_path, as_of="2026-05-31")
    assert [row["ticket_id"] for row in tickets(table)] == ["east", "last"]
    codes = {row["ticket_id"]: row["code"] for row in removed(table) if row["outcome"] == "dropped"}
    assert codes == {"first": "after_as_of", "west": "after_as_of", "none": "undated"}
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped, table.rows.n_quarantined) == (6, 2, 3, 1)
    assert len(tickets(extract(files("t.jsonl"), tmp_path))) == 5


def test_a_source_without_times_is_refused_as_of_a_day(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ticket_id,body\n1,lamp\n2,cable\n")
    with pytest.raises(DataError, match="TG0204") as refused:
        extract(files("t.csv"), tmp_path, as_of="2026-05-31")
    assert "no row has created_at" in refused.value.message
    assert "created_at: THEIR_NAME" in (refused.value.hint or "")


# Escapes of MySQL and COPY

ODD_TEXTS = (
    'He said "hi", then left', '"Quoted" at the start', "a\tb\\c\\", "two\nlines, \\N and \\n", None, "C:\\new\\",
    "\u00e9; 'x'", "ends\\\n", "a mail\r\nof two lines\r\n", "bell\0here", "\\\\N", ",;|",
)  # fmt: skip


def into_outfile(value: str | None, special: str) -> str:
    """The value as `SELECT ... INTO OUTFILE` writes it."""
    if value is None:
        return "\\N"
    return "".join("\\0" if letter == "\0" else f"\\{letter}" if letter in special else letter for letter in value)


def in_batch(value: str | None) -> str:
    """The value as COPY writes it, and `mysql --batch`, which has another null."""
    letters = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", "\0": "\\0"}
    return "\\N" if value is None else "".join(letters.get(letter, letter) for letter in value)


@pytest.mark.parametrize("form", ["outfile.tsv", "batch.tsv", "quoted.csv"])
def test_escapes_of_mysql_are_read_where_they_are_declared(tmp_path: Path, form: str) -> None:
    path, separator = tmp_path / form, "," if form.endswith("csv") else "\t"
    lines = [separator.join(("ticket_id", "reply", "body"))]
    for number, text in enumerate(ODD_TEXTS):
        if form == "quoted.csv":
            shown = "\\N" if text is None else '"' + into_outfile(text, '\\",\n') + '"'
        else:
            shown = in_batch(text) if form == "batch.tsv" else into_outfile(text, "\\\t\n")
        lines.append(separator.join((f"t{number}", shown, "x")))
    path.write_bytes(("\n".join(lines) + "\n").encode())
    read = [record.content for record in read_csv(path, CsvForm(escape="backslash"))]
    assert read == [{"ticket_id": f"t{n}", "reply": text, "body": "x"} for n, text in enumerate(ODD_TEXTS)]
    assert find_csv_form(path) == CsvSpec(escape="backslash")


def test_undeclared_escapes_are_quarantined_with_the_way_to_declare_them(tmp_path: Path) -> None:
    text = 'ticket_id,body,reply\n"1","a","b"\n"2","He said \\"hi\\" to","y"\n"3","c",\\N\n"4","C:\\n","N"\n'
    (tmp_path / "t.csv").write_text(text)
    table = extract(files("t.csv"), tmp_path)
    assert table.rows.n_in == 4
    reasons = {row["source_line"]: row["reason"] for row in removed(table)}
    assert all("`csv: {escape: backslash}`" in reasons[line] for line in (3, 4))
    table = extract(files("t.csv", csv={"escape": "backslash"}), tmp_path)
    assert [(row["body"], row["reply"]) for row in tickets(table)] == [
        ("a", "b"), ('He said "hi" to', "y"), ("c", None), ("C:\n", "N")
    ]  # fmt: skip


@pytest.mark.parametrize("line", ['1,"a ""b"" c",C:\\dir\\', '2,"{""a"": ""x\\""y\\""""}",z', "3,plain,back\\slash"])
def test_a_backslash_alone_proposes_no_escapes(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.csv").write_text(f"ticket_id,body,reply\n{line}\n0,a,b\n")
    assert find_csv_form(tmp_path / "t.csv") == CsvSpec()


# Maps


def test_paths_reach_into_maps_of_parquet_and_duckdb(tmp_path: Path) -> None:
    texts = pa.map_(pa.string(), pa.string())
    rows = pa.table(
        {
            "ticket_id": ["1", "2", "3", "4"],
            "body": ["a", "b", "c", "d"],
            "attributes": pa.array([[("plan", "pro"), ("x", "y")], [], None, [("plan", "free")]], texts),
            "notes": pa.array([[[("text", "r1")], [("text", "r2")]], [], None, [[("other", "z")]]], pa.list_(texts)),
        }
    )
    pq.write_table(rows, tmp_path / "t.parquet")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(f"create table t as from '{tmp_path}/t.parquet'")
    columns = {"category": "attributes.plan", "reply": "notes[-1].text"}
    for source in (
        files("t.parquet", columns=columns),
        DuckDBSource(kind="duckdb", database="w.duckdb", table="t", columns=columns),
    ):
        found = [(row["category"], row["reply"]) for row in tickets(extract(source, tmp_path))]
        assert found == [("pro", "r2"), (None, None), (None, None), ("free", None)]
    with pytest.raises(DataError, match=r"TG0204.*attributes\.plam"):
        extract(files("t.parquet", columns={"category": "attributes.plam"}), tmp_path)


@pytest.mark.parametrize("columns", [{"category": "m.p"}, {"category": "m.p", "ticket_id": "m.id"}])
def test_a_map_with_a_key_twice_quarantines_its_row_alone(tmp_path: Path, columns: dict[str, str]) -> None:
    pairs = [[("id", "1"), ("p", "x"), ("p", "y")], [("id", "2"), ("p", "z")]]
    maps = pa.array(pairs, pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"body": ["a", "b"], "m": maps}), tmp_path / "t.parquet")
    table = extract(files("t.parquet", columns=columns), tmp_path)
    assert [(row["source_line"], row["category"]) for row in tickets(table)] == [(2, "z")]
    assert [row["source_line"] for row in removed(table)] == [1]


def test_a_whole_map_is_no_text(tmp_path: Path) -> None:
    maps = pa.array([[("plan", "pro")], None], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"ticket_id": ["1", "2"], "body": ["a", "b"], "m": maps}), tmp_path / "t.parquet")
    table = extract(files("t.parquet", columns={"category": "m"}), tmp_path)
    assert [(row["source_line"], row["code"]) for row in removed(table)] == [(1, "TG0247")]
