"""A row on which reading raises is quarantined with its place; the others are read as if it were not there."""

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.source import FilesSource
from tasks.curate.rows import read_rows
from tasks.sources.readers import columns, read_csv, read_jsonl, shapes, typed
from tests.support.plant import raise_on
from tests.support.synced import extract

ROWS = [{"ticket_id": f"t{n}", "customer_id": f"c{n % 3}", "body": f"Text {n}", "reply": "Yes."} for n in range(9)]
BAD = 4
WORDS = "Kaboom my secret text"


def rows() -> list[dict[str, Any]]:
    return [{**row, "body": WORDS if n == BAD else row["body"]} for n, row in enumerate(ROWS)]


def write(folder: Path, form: str, *, messages: bool = False) -> FilesSource:
    folder.mkdir()
    some = rows()
    if messages:
        some = [
            {
                "ticket_id": row["ticket_id"],
                "messages": [{"role": "user", "content": row["body"]}, {"role": "assistant", "content": row["reply"]}],
            }
            for row in some
        ]
    path = folder / f"t.{form}"
    if form == "jsonl":
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(some[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(some)
        path.write_text(text.getvalue())
    else:
        pq.write_table(pa.Table.from_pylist(some), path)
    return FilesSource(kind="files", paths=(path.name,))


@pytest.mark.parametrize(
    ("form", "messages", "module", "function", "line"),
    [
        ("jsonl", False, read_jsonl, "_parse", BAD + 1),
        ("jsonl", True, shapes, "read_turns", BAD + 1),
        ("jsonl", False, columns, "typed_column", BAD + 1),
        ("csv", False, read_csv, "_values", BAD + 2),
        ("csv", False, typed, "_from_list", BAD + 2),
        ("parquet", True, columns, "fill_ticket", BAD + 1),
        ("parquet", False, columns, "typed_column", BAD + 1),
    ],
)
def test_a_row_on_which_reading_raises_is_quarantined_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, messages: bool, module: Any, function: str, line: int
) -> None:
    folder = tmp_path / "data"
    source = write(folder, form, messages=messages)
    sound = extract(source, folder)
    if function == "_parse":  # a line that is valid JSON never comes to it
        monkeypatch.setattr(read_jsonl.orjson, "loads", _loads(read_jsonl.orjson.loads))
    raise_on(monkeypatch, module, function, lambda given: WORDS in str(given))
    result = extract(source, folder)

    (gone,) = read_rows(result.removed).to_pylist()
    assert (gone["outcome"], gone["code"], gone["reason"]) == ("quarantined", "TG0218", "KeyError in step extract.")
    assert (gone["source"], gone["source_line"]) == (f"t.{form}", line)
    if function != "_parse" and function != "_values":
        assert gone["ticket_id"] == f"t{BAD}"
    assert WORDS not in str(gone)
    expected = read_rows(sound.tickets)
    wanted = [number for number in range(len(ROWS)) if number != BAD]
    assert read_rows(result.tickets).equals(expected.take(wanted))
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_quarantined) == (9, 8, 1)
    assert result.notes == sound.notes | ({f"shape_{_shape(messages)}": 8} if function in ("_parse", "_values") else {})


def _shape(messages: bool) -> str:
    return "messages" if messages else "ticket"


def _loads(real: Any) -> Any:
    def loads(data: Any) -> Any:
        if data is not None and WORDS.encode() in bytes(data):
            raise RecursionError
        return real(data)

    return loads


def test_memory_that_ends_while_a_row_is_read_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "data", "jsonl")

    def planted(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(columns, "typed_column", planted)
    with pytest.raises(MemoryError):
        extract(source, tmp_path / "data")
