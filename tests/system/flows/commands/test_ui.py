"""`tunegate ui` as its users meet it: the real command, over a real workspace, in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from schemas.artifacts import ModelRef
from tests.support.browser import NARROW, WIDE, check_page, open_browser, watched
from tests.support.candidates import Candidates
from tests.support.workplace import ForkedWorkplace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_a_person_finds_runs_champions_a_comparison_and_removed_tickets(
    empty_workplace: ForkedWorkplace, tiny_model: ModelRef, browser: Browser
) -> None:
    empty_workplace.json("curate", "small")
    made = Candidates(empty_workplace.folder, tiny_model)
    curated = made.ledger.runs(limit=1)[0].run_id
    for seed, verdict in ((1, "PROMOTE"), (2, "BLOCK"), (3, "PROMOTE")):
        made.add(seed, verdict)  # type: ignore[arg-type]
    before = made.ledger.path.read_bytes()
    process = empty_workplace.start("ui", "--port", "0", "--json")
    try:
        lines = iter(process.stdout.readline, "}\n")
        url = json.loads("".join(lines) + "}")["url"]
        for size, dark in ((WIDE, False), (NARROW, True)):
            with watched(browser, size, dark=dark) as page:
                page.goto(url)
                assert "token" not in page.url
                check_page(page)
                page.get_by_role("link", name="small", exact=True).first.click()
                assert "version 3 serves" in page.inner_text("main")
                check_page(page)
                page.get_by_role("button", name="Compare").click()
                assert "Two runs side by side" in page.inner_text("main")
                check_page(page)
                page.go_back()
                page.get_by_role("link", name="removed tickets").click()
                check_page(page)
                page.get_by_label("One SELECT").fill("SELECT split, count(*) AS tickets FROM splits GROUP BY ALL")
                page.get_by_role("button", name="Ask").click()
                assert "train" in page.get_by_label("Rows of the warehouse").inner_text()
                page.get_by_label("One SELECT").fill("COPY curated TO '/tmp/out.csv'")
                page.get_by_role("button", name="Ask").click()
                assert "TG0146" in page.get_by_role("alert").inner_text()
                check_page(page)
                page.get_by_role("link", name="tunegate").click()
                page.get_by_role("link", name="run-2").first.click()
                assert "is worse than allowed" in page.inner_text("main")
                check_page(page)
                page.go_back()
                page.get_by_role("link", name=curated).first.click()  # its page has a real curation card
                assert "What each step did to the rows" in page.inner_text("main")
                check_page(page)
        assert made.ledger.path.read_bytes() == before
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_check_of_pages_finds_what_is_wrong(browser: Browser) -> None:
    with watched(browser, WIDE) as page:
        page.set_content("<html><body><img src='data:,'><input></body></html>")
        with pytest.raises(AssertionError):
            check_page(page)
