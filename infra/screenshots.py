"""`make screenshots`: pictures of the demo's report and of its page in Prefect, taken by the system's Chromium.

Run `make demo` first: the pictures are of the last run of `support-replies` that has a verdict. The report is a file;
Prefect's page is that of the user's own server, which is started if it has ended. No network is used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.ledger.open import open_ledger
from flows.workspace.login import login_url
from flows.workspace.servers import ensure_users_prefect
from flows.workspace.settings import load_settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROJECT = Path(__file__).resolve().parents[1]
TUNEGATE = Path(sys.executable).with_name("tunegate")
FOLDER = PROJECT / "docs" / "pictures"
PIPELINE = "support-replies"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update")
PICTURES = {
    "verdict.png": ("section.verdict", None),
    "rules.png": ('[aria-label="Findings of the gate"]', None),
    "arms.png": ('[aria-label="Scores of all arms"]', None),
    "graph.png": ('[aria-label="Graph of the run"] svg', 1600),
}
"""File -> the part of the report that it shows, and the window's width in pixels if it is not 1,280."""


RUN_PAGE = "prefect.png"
GRAPH_S = 5.0
"""Seconds until Prefect has drawn the run's graph, which is a canvas."""


def main() -> int:
    """Write the pictures; return 1 if there is no browser or no run with a verdict."""
    browser_path = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if browser_path is None:
        sys.stderr.write(f"no browser: none of {', '.join(CHROMIUM)} is installed\n")
        return 1
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        command = [TUNEGATE, "report", "--last", PIPELINE, "--out", page_file]
        if subprocess.run(command, cwd=PROJECT, check=False, stdout=subprocess.DEVNULL).returncode:
            return 1
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(QUIET), chromium_sandbox=False)
        for name, (place, width) in PICTURES.items():
            page = browser.new_page(viewport={"width": width or 1280, "height": 900}, color_scheme="light")
            page.goto(page_file.as_uri())
            page.locator(place).first.screenshot(path=FOLDER / name)
            page.close()
        take_run_page(browser)
        browser.close()
    sys.stderr.write(f"{len(PICTURES) + 1} pictures in {FOLDER.relative_to(PROJECT)}\n")
    return 0


def take_run_page(browser: Browser) -> None:
    """Take the picture of the run's page in Prefect: its stages, states and edges."""
    settings = load_settings(PROJECT / "pipelines.yaml")
    rows = open_ledger(settings).runs(pipeline=PIPELINE)
    run = next(row for row in rows if row.verdict is not None and row.prefect_run_id)
    server = ensure_users_prefect(settings)
    if server is None:
        raise SystemExit("PREFECT_API_URL names another server: unset it")
    page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
    page.goto(login_url(server.url, Path(server.log).parent))
    page.get_by_text("Logout").wait_for()
    page.goto(f"{server.url}/runs/flow-run/{run.prefect_run_id}")
    page.locator("canvas").first.wait_for()
    page.wait_for_timeout(1000 * GRAPH_S)
    page.get_by_text(str(PROJECT), exact=True).first.evaluate("tag => tag.remove()")  # the folder of this machine
    page.screenshot(path=FOLDER / RUN_PAGE)
    page.close()


if __name__ == "__main__":
    sys.exit(main())
