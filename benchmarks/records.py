"""Which pages of `results/` were measured with code that has changed since: `make bench-records`.

A page carries the fingerprint of the code that it measures, which `records.yaml` names. Comments, docstrings, imports
and the place of a function or file do not count, so that rewording and moving make no page old. No git history is
needed. MARK=1: write the line that says so at the top of old pages, and remove it from the others. Exit code 1 if a
page has the line and is not old, or the reverse, or if README.md cites an old page.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PROJECT = Path(__file__).resolve().parents[1]
SUFFIXES = (".json", ".py", ".sql", ".yaml")
MARK = "> **Stale**: code that this page measures has changed since; `make bench-records` says how to measure again."
_CITED = re.compile(r"\bbenchmarks/results/([\w-]+)\.md")
_LINE = re.compile(r"^- (processor|time|commit|code): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Record:
    """A result page and the code that it measures."""

    page: Path
    command: str
    """Measures again."""
    minutes: int
    """Of `command`, on two quiet cores."""
    code: tuple[Path, ...]
    """Files of source and data."""

    @property
    def names(self) -> dict[str, str]:
        """The page's processor, time, commit and fingerprint of code; empty if there is no page yet."""
        if not self.page.exists():
            return {}
        return dict(_LINE.findall(self.page.read_text(encoding="utf-8")))

    @property
    def is_marked(self) -> bool:
        return self.page.exists() and MARK in self.page.read_text(encoding="utf-8")

    @property
    def is_stale(self) -> bool:
        return self.names.get("code") != fingerprint(self.code)

    def mark(self) -> None:
        """Write the line of a stale page below its heading, and remove it from a page that is not stale."""
        heading, _, rest = self.page.read_text(encoding="utf-8").replace(f"{MARK}\n\n", "").partition("\n\n")
        parts = [heading, MARK, rest] if self.is_stale else [heading, rest]
        self.page.write_text("\n\n".join(parts), encoding="utf-8")


def declared(project: Path = PROJECT) -> dict[str, Record]:
    """Name of page -> record.

    Raises:
        FileNotFoundError: a pattern of `records.yaml` matches no file.
    """
    entries = YAML(typ="safe").load(project / "benchmarks" / "records.yaml")
    return {name: _record(name, entry, project) for name, entry in entries.items()}


def _record(name: str, entry: dict[str, Any], project: Path) -> Record:
    files: set[Path] = set()
    for pattern in entry["code"]:
        found = [each for path in project.glob(pattern) for each in ([path] if path.is_file() else path.rglob("*"))]
        kept = {file for file in found if file.suffix in SUFFIXES and file.is_file()}
        if not kept:
            raise FileNotFoundError(f"benchmarks/records.yaml: {name}: {pattern} matches no file")
        files |= kept
    page = project / "benchmarks" / "results" / f"{name}.md"
    return Record(page, entry["command"], entry["minutes"], tuple(sorted(files)))


def fingerprint(files: tuple[Path, ...]) -> str:
    """16 hexadecimal digits of what the code does: equal after rewording, formatting and moving."""
    parts: set[str] = set()
    for file in files:
        parts |= statements(file.read_text(encoding="utf-8")) if file.suffix == ".py" else {file.read_text("utf-8")}
    digests = sorted(hashlib.sha256(part.encode()).hexdigest() for part in parts)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


@functools.cache
def statements(source: str) -> frozenset[str]:
    """The statements of a module without imports, docstrings, comments and places.

    >>> statements("import re\\ndef f(x):\\n    'One.'\\n    return x") == statements("def f(x): return x  # one")
    True
    """
    return frozenset(repr(_plain(node)) for node in ast.parse(source).body if _counts(node))


def _counts(node: object) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return False
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
    return True


def _plain(node: object) -> object:
    """A node as tuples; empty fields are left out, since Python versions differ in them."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node)]
        return (type(node).__name__, *(field for field in fields if field[1] not in (None, [])))
    if isinstance(node, list):
        return [_plain(each) for each in node if _counts(each)]
    return node


WRITTEN = (":!benchmarks/results", ":!docs/plots")
"""What benchmarks write: it says nothing about the code that is measured."""


def commit(project: Path = PROJECT) -> str:
    """The checked-out commit in short, and whether files differ from it, results apart; `unknown` without git."""
    head = _git(project, "rev-parse", "--short=12", "HEAD")
    changed = head and _git(project, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
    return f"{head or 'unknown'}{' with changes' if changed else ''}"


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def n_commits_since(record: Record, project: Path) -> str:
    """How many commits have touched the code since the page's, or that this clone cannot say."""
    measured = record.names.get("commit", "").partition(" ")[0]
    listed = _git(project, "rev-list", "--count", f"{measured}..HEAD", "--", *map(str, record.code))
    return f"{listed} commits since" if measured and listed else "its commit is not in this clone"


def report(project: Path = PROJECT) -> list[str]:
    """A line for each page."""
    records = declared(project)
    pages = {page.stem for page in (project / "benchmarks" / "results").glob("*.md")}
    lines = [f"{name}: not declared in benchmarks/records.yaml" for name in sorted(pages - set(records))]
    for name, record in records.items():
        names = record.names
        if not names:
            lines.append(f"{name}: not recorded yet; RECORD=1 {record.command}, about {record.minutes} minutes")
            continue
        place = f"{names.get('time', 'no date')}, commit {names.get('commit', 'unknown')}"
        if not record.is_stale:
            lines.append(f"{name}: current ({place}){'; it is marked stale: MARK=1 corrects it' * record.is_marked}")
            continue
        again = f"RECORD=1 {record.command}, about {record.minutes} minutes"
        marked = "marked" if record.is_marked else "NOT MARKED, MARK=1 does"
        lines.append(f"{name}: stale, {marked} ({place}; {n_commits_since(record, project)}); again: {again}")
    return lines


def wrong_marks(project: Path = PROJECT) -> list[str]:
    """Names of the pages that do not say whether they are stale."""
    return [name for name, each in declared(project).items() if each.page.exists() and each.is_stale != each.is_marked]


def stale_citations(project: Path = PROJECT) -> list[str]:
    """A line for each stale page that README.md cites: what it says is current."""
    cited = dict.fromkeys(_CITED.findall((project / "README.md").read_text(encoding="utf-8")))
    records = declared(project)
    return [
        f"README.md cites results/{name}.md, which is stale: measure again (RECORD=1 {records[name].command}), or take "
        "the figures out"
        for name in cited
        if name in records and records[name].is_stale
    ]


def main() -> int:
    """Print the age of each page; with MARK=1 correct the marks first.

    Returns:
        1 if a mark is wrong, or README.md cites a stale page.
    """
    if os.environ.get("MARK"):
        for record in declared().values():
            if record.page.exists():
                record.mark()
    citations = stale_citations()
    sys.stdout.write("\n".join([*report(), *citations]) + "\n")
    return int(bool(wrong_marks() or citations))


if __name__ == "__main__":
    sys.exit(main())
