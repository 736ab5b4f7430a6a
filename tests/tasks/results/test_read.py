"""Files of results are read as their tools wrote them: what stands in `files/` is as lm-eval 0.4.13, Inspect 0.3.285,
DeepEval 4.3.1, promptfoo 0.121.20 and MLflow 3.17.2 wrote it, for eight questions of which `a` answers t02 wrongly and
`b` t02 and t05.
"""

import io
import math
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import DataError
from tasks.results.read import read_results
from tasks.results.rows import ResultFile

FILES = Path(__file__).with_name("files")
IDS = [f"t0{number}" for number in range(1, 9)]
TOOLS = [
    ("inspect_a.json", "Inspect 0.3.285", "exact"),
    ("inspect_a.eval", "Inspect 0.3.285", "exact"),
    ("deepeval_a.json", "DeepEval", "Exact Match"),
    ("promptfoo_a.json", "promptfoo 0.121.20", "exact"),
    ("mlflow_a.json", "MLflow table", "same"),
]


def _values(file: ResultFile, metric: str) -> dict[str, float]:
    return {row.item_id: row.values[metric] for row in file.rows}


@pytest.mark.parametrize(("name", "tool", "metric"), TOOLS)
def test_a_tools_file_gives_items_values_prompts_and_answers(name: str, tool: str, metric: str) -> None:
    file = read_results(str(FILES / name))
    assert file.tool == tool
    assert _values(file, metric) == {item: float(item != "t02") for item in IDS}
    by_id = {row.item_id: row for row in file.rows}
    assert by_id["t02"].prompt == "The invoice lists two desks, I ordered one."
    assert by_id["t02"].answer == "other"
    assert by_id["t03"].reference == (None if tool.startswith("promptfoo") else "delivery")


@pytest.mark.parametrize("name", ["inspect_b.eval", "deepeval_b.json", "promptfoo_b.json", "mlflow_b.json"])
def test_the_other_file_of_each_tool_differs_in_one_item(name: str) -> None:
    file = read_results(str(FILES / name))
    metric = next(metric for other, _, metric in TOOLS if other.split("_")[0] == name.split("_")[0])
    assert [item for item, value in _values(file, metric).items() if value == 0] == ["t02", "t05"]


def test_lm_evals_samples_are_read_by_document() -> None:
    file = read_results(str(FILES / "lm_eval_a.jsonl"))
    assert file.tool == "lm-eval"
    assert _values(file, "exact_match") == {str(number): 0.0 for number in range(8)}
    assert file.rows[1].columns["id"] == "t02"
    assert file.rows[1].answer == "lol"
    assert file.rows[1].prompt is not None
    assert file.rows[1].prompt != file.rows[2].prompt


def test_each_filter_of_lm_eval_is_a_metric_of_its_own(tmp_path: Path) -> None:
    lines = [orjson.loads(line) for line in (FILES / "lm_eval_a.jsonl").read_bytes().splitlines()]
    strict = [line | {"filter": "strict", "exact_match": 1.0} for line in lines]
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in [*lines, *strict]))
    assert read_results(str(path)).metrics == ("exact_match", "exact_match,strict")
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in [*lines, {"doc_id": 9}]))
    with pytest.raises(DataError, match="not complete"):
        read_results(str(path))
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in [*lines, lines[3]]))
    with pytest.raises(DataError, match="document 3 has two lines of the filter none"):
        read_results(str(path))


def _changed(name: str, tmp_path: Path, change: Any) -> str:
    value = orjson.loads((FILES / name).read_bytes())
    change(value)
    path = tmp_path / name
    path.write_bytes(orjson.dumps(value))
    return str(path)


def test_an_unfinished_inspect_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ended with status 'cancelled'"):
        read_results(_changed("inspect_a.json", tmp_path, lambda log: log.update(status="cancelled")))
    with pytest.raises(DataError, match="sample t05 has an error"):
        read_results(_changed("inspect_a.json", tmp_path, lambda log: log["samples"][4].update(error={"message": ""})))
    torn = tmp_path / "torn.eval"
    with zipfile.ZipFile(FILES / "inspect_a.eval") as log, zipfile.ZipFile(torn, "w") as shorter:
        shorter.writestr("_journal/start.json", b"{}")
        assert "header.json" in log.namelist()
    with pytest.raises(DataError, match="was not finished"):
        read_results(str(torn))
    spoiled = bytearray((FILES / "inspect_a.eval").read_bytes())
    with zipfile.ZipFile(FILES / "inspect_a.eval") as log:
        info = log.getinfo("samples/t02_epoch_1.json")
    spoiled[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    (tmp_path / "spoiled.eval").write_bytes(spoiled)
    with pytest.raises(DataError, match="cannot be read"):
        read_results(str(tmp_path / "spoiled.eval"))
    cut = tmp_path / "cut.eval"
    cut.write_bytes((FILES / "inspect_a.eval").read_bytes()[:9000])
    with pytest.raises(DataError, match="cannot be read"):
        read_results(str(cut))


def test_inspects_partial_grades_and_scores_of_several_values_are_numbers(tmp_path: Path) -> None:
    def grade(log: Any) -> None:
        log["samples"][0]["scores"] = {"judge": {"value": {"tone": "P", "facts": 0.25}}}

    file = read_results(_changed("inspect_a.json", tmp_path, grade))
    assert file.rows[0].values == {"judge/tone": 0.5, "judge/facts": 0.25}


def test_a_provider_that_failed_has_no_value(tmp_path: Path) -> None:
    def fail(run: Any) -> None:
        run["results"]["results"][0] |= {"failureReason": 2, "success": False}

    file = read_results(_changed("promptfoo_a.json", tmp_path, fail))
    assert math.isnan(file.rows[0].values["pass"])
    assert file.rows[1].values["pass"] == 0.0


def test_one_of_several_providers_is_named_after_the_path(tmp_path: Path) -> None:
    def add(run: Any) -> None:
        rows = run["results"]["results"]
        rows += [row | {"provider": {"id": "other", "label": "other"}} for row in rows]

    path = _changed("promptfoo_a.json", tmp_path, add)
    with pytest.raises(DataError, match="2 providers; there are: answers-a, other"):
        read_results(path)
    assert read_results(f"{path}@other").model == "other"
    with pytest.raises(DataError, match="no provider 'third'"):
        read_results(f"{path}@third")


def test_deepevals_own_names_are_no_ids(tmp_path: Path) -> None:
    path = _changed("deepeval_a.json", tmp_path, lambda run: run["testCases"][2].update(name="test_case_2"))
    with pytest.raises(DataError, match="test_case_2 has no name of its own"):
        read_results(path)


ROWS = [
    {"item_id": "1", "question": "Where?", "answer": "a", "reference": "a", "category": "x", "judge": 0.5},
    {"item_id": "2", "question": "Why?", "answer": "b", "reference": "a", "category": None, "judge": 1},
]


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "semicolons", "parquet"])
def test_rows_of_ones_own_in_each_form_are_the_same(form: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.dat"
    if form == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(orjson.dumps(row) for row in ROWS))
    elif form == "json":
        path.write_bytes(orjson.dumps(ROWS))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        text = io.StringIO()
        mark = "," if form == "csv" else ";"
        for row in [list(ROWS[0]), *([*row.values()] for row in ROWS)]:
            text.write(mark.join("" if each is None else str(each) for each in row) + "\r\n")
        path.write_text(text.getvalue(), newline="")
    file = read_results(str(path))
    assert file.metrics == ("judge",)
    assert _values(file, "judge") == {"1": 0.5, "2": 1.0}
    assert [(row.prompt, row.answer, row.reference) for row in file.rows] == [("Where?", "a", "a"), ("Why?", "b", "a")]
    assert file.rows[0].columns["category"] == "x"
    assert file.rows[1].columns["category"] in (None, "")


