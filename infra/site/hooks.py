"""Hooks for mkdocs: pages that are not in docs/, and the order of all pages.

Used only by `mkdocs.yml`. A new file in docs/ needs no entry: it comes after those in `ORDER`.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from infra.site.reference import reference_page

PROJECT = Path(__file__).resolve().parents[2]
ORDER = (
    "index", "quickstart", "init", "tour", "graph", "deciding", "configuration", "reference", "curation", "sources",
    "training", "memory", "economics", "gates", "release", "operations", "scale", "security", "errors", "words",
)  # fmt: skip
RESULTS = sorted((PROJECT / "benchmarks" / "results").glob("*.md"))
_NOTE = re.compile(r"^( *```\w+) .*$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages: those of ORDER that exist, then the others, then results and decisions."""
    docs = Path(config.docs_dir)
    names = {path.stem for path in docs.glob("*.md")} | {"reference", "security"}
    config.nav = [
        *(f"{name}.md" for name in [*(name for name in ORDER if name in names), *sorted(names - set(ORDER))]),
        {"Measured": [f"results/{path.name}" for path in RESULTS]},
        {"Decisions": [f"decisions/{path.name}" for path in sorted((docs / "decisions").glob("*.md"))]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the threat model and the recorded results of the benchmarks."""
    files.append(File.generated(config, "reference.md", content=reference_page()))
    for name, path in {
        "security.md": PROJECT / "SECURITY.md",
        **{f"results/{path.name}": path for path in RESULTS},
    }.items():
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Remove notes for the tests from fences, and link to the added pages."""
    markdown = _NOTE.sub(r"\1", markdown).replace("](../SECURITY.md)", "](security.md)")
    return markdown.replace("../benchmarks/results/", "results/")
