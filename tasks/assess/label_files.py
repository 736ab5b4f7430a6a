"""Exchange questions and labels with a spreadsheet, Label Studio or Argilla, as CSV or JSON Lines.

A row is one item: its text, its answers as `answer_a`, `answer_b` and so on in an order that says nothing about the
arms, the ids of their labels, and an empty `right` to fill in: the letters of the right answers, `both` or `neither`.
Label Studio imports the CSV, Argilla the JSON Lines. What they export is read back, whatever they have added.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from schemas.errors import ConfigError
from schemas.regular_file import open_regular
from tasks.tickets.draw import hash_rank

FileFormat = Literal["csv", "jsonl"]
RIGHT_COLUMN = "right"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_BYTES = 256 * 1024 * 1024
_RATERS = ("rater", "annotator", "completed_by", "user_id")
"""Columns that may name who labelled a row; the first that has a value counts."""
_ALL, _NONE = ("both", "all", "2"), ("neither", "none", "n", "0")
_HINT = "`right` has the letters of the right answers, such as a or ab, or both or neither"


@dataclass(frozen=True)
class Sheet:
    """One item as a person sees it."""

    item_id: str
    question: str
    answers: tuple[tuple[str, str], ...]
    """Id of the label and text, in the order of the letters."""

    @classmethod
    def of(cls, item_id: str, question: str, answers: Mapping[str, str], *, seed: int) -> Sheet:
        """Shuffle the answers: a hash decides, so that no place belongs to an arm."""
        order = sorted(answers, key=lambda label: hash_rank(label, seed=seed))
        return cls(item_id, question, tuple((label, answers[label]) for label in order))

    def votes(self, choice: str) -> dict[str, bool] | None:
        """Id of each label -> whether the choice accepts its answer; None if it is no choice.

        >>> Sheet("7", "Where is it?", (("x", "On its way."), ("y", "Lost."))).votes("A")
        {'x': True, 'y': False}
        """
        word = re.sub(r"[\s,;+&/]+", "", choice.strip().lower())
        letters = LETTERS[: len(self.answers)]
        if word in _ALL:
            word = letters
        elif word in _NONE:
            return dict.fromkeys((label for label, _ in self.answers), False)
        if not word or not set(word) <= set(letters):
            return None
        return {label: letter in word for letter, (label, _) in zip(letters, self.answers, strict=False)}


def write_sheets(sheets: Sequence[Sheet], form: FileFormat) -> bytes:
    """Return the file's content; a cell that a spreadsheet would run as a formula begins with an apostrophe."""
    rows = [_row(sheet) for sheet in sheets]
    if form == "jsonl":
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=lambda name: name == RIGHT_COLUMN)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def _row(sheet: Sheet) -> dict[str, str]:
    pairs = list(zip(LETTERS, sheet.answers, strict=False))
    return {
        "item_id": sheet.item_id,
        "question": sheet.question,
        **{f"answer_{letter}": text for letter, (_, text) in pairs},
        **{f"label_{letter}": label for letter, (label, _) in pairs},
        RIGHT_COLUMN: "",
    }


def _harmless(value: str) -> str:
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def read_sheets(path: Path, *, known: frozenset[str], rater: str) -> dict[str, dict[str, bool]]:
    """Return rater -> id of a label -> whether the answer is accepted. Rows without a choice are passed over.

    Args:
        known: Ids of the labels that may occur.
        rater: Name for rows that name no rater.

    Raises:
        ConfigError: TG0110, the file cannot be read; TG0164, it has no choice, or a row is no choice between known
            answers. Nothing of it counts then.
    """
    votes: dict[str, dict[str, bool]] = {}
    for number, row in enumerate(_rows(path), start=1):
        for name, choice in _choices(row, rater):
            flat = _flat(row)
            labels = [(label, "") for letter in LETTERS if (label := str(flat.get(f"label_{letter}") or ""))]
            given = Sheet("", "", tuple(labels)).votes(choice) if labels else None
            if given is None or not given.keys() <= known:
                what = f"{choice[:20]!r} is no choice" if given is None else "its answers are not those of this run"
                raise ConfigError(f"row {number}: {what}", code="TG0164", where=str(path), hint=_HINT)
            votes.setdefault(name, {}).update(given)
    if not votes:
        raise ConfigError("no row has a choice", code="TG0164", where=str(path), hint=_HINT)
    return votes


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a CSV, a JSON list or JSON Lines, whatever the name's suffix is."""
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError("the file is too large for labels", code="TG0164", where=str(path), hint=_HINT)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"it cannot be read ({type(error).__name__})", code="TG0110", where=str(path)) from None
    try:
        if text.lstrip()[:1] == "[":
            rows = orjson.loads(text)
        elif text.lstrip()[:1] == "{":
            rows = [orjson.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (orjson.JSONDecodeError, csv.Error):
        rows = [None]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ConfigError(f"row {number} is neither CSV nor JSON", code="TG0164", where=str(path), hint=_HINT)
        yield row


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what Label Studio (`data`) and Argilla (`fields`, `metadata`) put one level deeper."""
    inner = [row[name] for name in ("data", "fields", "metadata") if isinstance(row.get(name), dict)]
    return {name: value for part in (row, *inner) for name, value in part.items()}


def _choices(row: Mapping[str, Any], rater: str) -> Iterator[tuple[str, str]]:
    """Yield who chose what."""
    for annotation in _dicts(row.get("annotations")):  # Label Studio's JSON
        for result in _dicts(annotation.get("result")):
            value = result.get("value")
            if result.get("from_name") == RIGHT_COLUMN and isinstance(value, dict):
                yield _rater(annotation, rater), _word(value.get("choices"))
    responses = row.get("responses")
    if isinstance(responses, dict):  # Argilla's records
        for response in _dicts(responses.get(RIGHT_COLUMN)):
            yield _rater(response, rater), _word(response.get("value"))
    choice = _word(_flat(row).get(RIGHT_COLUMN))
    if choice and "annotations" not in row and "responses" not in row:
        yield _rater(row, rater), choice


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _word(value: Any) -> str:
    """One choice or several as a word: `a`, `["a", "b"]`, or `{"choices": ["a", "b"]}` as Label Studio's CSV has it."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return str(value)
    if isinstance(value, dict):
        value = value.get("choices")
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _rater(row: Mapping[str, Any], default: str) -> str:
    """Who labelled, as a name that a file may have."""
    found = next((row[name] for name in _RATERS if row.get(name) not in (None, "")), default)
    if isinstance(found, dict):
        found = found.get("email") or found.get("id") or default
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", str(found)).strip("-._@")[:63] or default