def test_metrics_and_slices_may_be_one_level_deeper(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 7, "metrics": {"exact": true}, "slices": {"product": "desk"}}')
    (row,) = read_results(str(path)).rows
    assert (row.item_id, row.values, row.columns["product"]) == ("7", {"exact": 1.0}, "desk")


def test_a_missing_value_is_not_a_number_and_a_word_makes_a_column_no_metric(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "exact": 1, "grade": 2}\n{"id": 2, "grade": "good"}')
    file = read_results(str(path))
    assert file.metrics == ("exact",)
    assert math.isnan(_values(file, "exact")["2"])


@pytest.mark.parametrize("text", ["1_0", "0_1", "\u0661", "\uff11", "0x1", "1,0", "1 0", "--1", "1e", "one"])
def test_what_is_no_number_in_the_usual_form_makes_a_column_no_metric(text: str, tmp_path: Path) -> None:
    """Python reads `1_0` as 10: a value that no tool wrote would be judged."""
    path = tmp_path / "rows.csv"
    path.write_text(f"id;exact;seconds\na;1;0.5\nb;{text};+1.5e-1\n")
    file = read_results(str(path))
    assert file.metrics == ("seconds",)
    assert file.rows[1].values == {"seconds": 0.15}
    assert file.rows[1].columns["exact"] == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file has no items"),
        (b"[]", "the file has no items"),
        (b"[1]", "row 1 is no object"),
        (b'{"id": 1}\n{"id": ', "line 2 is not JSON"),
        (b"id,exact\n1,1,1\n", "row 2 has other columns"),
        (b"id,exact\n1\n", "row 2 has other columns"),
        (b"name,exact\na,1\n", "row 1 has no item_id or id; columns: name, exact"),
        (b"id,exact,exact\n1,0,1\n", "two columns are named exact"),
        (b'{"id": 1, "answer": "a", "prediction": "b"}', "row 1 has answer and prediction"),
        (b'{"columns": ["id", "exact", "exact/score"], "data": [[1, 0, 1]]}', "two columns are named exact"),
        (b"\xff\xfe\x00", "neither UTF-8 nor Parquet"),
        (b"PAR1 and nothing", "Parquet file cannot be read"),
        (b'{"eval": {"task": "t"}, "samples": []}', "status None"),
        (b'{"results": {"results": [{}]}, "evalId": "e"}', "not complete"),
    ],
)
def test_what_is_no_file_of_results_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_results(str(path))


def test_a_column_may_be_named_as_the_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("name,exact\na,1\n")
    assert read_results(str(path), id_column="name").rows[0].item_id == "a"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_results(str(tmp_path))


def test_a_missing_file_is_refused_with_the_name_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "champion.jsonl").touch()
    with pytest.raises(DataError, match="there is no such file") as refused:
        read_results(str(tmp_path / "champoin.jsonl"))
    assert refused.value.hint == "did you mean `champion.jsonl`?"
    with pytest.raises(DataError, match="there is no such file") as refused:
        read_results(str(tmp_path / "team@desk.jsonl"))
    assert refused.value.where == str(tmp_path / "team@desk.jsonl")
    with pytest.raises(DataError, match="there is no such file") as refused:
        read_results(str(tmp_path / "missing" / "champion.jsonl"))
    assert refused.value.hint is None


def test_a_missing_file_in_a_folder_that_may_not_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_folder: Path) -> Iterator[Path]:  # root may list every folder
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(DataError, match="there is no such file"):
        read_results(str(tmp_path / "champion.jsonl"))


def test_an_at_in_a_files_name_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "mlflow@champion.json"
    shutil.copy(FILES / "mlflow_a.json", path)
    assert read_results(str(path)).path == path
