"""Labels made elsewhere: what spreadsheets, Label Studio and Argilla write is read back."""

import csv
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.errors import ConfigError
from tasks.assess.label_files import Sheet, read_sheets, write_sheets

SHEETS = [
    Sheet.of("1", "Where is my parcel?", {"x1": "On its way.", "y1": "=1+1"}, seed=0),
    Sheet.of("2", "Refund, please.\nThanks", {"x2": "Done.", "y2": "No.", "z2": "Ask billing."}, seed=0),
]
KNOWN = frozenset({"x1", "y1", "x2", "y2", "z2"})


def place_of(sheet: Sheet, label: str) -> str:
    return "abc"[[each for each, _ in sheet.answers].index(label)]


def test_a_spreadsheet_that_was_sorted_and_filled_in_is_read_back(tmp_path: Path) -> None:
    written = write_sheets(SHEETS, "csv").decode()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert rows[0][f"answer_{place_of(SHEETS[0], 'y1')}"] == "'=1+1"  # no formula
    rows[0]["right"], rows[1]["right"] = place_of(SHEETS[0], "x1").upper(), "b, c"
    stream = io.StringIO()
    names = ["right", "rater", *(name for name in rows[0] if name != "right")]
    writer = csv.DictWriter(stream, names, delimiter=",")
    writer.writeheader()
    writer.writerows([rows[1] | {"rater": "ada"}, rows[0] | {"rater": ""}])
    (tmp_path / "back.csv").write_text("\ufeff" + stream.getvalue(), newline="")
    votes = read_sheets(tmp_path / "back.csv", known=KNOWN, rater="bob")
    assert votes["bob"] == {"x1": True, "y1": False}
    assert votes["ada"] == {label: place > 0 for place, (label, _) in enumerate(SHEETS[1].answers)}


def label_studio(row: dict[str, Any]) -> dict[str, Any]:
    def by(rater: Any, *choices: str) -> dict[str, Any]:
        value = {"choices": list(choices)}
        return {"completed_by": rater, "result": [{"from_name": "right", "type": "choices", "value": value}]}

    return {"id": 7, "data": row, "annotations": [by({"id": 3, "email": "a@b.example"}, "a", "b"), by(4, "neither")]}


def argilla(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: text for name, text in row.items() if name.startswith(("question", "answer_"))}
    metadata = {name: text for name, text in row.items() if name.startswith(("item_id", "label_"))}
    responses = [{"value": "both", "user_id": "a@b.example"}, {"value": ["neither"], "user_id": "4"}]
    return {"id": "7", "fields": fields, "metadata": metadata, "responses": {"right": responses}}


@pytest.mark.parametrize("tool", [label_studio, argilla])
@pytest.mark.parametrize("in_lines", [True, False])
def test_two_raters_of_a_labelling_tool_are_read_back(tool: Any, in_lines: bool, tmp_path: Path) -> None:
    row = orjson.loads(write_sheets(SHEETS[:1], "jsonl"))
    file = tmp_path / "export.json"
    file.write_bytes(orjson.dumps(tool(row)) if in_lines else orjson.dumps([tool(row)], option=orjson.OPT_INDENT_2))
    assert read_sheets(file, known=KNOWN, rater="bob") == {
        "a@b.example": {"x1": True, "y1": True}, "4": {"x1": False, "y1": False}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"right,label_a,label_b\nc,x1,y1\n", "row 1: 'c' is no choice"),
        (b"right,label_a,label_b\na,x1,y1\na,x9,y9\n", "row 2: its answers are not those of this run"),
        (b"right,label_a,label_b\n,x1,y1\n", "no row has a choice"),
        (b"right\na\n", "row 1: 'a' is no choice"),
        (b"[1]", "row 1 is neither CSV nor JSON"),
        (b"{broken", "row 1 is neither CSV nor JSON"),
        (b"\xff\xfe\x00", "it cannot be read"),
    ],
)
def test_a_file_with_a_fault_counts_for_nothing_and_says_where(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_sheets(tmp_path / "labels", known=KNOWN, rater="bob")
