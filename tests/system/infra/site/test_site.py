"""The site: built in strict mode without network, complete, and loading nothing from other hosts."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

_FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "use": "href"}
"""Tags with an address that a browser fetches by itself."""


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages as `make docs` builds them, in a process without network access."""
    out = tmp_path_factory.mktemp("site")
    # Requests to other hosts go to a proxy that does not exist.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", "infra/site/mkdocs.yml", "-d", str(out)],
        cwd=project, capture_output=True, text=True, check=False,
        env={**os.environ, **nowhere, "PYTHONPATH": str(project), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # strict mode, without warnings
    return out


class Fetches(HTMLParser):
    """Collects what a browser would fetch for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _FETCHED and (address := dict(attrs).get(_FETCHED[tag])):
            self.found.append(address)


def fetches(page: Path) -> list[str]:
    reader = Fetches()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.found


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert fetches(page), page
        for address in fetches(page):
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
            if page.name != "404.html":  # its addresses start at the server's root
                assert (page.parent / address.partition("?")[0].partition("#")[0]).resolve().exists(), address
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_page_of_the_docs_exists_and_is_in_the_menu(site: Path, project: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.relative_to(project / "docs").with_suffix("") for path in (project / "docs").rglob("*.md")]
    for source in [*pages, Path("reference/keys"), Path("security"), Path("results/gates")]:
        page = source.with_name("index") if source.name == "README" else source  # as mkdocs names it
        assert (site / page).with_suffix(".html").is_file(), page
        assert f'href="{page}.html"' in menu, page
    assert 'href="../results/gates.html"' in (site / "explanation" / "how-the-gate-decides.html").read_text(
        encoding="utf-8"
    )


def test_notes_for_the_tests_are_not_shown(site: Path) -> None:
    assert "scene=" not in (site / "tutorial.html").read_text(encoding="utf-8")
