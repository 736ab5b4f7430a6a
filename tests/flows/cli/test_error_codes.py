"""`tunegate explain` reads the documentation of the error codes, which has one row per code."""

import re
from pathlib import Path

import pytest

from flows.cli.error_codes import documented
from schemas.errors import StorageError

CODE = re.compile(r"TG\d{4}")


def codes_of_the_program(project: Path) -> set[str]:
    """Every code in the source files."""
    files = [path for folder in ("schemas", "tasks", "flows") for path in (project / folder).rglob("*.py")]
    return {code for path in files for code in CODE.findall(path.read_text(encoding="utf-8"))}


def test_the_documentation_has_exactly_the_codes_of_the_program(project: Path) -> None:
    used = codes_of_the_program(project)
    codes = [row.code for row in documented(project / "docs" / "reference" / "errors.md")]
    assert sorted(used - set(codes)) == []
    assert sorted(set(codes) - used) == []
    assert len(codes) == len(set(codes))
    assert codes


def test_each_row_of_the_documentation_is_read_and_in_its_range(project: Path) -> None:
    page = project / "docs" / "reference" / "errors.md"
    text = page.read_text(encoding="utf-8")
    rows = list(documented(page))
    assert len(rows) == len(re.findall(r"^\| TG", text, re.M))
    for section in text.split("\n## ")[1:]:
        assert {code[:4] for code in re.findall(r"^\| (TG\d{4})", section, re.M)} == {section[:4]}


def test_a_missing_documentation_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TG0517"):
        list(documented(tmp_path / "errors.md"))
