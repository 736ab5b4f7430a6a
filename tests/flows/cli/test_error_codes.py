"""`tunegate explain` reads the documentation of the error codes, which has one row per code."""

import json
import re
from pathlib import Path

import pytest

from flows.cli.error_codes import documented, earlier_codes
from flows.cli.weekly import explain
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
    text = page.read_text(encoding="utf-8").partition("\n## Codes of earlier versions")[0]
    rows = list(documented(page))
    assert len(rows) == len(re.findall(r"^\| TG", text, re.M))
    for section in text.split("\n## ")[1:]:
        assert {code[:4] for code in re.findall(r"^\| (TG\d{4})", section, re.M)} == {section[:4]}


def test_a_missing_documentation_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TG0517"):
        list(documented(tmp_path / "errors.md"))


def test_a_code_of_an_earlier_version_maps_to_its_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(code="tg0512", as_json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)["codes"]
    assert row["code"] == "TG0510"


def test_each_earlier_code_maps_to_a_current_one(project: Path) -> None:
    documentation = project / "docs" / "reference" / "errors.md"
    current, earlier = {row.code for row in documented(documentation)}, earlier_codes(documentation)
    assert len(earlier) > 150
    assert set(earlier.values()) <= current
    assert not earlier.keys() & current
