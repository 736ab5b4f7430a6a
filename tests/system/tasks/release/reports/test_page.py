"""The report in a real Chromium: hostile text, two widths, light and dark, accessibility with axe-core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.release.reports.page import draw_page
from tests.support.browser import NARROW, WIDE, check_page, watched
from tests.tasks.release.reports.test_page import HOSTILE, report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (NARROW, True)])
def test_a_report_with_hostile_text_is_readable_and_runs_none_of_it(
    browser: Browser, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    file = tmp_path / "report.html"
    file.write_text(draw_page(report(), card="<section><h3>Curation</h3></section>"), encoding="utf-8")
    with watched(browser, size, dark=dark) as page:
        page.goto(file.as_uri())
        check_page(page)
        shown = page.inner_text("main")
        assert HOSTILE.replace("\u202e", "\ufffd") in shown
        assert page.locator("svg").count() >= 3
        # An axis label beyond its chart is cut off.
        assert (
            page.evaluate(
                """() => [...document.querySelectorAll("svg text")].filter(text => {
              const a = text.getBoundingClientRect(), b = text.ownerSVGElement.getBoundingClientRect();
              return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
            }).map(text => text.textContent)"""
            )
            == []
        )
        assert page.locator("script, img, iframe").count() == 0


def test_a_report_can_be_printed(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(draw_page(report(), card=""), encoding="utf-8")
    with watched(browser, WIDE) as page:
        page.goto(file.as_uri())
        assert page.pdf(format="A4").startswith(b"%PDF")
