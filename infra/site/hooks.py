"""Hooks for mkdocs: pages that are not in docs/, and the order of all pages.

Used only by `mkdocs.yml`. A new page needs no entry: it follows those of its folder that are listed here.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "How-to guides": (
        "how-to", "install", "start-from-a-file", "connect-a-source", "curate-tickets", "questions-in-sql",
        "forget-a-customer",
        "choose-a-training", "fit-a-training-in-memory", "weigh-costs", "inspect-the-graph", "promote-and-roll-back",
        "export-and-serve", "schedule-runs", "run-the-stack", "share-a-ledger", "use-several-machines",
        "recover-from-faults",
    ),
    "Reference": ("reference", "commands", "configuration", "keys", "gates", "errors", "environment", "metrics"),
    "Explanation": ("explanation", "how-the-gate-decides", "what-was-measured", "tour"),
    "Decisions": ("decisions", "README", "application", "graph-and-store", "prefect"),
}  # fmt: skip
"""Title of a section -> its folder, and the pages that come first."""
RESULTS = sorted((PROJECT / "benchmarks" / "results").glob("*.md"))
_NOTE = re.compile(r"^( *```\w+) .*$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages: tutorial, then each folder, then the recorded results."""
    docs = Path(config.docs_dir)
    sections = [{title: _pages(docs / folder, first)} for title, (folder, *first) in FOLDERS.items()]
    measured = {"Benchmarks": [f"results/{path.name}" for path in RESULTS]}
    config.nav = ["index.md", "tutorial.md", *sections, "security.md", measured]
    return config


def _pages(folder: Path, first: list[str]) -> list[str]:
    names = {path.stem for path in folder.glob("*.md")}
    return [f"{folder.name}/{name}.md" for name in [*first, *sorted(names - set(first))]]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the threat model and the recorded results of the benchmarks."""
    for name, path in {
        "security.md": PROJECT / "SECURITY.md",
        **{f"results/{path.name}": path for path in RESULTS},
    }.items():
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Remove notes for the tests from fences, and link to the added pages."""
    # Where a page is one folder deep, one `../` is left of the two that lead out of docs/.
    markdown = _NOTE.sub(r"\1", markdown).replace("../SECURITY.md", "security.md")
    return markdown.replace("../benchmarks/results/", "results/")
