"""What mkdocs calls while it builds the site: adds the written pages, orders all, and keeps other hosts out.

Used by `infra/site/mkdocs.yml` alone. A new file in docs/ needs no entry anywhere: it follows those named here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from infra.site.error_pages import error_pages
from infra.site.reference import reference_page

PROJECT = Path(__file__).resolve().parents[2]
ORDER = (
    "index", "quickstart", "init", "tour", "deciding", "configuration", "reference", "curation", "sources",
    "training", "memory", "economics", "gates", "release", "operations", "scale", "security", "errors", "words",
)  # fmt: skip
WRITTEN = ("reference", "security")
POLICY = "default-src 'self' file: data: blob: 'unsafe-inline'"
"""What a page may load: what lies beside it. A browser then asks no other host, whatever a script would like."""
_FENCE = re.compile(r"^( *```\w+) .*$", re.M)
_RESULTS = re.compile(r"\]\((?:\.\./)+benchmarks/results/")
_NO_MENTION = re.compile(r"(^```[\s\S]*?^```$|`[^`\n]+`|\[[^]\n]*\]\([^)\n]*\)|^#.*$)", re.M)
_MENTION = re.compile(r"(?<=[(, ])TG\d{4}(?=[),.; ])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages: those of ORDER that are there, then the others, then results and decisions."""
    docs = Path(config.docs_dir)
    there = {path.stem for path in docs.glob("*.md")} | set(WRITTEN)
    pages = [*(name for name in ORDER if name in there), *sorted(there - set(ORDER))]
    config.nav = [
        *(f"{name}.md" for name in pages),
        {"Measured": [f"results/{path.name}" for path in _results()]},
        {"Decisions": [f"decisions/{path.name}" for path in sorted((docs / "decisions").glob("*.md"))]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per error code, the reference, and the recorded results of the benchmarks."""
    for code, text in error_pages(PROJECT).items():
        files.append(_written(config, f"errors/{code}.md", text))
    files.append(_written(config, "reference.md", reference_page()))
    files.append(_written(config, "security.md", (PROJECT / "SECURITY.md").read_text(encoding="utf-8")))
    for path in _results():
        files.append(_written(config, f"results/{path.name}", path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Take notes for the tests out of fences, and lead codes and results to their pages."""
    path = page.file.src_uri
    up = "../" * path.count("/")
    markdown = _RESULTS.sub(f"]({up}results/", _FENCE.sub(r"\1", markdown)).replace(
        "](../SECURITY.md)", "](security.md)"
    )
    if path == "errors.md":
        return re.sub(r"^\| (TG\d{4}) \|", r"| [\1](errors/\1.md) |", markdown, flags=re.M)
    if path.startswith("errors/"):
        return markdown
    parts = _NO_MENTION.split(markdown)
    parts[::2] = [_MENTION.sub(lambda found: f"[{found[0]}]({up}errors/{found[0]}.md)", part) for part in parts[::2]]
    return "".join(parts)


def on_post_page(output: str, **_: Any) -> str:
    """Tell the browser that nothing may come from another host."""
    return output.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">', 1)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for pages that are no page of docs/, such as the one for what is not found."""
    return on_post_page(output_content)


def _written(config: MkDocsConfig, path: str, text: str) -> File:
    return File.generated(config, path, content=text)


def _results() -> list[Path]:
    return sorted((PROJECT / "benchmarks" / "results").glob("*.md"))
