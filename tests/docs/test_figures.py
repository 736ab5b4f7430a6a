"""Figures of recorded results that pages quote: a link to the page, whose title is the place in the page's JSON.

`[2.1 %](benchmarks/results/abstain.md "sets>banking77>0.95/1000>certified>missed")`
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_prose import texts

_FIGURE = re.compile(r'\[(?P<text>[^\]]+)\]\((?:\.\./)*benchmarks/results/(?P<page>[\w-]+)\.md "(?P<place>[^"]+)"\)')
_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.(?P<decimals>\d+))?(?P<percent> %)?")
_JSON = re.compile(r"^`?(\{.*\})`?$", re.MULTILINE)


def figures(text: str) -> Iterator[tuple[str, str, str]]:
    """Text, page and place of each quoted figure."""
    for found in _FIGURE.finditer(text):
        yield found["text"], found["page"], found["place"]


def recorded(page: str) -> dict[str, Any]:
    """The last line of JSON of a page of results."""
    measured: dict[str, Any] = json.loads(_JSON.findall(page)[-1])
    return measured


def value_at(measured: dict[str, Any], place: str) -> float:
    """The number at a place such as `sets>banking77>ours>recall@1`; a list is entered by number."""
    value: Any = measured
    for step in place.split(">"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return float(value)


def as_written(value: float, text: str) -> str:
    """The value with the decimals, the thousands separators and the percent sign of the text."""
    form = _NUMBER.fullmatch(text)
    assert form, f"{text!r} is no number"
    shown = f"{value * (100 if form['percent'] else 1):,.{len(form['decimals'] or '')}f}"
    plus = "+" if text.startswith("+") else ""
    return plus + (shown if "," in text else shown.replace(",", "")) + (form["percent"] or "")


def numbers_table(readme: str) -> list[list[str]]:
    """The rows of README's table of numbers, without its head: one text per cell."""
    rows = [line for line in readme.split("\n## Numbers\n")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_quoted_figure_is_that_of_the_recorded_result(project: Path) -> None:
    results = project / "benchmarks" / "results"
    wrong, n = [], 0
    for path in texts(project):
        for text, page, place in figures(path.read_text(encoding="utf-8")):
            measured = value_at(recorded((results / f"{page}.md").read_text(encoding="utf-8")), place)
            expected, n = as_written(measured, text), n + 1
            wrong += [f"{path.name}: {text} is {expected} in {page}.md, {place}"] if text != expected else []
    assert n > 0
    assert wrong == []


def test_the_table_of_numbers_has_four_rows_of_figures_that_name_their_place(project: Path) -> None:
    table = numbers_table((project / "README.md").read_text(encoding="utf-8"))
    assert len(table) == 4
    for _, *cells in table:
        for cell in cells:
            assert list(figures(cell)), f"{cell} quotes no recorded result"
            assert not re.search(r"(?<!\w)\d", _FIGURE.sub("", cell)), f"{cell} has another number"


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (0.0214, "2.1 %", "2.1 %"),
        (0.0216, "2.1 %", "2.2 %"),
        (0.83, "0.83", "0.83"),
        (1057, "1,057", "1,057"),
        (3.597, "3.6", "3.6"),
        (-0.4375, "-0.44", "-0.44"),
        (0.891, "+0.89", "+0.89"),
    ],
)
def test_a_value_is_written_as_the_page_writes_its_number(value: float, text: str, expected: str) -> None:
    assert as_written(value, text) == expected


def test_the_last_json_of_a_page_counts_in_a_block_and_in_a_line() -> None:
    assert recorded('{"a": 1}\ntext\n```json\n{"a": {"b": [2, 3]}}\n```\n') == {"a": {"b": [2, 3]}}
    assert value_at(recorded('text\n\n`{"a": {"b": [2, 3]}}`\n'), "a>b>1") == 3.0
    with pytest.raises(KeyError):
        value_at({"a": {}}, "a>c")
