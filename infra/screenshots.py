"""`make screenshots`: pictures of the demo's report for README and docs, taken by the system's Chromium.

Run `make demo` first: the pictures are of the last run of `support-replies` that has a verdict. The report is a file,
so no server is needed and nothing is requested from a network.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
        browser.close()
    sys.stderr.write(f"{len(PICTURES)} pictures in {FOLDER.relative_to(PROJECT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
