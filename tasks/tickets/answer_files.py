"""Write rows for people to fill in, and read what a spreadsheet, Label Studio or Argilla made of them.

CSV or JSON Lines; a row is what one person answers.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from schemas.errors import ConfigError
from schemas.regular_file import open_regular

FileFormat = Literal["csv", "jsonl"]
Row = Mapping[str, Any]
CODE = "TG0164"
MAX_BYTES = 256 * 1024 * 1024
_RATERS = ("rater", "annotator", "completed_by", "user_id")
"""Columns that may name who answered a row; the first that has a value counts."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_rows(rows: Sequence[Mapping[str, str]], form: FileFormat, *, last: Sequence[str]) -> bytes:
    """Return the file's content; a cell that a spreadsheet would run as a formula begins with an apostrophe.

    Args:
        last: Columns to fill in, which come last.
    """
    if form == "jsonl":
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=lambda name: last.index(name) + 1 if name in last else 0)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def harmless(value: str) -> str:
    """
    >>> harmless("=1+1"), harmless("billing")
    ("'=1+1", 'billing')
    """
    return f"'{value}" if value[:1] in _FORMULA else value


def without_guard(value: str) -> str:
    """The value that `harmless` guarded.

    >>> without_guard("'=1+1"), without_guard("'tis")
    ('=1+1', "'tis")
    """
    return value[1:] if value[:1] == "'" and value[1:2] in _FORMULA else value


def read_objects(path: Path, *, hint: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a CSV, a JSON list or JSON Lines, whatever the name's suffix is.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0164, it is too large, or a row is neither CSV nor JSON.
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError("the file is too large for answers of people", code=CODE, where=str(path), hint=hint)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"it cannot be read ({type(error).__name__})", code="TG0110", where=str(path)) from None
    try:
        if text.lstrip()[:1] == "[":
            rows = orjson.loads(text)
        elif text.lstrip()[:1] == "{":
            rows = [orjson.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text)))
    except (orjson.JSONDecodeError, csv.Error):
        rows = [None]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ConfigError(f"row {number} is neither CSV nor JSON", code=CODE, where=str(path), hint=hint)
        yield row


def _delimiter(text: str) -> str:
    """What separates the names of the first line: spreadsheets of many countries write semicolons."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def flat(row: Row) -> dict[str, Any]:
    """The row with what Label Studio (`data`) and Argilla (`fields`, `metadata`) put one level deeper."""
    inner = [row[name] for name in ("data", "fields", "metadata") if isinstance(row.get(name), dict)]
    return {name: value for part in (row, *inner) for name, value in part.items()}


def answers_of(row: Row, names: Sequence[str], *, rater: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield who answered, and the answer to each question that they answered.

    Args:
        names: The questions.
        rater: Who answered a row that names no one.
    """
    for annotation in _dicts(row.get("annotations")):  # Label Studio's JSON
        found = {
            str(result["from_name"]): _word(result["value"])
            for result in _dicts(annotation.get("result"))
            if result.get("from_name") in names and isinstance(result.get("value"), dict)
        }
        if found:
            yield _rater(annotation, rater), found
    responses = row.get("responses")
    if isinstance(responses, dict):  # Argilla's records
        by_person: dict[str, dict[str, str]] = {}
        for name in names:
            for response in _dicts(responses.get(name)):
                by_person.setdefault(_rater(response, rater), {})[name] = _word(response.get("value"))
        yield from by_person.items()
    if "annotations" in row or "responses" in row:
        return
    given = flat(row)
    found = {name: word for name in names if (word := _word(given.get(name)))}
    if found:
        yield _rater(row, rater), found


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _word(value: Any) -> str:
    """One answer or several as a word: `a`, `["a", "b"]`, or `{"choices": ["a", "b"]}` as Label Studio's CSV has it."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return str(value)
    if isinstance(value, dict):
        value = value.get("choices", value.get("text"))
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _rater(row: Row, default: str) -> str:
    """Who answered, as a name that a file may have."""
    found = next((row[name] for name in _RATERS if row.get(name) not in (None, "")), default)
    if isinstance(found, dict):
        found = found.get("email") or found.get("id") or default
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", str(found)).strip("-._@")[:63] or default
