"""Read a file of per-item results, whatever tool wrote it: the form is found by the content, not by the name.

Read are rows of one's own (JSON Lines, a JSON list, CSV, Parquet) and files of lm-eval, Inspect, DeepEval, promptfoo
and MLflow.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import DataError
from schemas.names import nearest
from schemas.regular_file import open_regular
from tasks.results import deepeval, inspect_log, lm_eval, mlflow_table, own, promptfoo
from tasks.results.rows import ResultFile, refuse

MAX_BYTES = 1 << 30
_HINT = "JSON Lines, a JSON list, CSV, Parquet, or what lm-eval, Inspect, DeepEval, promptfoo or MLflow wrote"


def read_results(address: str, *, id_column: str | None = None) -> ResultFile:
    """Read the file at `PATH`, or `PATH@PROVIDER` of promptfoo.

    Args:
        id_column: Column, or variable of promptfoo, with the item's id.

    Raises:
        DataError: TG0262, it cannot be read, or has no items.
    """
    name, at, label = address.rpartition("@")
    named = at and not Path(address).exists() and Path(name).exists()
    path, provider = (Path(name), label) if named else (Path(address), None)
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > MAX_BYTES:
        raise refuse(path, f"the file has more than {MAX_BYTES >> 20} MiB")
    digest = hashlib.sha256(content).hexdigest()
    try:
        tool, model, rows = _read(path, content, id_column, provider)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise refuse(path, f"the file is not complete ({type(error).__name__}: {error})", _HINT) from None
    if not rows:
        raise refuse(path, "the file has no items", _HINT)
    return ResultFile(path, tool, tuple(rows), digest, model)


def _unreadable(path: Path, error: OSError) -> DataError:
    if not isinstance(error, FileNotFoundError):
        return refuse(path, f"it cannot be read: {error.strerror or type(error).__name__}")
    files: list[str] = []
    with suppress(OSError):  # the folder is missing too, or may not be listed
        files = [each.name for each in path.parent.iterdir()]
    return refuse(path, "there is no such file", nearest(path.name, files))


def _read(path: Path, content: bytes, id_column: str | None, provider: str | None) -> tuple[str, str | None, list[Any]]:
    if content[:4] == b"PAR1":
        return "Parquet", None, list(own.rows_of(path, _parquet(path, content), id_column=id_column))
    if content[:4] == b"PK\x03\x04":
        return _inspect(path, inspect_log.read_eval(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise refuse(path, "it is neither UTF-8 nor Parquet nor an Inspect log", _HINT) from None
    form, value = _parsed(path, text)
    if isinstance(value, dict):
        return _document(path, value, id_column, provider)
    if lm_eval.is_lm_eval(value[0]):
        return "lm-eval", None, list(lm_eval.rows_of(path, value))
    return form, None, list(own.rows_of(path, value, id_column=id_column))


def _document(
    path: Path, value: dict[str, Any], id_column: str | None, provider: str | None
) -> tuple[str, str | None, list[Any]]:
    if inspect_log.is_inspect(value):
        return _inspect(path, value)
    if lm_eval.is_lm_eval(value):
        return "lm-eval", None, list(lm_eval.rows_of(path, [value]))
    if deepeval.is_deepeval(value):
        return "DeepEval", None, list(deepeval.rows_of(path, value))
    if promptfoo.is_promptfoo(value):
        version = (value.get("metadata") or {}).get("promptfooVersion")
        label, rows = promptfoo.rows_of(path, value, id_column=id_column, provider=provider)
        return " ".join(filter(None, ("promptfoo", version))), label, list(rows)
    if mlflow_table.is_table(value):
        return "MLflow table", None, list(own.rows_of(path, mlflow_table.objects_of(value), id_column=id_column))
    return "JSON", None, list(own.rows_of(path, [value], id_column=id_column))


def _inspect(path: Path, log: Mapping[str, Any]) -> tuple[str, str | None, list[Any]]:
    version = (log["eval"].get("packages") or {}).get("inspect_ai")
    return " ".join(filter(None, ("Inspect", version))), log["eval"].get("model"), list(inspect_log.rows_of(path, log))


def _parquet(path: Path, content: bytes) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
    except pa.ArrowException as error:
        raise refuse(path, f"the Parquet file cannot be read ({type(error).__name__})") from None
    return rows


def _parsed(path: Path, text: str) -> tuple[str, Any]:
    """The form and the content: one object, or a list of objects."""
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return "CSV", _csv(path, text)
    try:
        value = orjson.loads(text)
        form = "JSON"
    except orjson.JSONDecodeError:
        form, value = "JSON Lines", []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                value += [orjson.loads(line)] if line.strip() else []
            except orjson.JSONDecodeError as error:
                raise refuse(path, f"line {number} is not JSON: {error}", _HINT) from None
    if isinstance(value, dict):
        return form, value
    faulty = next((number for number, each in enumerate(value, start=1) if not isinstance(each, dict)), None)
    if faulty is not None or not value:
        raise refuse(path, f"row {faulty} is no object" if faulty else "the file has no items", _HINT)
    return form, value


def _csv(path: Path, text: str) -> list[dict[str, Any]]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names, rows = list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        raise refuse(path, f"it is neither JSON nor CSV: {error}", _HINT) from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refuse(path, f"two columns are named {', '.join(twice)}", _HINT)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise refuse(path, f"row {number} has other columns than the first line", _HINT)
    if not rows:
        raise refuse(path, "the file has no items", _HINT)
    return [dict(row) for row in rows]
