"""Pages in a real Chromium: the browser, and the checks that every page must pass.

Uses the system's browser; tests skip with a reason on a machine without one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync")  # fmt: skip
"""Without these options, the browser contacts its maker's servers."""
WIDE, NARROW = (1280, 900), (390, 844)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET), chromium_sandbox=False)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, size: tuple[int, int], *, dark: bool = False) -> Iterator[Page]:
    """A new page that must log nothing to the console and request nothing but what the test opens."""
    width, height = size
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("requestfailed", lambda request: messages.append(f"failed: {request.url}"))
    page.on("dialog", lambda dialog: messages.append(f"dialog: {dialog.message}"))
    yield page
    page.close()
    assert messages == []


def check_page(page: Page) -> None:
    """Check that the page breaks no axe-core rule, fits the window's width and is not blank."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the window"
    assert len(page.screenshot()) > 5_000
