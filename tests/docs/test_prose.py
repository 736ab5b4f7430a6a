"""README, docs and other pages: short lines, whole tables, working links."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

LONGEST_LINE = 120
_LINK = re.compile(r"\]\((?!https?://)(?P<path>[^)#\s]*)(?:#(?P<anchor>[\w-]+))?(?: \"[^\"]*\")?\)")


def texts(project: Path) -> list[Path]:
    """All pages, decisions and changelog included."""
    top = (project / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))
    return [*top, project / "benchmarks" / "README.md", *sorted((project / "docs").rglob("*.md"))]


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line outside fenced blocks and tables."""
    in_fence = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        elif not in_fence and not line.lstrip().startswith("|"):
            yield number, line


def too_long(line: str) -> bool:
    """Whether it is too long although it has a space to break it at, after its indent or bullet."""
    return len(line) > LONGEST_LINE and " " in line.lstrip(" -*")


def broken_tables(text: str) -> list[int]:
    """Numbers of the lines at which a table breaks: no head, text above the head, or more or fewer cells.

    A blank line in the middle of a table makes its rest plain text.
    """
    found, above, columns, in_fence = [], "", 0, False
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        in_fence ^= line.lstrip().startswith("```")
        is_row = line.startswith("|") and not in_fence
        if is_row and not above.startswith("|"):
            columns = _cells(line)
            is_head = number < len(lines) and re.fullmatch(r"\|(?: ?:?-+:? ?\|)+", lines[number]) is not None
            found += [] if is_head and not above.strip() else [number]
        elif is_row and _cells(line) != columns:
            found.append(number)
        above = line
    return found


def _cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def headings(text: str) -> set[str]:
    """The anchors of a page."""
    return {slugify(line.lstrip("# "), "-") for _, line in prose(text) if line.startswith("#")}


def test_no_line_of_prose_is_longer_than_120_characters(project: Path) -> None:
    found = [
        f"{path.relative_to(project)}:{number} has {len(line)} characters"
        for path in texts(project)
        for number, line in prose(path.read_text(encoding="utf-8"))
        if too_long(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("word " * 25, True),
        ("- " + "word " * 25, True),
        ("short", False),
        ("- https://example.org/" + "x" * 120, False),
    ],
)
def test_a_line_without_a_space_to_break_it_at_is_not_too_long(line: str, *, expected: bool) -> None:
    assert too_long(line) is expected


def test_tables_and_code_are_not_prose() -> None:
    assert [number for number, _ in prose("text\n```bash\ncode\n```\n| a | table |\nmore")] == [1, 6]


def test_every_table_is_whole(project: Path) -> None:
    pages = [*texts(project), *sorted((project / "benchmarks" / "results").glob("*.md"))]
    broken = {
        str(path.relative_to(project)): numbers
        for path in pages
        if (numbers := broken_tables(path.read_text(encoding="utf-8")))
    }
    assert broken == {}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("text\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n| x \\| y | z |\n", []),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n", [5]),
        ("| a | b |\n|---|---|\n| 1 |\n", [3]),
        ("text\n| a |\n|---|\n", [2]),
        ("```text\n| rows |\n```\n", []),
    ],
)
def test_a_table_with_a_blank_line_or_a_missing_cell_is_found(text: str, numbers: list[int]) -> None:
    assert broken_tables(text) == numbers


def test_every_link_leads_to_an_existing_file_and_heading(project: Path) -> None:
    broken = []
    for path in texts(project):
        for link in _LINK.finditer(path.read_text(encoding="utf-8")):
            target = (path.parent / link["path"]).resolve() if link["path"] else path
            if not target.exists():
                broken.append(f"{path.relative_to(project)}: {link['path']} does not exist")
            elif link["anchor"] and link["anchor"] not in headings(target.read_text(encoding="utf-8")):
                broken.append(f"{path.relative_to(project)}: {link['path']} has no heading #{link['anchor']}")
    assert broken == []


def test_every_page_mentioned_in_the_code_exists(project: Path) -> None:
    mentioned = {
        page
        for folder in ("flows", "tasks", "schemas", "infra", "benchmarks", "tests")
        for path in (project / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".yml", ".j2", ".json"}
        for page in re.findall(r"(?<![\w/.-])docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(mentioned) > 10
    assert sorted(page for page in mentioned if not (project / page).is_file()) == []


def test_every_page_is_reachable_from_the_index(project: Path) -> None:
    index = project / "docs" / "index.md"
    linked = {(index.parent / link["path"]).resolve() for link in _LINK.finditer(index.read_text(encoding="utf-8"))}
    decisions = project / "docs" / "decisions" / "README.md"
    linked |= {(decisions.parent / link["path"]).resolve() for link in _LINK.finditer(decisions.read_text("utf-8"))}
    pages = set((project / "docs").rglob("*.md"))
    assert sorted(path.name for path in pages - linked - {index}) == []
