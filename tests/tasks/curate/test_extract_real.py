"""Extraction of real public files: odd CSV, JSON and Parquet, and the usual training-set shapes."""

import csv
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.artifacts import TicketTable
from schemas.errors import DataError
from schemas.source import FilesSource, GeneratedSource
from tasks.curate.extract import extract_tickets
from tasks.sources.kind import Place
from tasks.sources.readers.read_csv import read_csv
from tasks.sources.readers.read_jsonl import read_json
from tasks.sources.readers.records import Fault
from tasks.sources.registry import fingerprint_source
from tests.support.synced import extract as extract_source
from tests.tasks.curate.test_extract import removed, tickets


def extract(out: Path, root: Path, *paths: str, **options: Any) -> TicketTable:
    return extract_source(FilesSource(kind="files", paths=paths, **options), root, out=out)


def test_csv_spectrum_is_read_as_its_authors_expect(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "csv_spectrum"
    names = sorted(path.stem for path in (folder / "csvs").glob("*.csv"))
    assert len(names) == 12
    for name in names:
        data = (folder / "csvs" / f"{name}.csv").read_bytes()
        if name.endswith("_crlf") and b"\r" not in data:  # lost when the files were copied
            data = data.replace(b"\n", b"\r\n")
        (tmp_path / f"{name}.csv").write_bytes(data)
        records = [record.content for record in read_csv(tmp_path / f"{name}.csv")]
        expected = json.loads((folder / "json" / f"{name}.json").read_text(encoding="utf-8"))
        rows = expected if isinstance(expected, list) else [expected]
        if name == "location_coordinates":  # its two files disagree on the number
            assert isinstance(records[0], dict)
            rows = [{**row, "Contact Phone Number": records[0]["Contact Phone Number"]} for row in rows]
        assert records == [{key: value or None for key, value in row.items()} for row in rows], name


def test_csv_spectrum_becomes_tickets_row_by_row(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "csv_spectrum" / "csvs"
    table = extract(tmp_path / "out", folder, "newlines*.csv", "empty*.csv", columns={"body": "a", "subject": "b"})
    assert table.rows.n_in == table.rows.n_out == 3 + 3 + 2 + 2
    assert {row["source_line"] for row in tickets(table) if row["body"].startswith("Once")} == {3}


def test_what_is_json_by_the_test_suite_is_read_and_what_is_not_is_not(shared_data: Path) -> None:
    paths = sorted((shared_data / "json_test_suite" / "test_parsing").glob("*.json"))
    assert len(paths) > 50
    for path in paths:
        if "UTF-16LE_with_BOM" in path.name:
            with pytest.raises(DataError, match="UTF-16"):
                list(read_json(path))
            continue
        faults = [record.content for record in read_json(path) if isinstance(record.content, Fault)]
        # JSON that is no object is read and refused as a row, which is another fault of the same code.
        broken = any(
            fault.code in {"TG0240", "TG0241"} and "a row is an object" not in fault.reason for fault in faults
        )
        empty = not path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
        if path.name.startswith("y_"):
            assert not broken, path.name
        elif path.name.startswith("n_"):
            assert broken or empty, path.name


def test_the_json_test_suite_as_lines_loses_no_line(shared_data: Path, tmp_path: Path) -> None:
    contents = [path.read_bytes() for path in sorted((shared_data / "json_test_suite/test_parsing").glob("*.json"))]
    lines = [b" " + content for content in contents if b"\n" not in content and content.strip()]
    (tmp_path / "t.jsonl").write_bytes(b'{"body":"fine"}\n' + b"\n".join(lines) + b"\n")
    table = extract(tmp_path / "out", tmp_path, "t.jsonl")
    n_lines = 1 + sum(1 for line in lines if line.strip(b" \t\r"))
    assert (table.rows.n_in, table.rows.n_out) == (n_lines, 1)
    assert len(removed(table)) == n_lines - 1


def test_damaged_parquet_is_refused_or_read_but_never_a_crash(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "parquet_testing" / "bad_data"
    paths = sorted(folder.glob("*.parquet"))
    assert len(paths) == 8
    codes = []
    for path in paths:
        try:
            extract(tmp_path / path.stem, folder, path.name)
        except DataError as error:
            codes.append(error.code)
    assert codes.count("TG0202") >= 6
    assert set(codes) <= {"TG0202", "TG0204", "TG0221"}


def test_naughty_strings_arrive_unchanged_from_every_format(shared_data: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strings = [text for text in json.loads((shared_data / "naughty_strings/blns.json").read_bytes()) if text.strip()]
    ids = [f"{place:04}" for place in range(len(strings))]
    assert len(strings) > 400
    (tmp_path / "t.jsonl").write_bytes(
        b"".join(orjson.dumps({"ticket_id": key, "body": text}) + b"\n" for key, text in zip(ids, strings, strict=True))
    )
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("ticket_id", "body"), *zip(ids, strings, strict=True)])
    pq.write_table(pa.table({"ticket_id": ids, "body": strings}), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        table = extract(tmp_path / f"out-{name}", tmp_path, name)
        assert [row["body"] for row in tickets(table)] == strings, name


def test_strings_that_are_no_objects_are_quarantined_one_by_one(shared_data: Path, tmp_path: Path) -> None:
    strings = orjson.loads((shared_data / "naughty_strings/blns.json").read_bytes())
    (tmp_path / "t.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in [*strings, {"body": "fine"}]))
    table = extract(tmp_path / "out", tmp_path, "t.jsonl")
    assert (table.rows.n_out, table.rows.n_quarantined) == (1, len(strings))


def test_bitext_maps_by_columns(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "bitext_support"
    with next(folder.glob("*.csv")).open(encoding="utf-8", newline="") as stream:
        expected = list(csv.DictReader(stream))
    table = extract(
        tmp_path / "out", folder, "*.csv", columns={"body": "instruction", "reply": "response", "product": "intent"}
    )
    rows = sorted(tickets(table), key=lambda row: row["source_line"])
    assert table.rows.n_in == len(expected) == table.rows.n_out
    assert [row["body"] for row in rows] == [row["instruction"] for row in expected]
    assert [row["reply"] for row in rows] == [row["response"] for row in expected]
    assert {row["category"] for row in rows} == {row["category"] for row in expected}
    assert table.notes["ignored_column:tags"] == len(expected)


def test_llamafactory_alpaca_is_detected(shared_data: Path, tmp_path: Path) -> None:
    expected = orjson.loads((shared_data / "llamafactory_data/identity.json").read_bytes())
    table = extract(tmp_path / "out", shared_data, "llamafactory_data/identity.json")
    rows = sorted(tickets(table), key=lambda row: row["source_line"])
    assert [(row["body"], row["reply"]) for row in rows] == [(row["instruction"], row["output"]) for row in expected]
    assert table.notes["shape_alpaca"] == len(expected)


def test_llamafactory_tool_calls_are_quarantined_and_plain_talk_is_kept(shared_data: Path, tmp_path: Path) -> None:
    expected = orjson.loads((shared_data / "llamafactory_data/glaive_toolcall_en_demo.json").read_bytes())
    calls = {"function_call", "observation"}
    n_calls = sum(any(turn["from"] in calls for turn in row["conversations"]) for row in expected)
    table = extract(tmp_path / "out", shared_data, "llamafactory_data/glaive_toolcall_en_demo.json")
    assert 0 < n_calls < len(expected)
    assert sum(row["code"] == "TG0217" for row in removed(table)) == n_calls
    assert table.rows.n_in == len(expected)
    assert table.rows.n_out == len(expected) - n_calls


def test_axolotl_fixtures_are_detected_and_missing_turns_are_quarantined(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "axolotl_fixtures"
    chat = extract(tmp_path / "chat", folder, "conversation.json")
    (row,) = tickets(chat)
    turns = orjson.loads((folder / "conversation.json").read_bytes())["conversations"]
    assert [turn["content"] for turn in orjson.loads(row["messages"])] == [turn["value"] for turn in turns]
    assert row["reply"] == turns[-1]["value"]
    missing = extract(tmp_path / "missing", folder, "conversation.missingturns.json")
    assert [row["code"] for row in removed(missing)] == ["TG0301"]
    alpaca = extract(tmp_path / "alpaca", folder, "alpaca/alpaca.json")
    assert alpaca.rows.n_out == 2
    assert alpaca.notes["shape_alpaca"] == 2


def test_zendesk_exports_map_by_columns(shared_data: Path, tmp_path: Path) -> None:
    columns = {"ticket_id": "id", "customer_id": "requester_id", "body": "description", "category": "type"}
    folder = shared_data / "zendesk_fivetran_seeds/seeds"
    table = extract(tmp_path / "out", folder, "ticket_data.csv", columns=columns)
    assert table.rows.n_in == table.rows.n_out == 10
    assert all(row["created_at"] is not None and row["body"] for row in tickets(table))


@pytest.mark.parametrize("defect", ["none", "broken_format"])
def test_the_generated_help_desk_is_read_like_any_export(tmp_path: Path, defect: str) -> None:
    from tasks.sources.helpdesk import generate_tickets

    source = GeneratedSource.model_validate(
        {"kind": "generated", "n_tickets": 200, "n_customers": 30, "defect": defect}
    )
    fingerprint = fingerprint_source(source, root=tmp_path)
    table = extract_tickets(source=source, fingerprint=fingerprint, place=Place(tmp_path), out=tmp_path)
    lines = [line for line in generate_tickets(source) if line.strip()]
    assert table.rows.n_in == len(lines)
    assert table.rows.n_out >= 200
    assert {row["source"] for row in tickets(table)} == {"generated"}
    changed = source.model_copy(update={"seed": 1})
    assert fingerprint_source(changed, root=tmp_path) != fingerprint
