"""Reports of a real workspace in a real Chromium: a judged run, and a run with a curation card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.artifacts import ModelRef
from tests.support.browser import NARROW, WIDE, check_page, watched
from tests.support.candidates import Candidates
from tests.support.commands import NOWHERE
from tests.support.workplace import Workplace, environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_reports_of_a_curation_and_of_a_verdict_are_readable_at_every_width(
    tmp_path: Path, tiny_model: ModelRef, browser: Browser
) -> None:
    workplace = Workplace(tmp_path, {**environment(tiny_model.root, tmp_path / "cache"), "PREFECT_API_URL": NOWHERE})
    workplace.declare()
    workplace.json("data", "curate", "small")
    made = Candidates(tmp_path, tiny_model)
    curated = made.ledger.runs(limit=1)[0].run_id
    for seed, verdict in ((1, "PROMOTE"), (2, "BLOCK")):
        made.add(seed, verdict)  # type: ignore[arg-type]
    before = made.ledger.path.read_bytes()
    pages: dict[str, Path] = {}
    for run_id in (curated, "run-2"):
        pages[run_id] = tmp_path / f"{run_id}.html"
        done = workplace.run("report", run_id, "--out", str(pages[run_id]))
        assert done.returncode == 0, done.stderr
    for size, dark in ((WIDE, False), (NARROW, True)):
        with watched(browser, size, dark=dark) as page:
            page.goto(pages[curated].as_uri())
            assert "What each step did to the rows" in page.inner_text("main")
            graph = page.locator("svg.graph")
            assert str(graph.get_attribute("aria-label")).startswith("Graph of ")
            assert page.evaluate("document.querySelector('svg.graph').getBoundingClientRect().width") >= 1000
            check_page(page)
            page.goto(pages["run-2"].as_uri())
            assert "is worse than allowed" in page.inner_text("main")
            check_page(page)
    assert made.ledger.path.read_bytes() == before


def test_the_check_of_pages_finds_faults(browser: Browser) -> None:
    with watched(browser, WIDE) as page:
        page.set_content("<html><body><img src='data:,'><input></body></html>")
        with pytest.raises(AssertionError):
            check_page(page)
