"""Pages that are written from the program: error codes, the reference of pipelines.yaml, the plots."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.commands.explain import documented
from infra.schedule_demo.chart import chart, record, recorded_rows
from infra.site.error_pages import error_pages
from infra.site.examples import accepts, example_of, written_values
from infra.site.plots import CANDIDATES, FOLDER, RECORDED, RULES, WEEKS, draw, promotions, regressions
from infra.site.reference import keys_of, reference_page, sections
from schemas.pipeline import PipelineSpec

WITHOUT_WORDS = {"TG0210", "TG0211", "TG0212", "TG0213", "TG0214", "TG0215", "TG0218", "TG0260", "TG0267", "TG0513"}
"""Codes whose words are put together where no reader of the source finds them. May only shrink."""


@pytest.fixture(scope="module")
def pages(project: Path) -> dict[str, str]:
    return error_pages(project)


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    return reference_page(project)


def test_each_code_has_a_page_with_all_that_is_asked_of_one(pages: dict[str, str], project: Path) -> None:
    rows = list(documented(project / "docs" / "errors.md"))
    assert sorted(pages) == sorted(row.code for row in rows)
    for row in rows:
        text = pages[row.code]
        assert text.startswith(f"# {row.code}: {row.meaning}\n")
        assert re.search(r"^\*\*Exit code:\*\* (\d|none of its own)", text, re.M), row.code
        for part in ("When it happens", "What to do", "Related"):
            assert len(text.split(f"## {part}\n\n")[1].split("\n\n")[0]) > 5, f"{row.code}: {part}"
        for other in re.findall(r"\]\((TG\d{4})\.md\)", text):
            assert other in pages
            assert other != row.code
    assert {code for code, text in pages.items() if "## What it says" not in text} == WITHOUT_WORDS


def test_a_page_says_what_the_program_says(pages: dict[str, str]) -> None:
    assert "error[TG0104]: no pipeline '{name}'" in pages["TG0104"]
    assert "`flows/engine/lock.py`" in pages["TG0520"]
    assert "**Exit code:** 6 " in pages["TG0520"]
    assert "**Exit code:** none of its own" in pages["TG0240"]
    assert "there is no such code" in pages["TG0144"]  # from the docstring of the function that raises it


def test_every_field_of_every_spec_is_in_the_reference(page: str) -> None:
    """Asked of pydantic's own list of the specs, which the page does not walk."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    specs = {"PipelineSpec": schema, **schema["$defs"]}
    shown = {section.spec.__name__: section for section in sections()}
    assert shown.keys() == {name for name, spec in specs.items() if "properties" in spec}
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for name, section in shown.items():
        rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", parts[section.title], re.M)
        assert [key for key, _ in rows] == list(specs[name]["properties"]), name
        for key, cells in rows:
            values, unit, default, meaning, example = re.split(r" \| ", cells)
            place = f"{name}.{key}"
            assert values, place
            assert unit != "?", f"{place} counts something: name it in infra/site/units.py"
            assert default, place
            assert len(meaning) > 3, f"{place} has no description in schemas/"
            assert example, place


def test_every_example_is_one_that_its_field_takes(project: Path) -> None:
    written = written_values(project)
    n = 0
    for section in sections():
        for key, name in keys_of(section.spec).items():
            example = example_of(section.spec, name, section.at(key), written, {})
            if example is not None:
                assert accepts(section.spec, name, example), f"{section.at(key)}: {example}"
                n += 1
    assert n > 100
    assert not accepts(PipelineSpec, "name", "No name")


def test_the_plots_are_drawn_from_the_recorded_figures() -> None:
    text = RECORDED.read_text(encoding="utf-8")
    for name, drawing in draw(text).items():
        path = FOLDER / name
        assert path.read_text(encoding="utf-8") == drawing, "python -m infra.site.plots"
        assert path.stat().st_size < 60_000
        assert "http" not in drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
    other = draw(text.replace("| tunegate improve | 1000 | 0.0 |", "| tunegate improve | 1000 | 9.9 |"))
    assert other["promotions.svg"] != draw(text)["promotions.svg"]


def test_the_weeks_are_drawn_from_the_recorded_table() -> None:
    rows = recorded_rows(WEEKS.read_text(encoding="utf-8"))
    assert [row[0] for row in rows] == [str(week) for week in range(1, 9)]
    assert (FOLDER / "weeks.svg").read_text(encoding="utf-8") == chart(rows), "python -m infra.site.plots"
    told = record(rows, machine={"processor": "one"}, command="make demo-schedule")
    assert recorded_rows(told) == rows
    assert {row[6] for row in rows} >= {"PROMOTE", "BLOCK"}


def test_the_recorded_tables_are_read_whole() -> None:
    text = RECORDED.read_text(encoding="utf-8")
    figures = promotions(text)
    assert set(RULES) <= set(figures)
    assert {len(shares) for sizes in figures.values() for shares in sizes.values()} == {len(CANDIDATES)}
    assert {tuple(sizes) for sizes in figures.values()} == {(200, 500, 1000, 2000)}
    assert set(regressions(text)) == set(figures)
