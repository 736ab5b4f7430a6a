"""Every error code has one row in the documentation, one kind and one exit code."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.commands.explain import documented
from schemas import errors
from schemas.errors import StorageError, TunegateError

CODE = re.compile(r"TG\d{4}")
RANGES = {
    "TG00": {"TunegateError"},
    "TG01": {"ConfigError"},
    "TG02": {"DataError"},
    "TG03": {"DataError"},
    "TG04": {"TrainingError"},
    "TG05": {"StorageError", "LockedError"},
    "TG06": {"GateError"},
    "TG07": {"ServiceError"},
    "TG08": {"SecurityError"},
}

SHARED = {
    "TG0119", "TG0180", "TG0181", "TG0194", "TG0197", "TG0199", "TG0208",
    "TG0301", "TG0308", "TG0321", "TG0401", "TG0407", "TG0420", "TG0511", "TG0512",
}  # fmt: skip
"""Codes that several folders use in one meaning. A new one is either listed here or a number used twice."""


def sources(project: Path) -> Iterator[tuple[str, str]]:
    for folder in ("schemas", "tasks", "flows"):
        for path in sorted((project / folder).rglob("*.py")):
            yield path.relative_to(project).as_posix(), path.read_text(encoding="utf-8")


def raised(project: Path) -> dict[str, set[str]]:
    """Code -> names of the error classes it is given to."""
    found: dict[str, set[str]] = defaultdict(set)
    for _, text in sources(project):
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, TunegateError):
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        for code in CODE.findall(ast.unparse(keyword.value)):
                            found[code].add(name)
    return found


def test_the_codes_of_the_program_are_those_of_the_documentation(project: Path) -> None:
    used = {code for _, text in sources(project) for code in CODE.findall(text)}
    codes = [row.code for row in documented(project / "docs" / "errors.md")]
    assert sorted(used - set(codes)) == []
    assert sorted(set(codes) - used) == []
    assert len(codes) == len(set(codes))
    assert len(codes) > 150


def test_each_table_row_of_the_documentation_is_read_and_stands_under_its_range(project: Path) -> None:
    text = (project / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = list(documented(project / "docs" / "errors.md"))
    assert len(rows) == len(re.findall(r"^\| TG", text, re.M))
    for section in text.split("\n## ")[1:]:
        assert {code[:4] for code in re.findall(r"^\| (TG\d{4})", section, re.M)} == {section[:4]}


def test_each_code_is_raised_as_the_kind_of_its_range(project: Path) -> None:
    found = raised(project)
    assert len(found) > 120
    wrong = {code: kinds for code, kinds in found.items() if not kinds <= RANGES[code[:4]]}
    assert wrong == {}


def test_a_code_has_one_exit_code_and_the_documentation_marks_the_locks(project: Path) -> None:
    told = {row.code for row in documented(project / "docs" / "errors.md") if row.meaning.startswith("*locked*")}
    found = raised(project)
    assert {
        code for code, kinds in found.items() if len({getattr(errors, kind).exit_code for kind in kinds}) > 1
    } == set()
    assert {code for code, kinds in found.items() if "LockedError" in kinds} == told


def test_the_exit_codes_of_the_documentation_are_those_of_the_classes(project: Path) -> None:
    text = (project / "docs" / "errors.md").read_text(encoding="utf-8")
    table = {int(code): kind for code, kind in re.findall(r"^\| (\d) \| (.+) \|$", text, re.M)}
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TunegateError)}
    assert {kind.exit_code for kind in kinds} == {code for code, told in table.items() if "no error" not in told}
    assert {code for code, told in table.items() if "no error" in told} == {0, 5, 8}
    assert {"130", "143"} <= set(re.findall(r"^\| (\d+) \|", text, re.M))
    for start, names in RANGES.items():
        for name in names:
            assert start in table[getattr(errors, name).exit_code], name


def test_a_code_of_several_folders_is_one_of_those_that_mean_the_same_there(project: Path) -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for name, text in sources(project):
        # Docstrings name a code in words: `TG0130, the suffix`. Only quoted codes are given to an error.
        for code in re.findall(r'"(TG\d{4})"', text):
            places[code].add("/".join(Path(name).parent.parts[:2]))
    assert {code for code, folders in places.items() if len(folders) > 1} == SHARED


def test_a_missing_documentation_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TG0517"):
        list(documented(tmp_path / "errors.md"))


def test_every_code_is_named_by_a_test_that_provokes_it(project: Path) -> None:
    here = {Path(__file__).resolve(), project / "tests" / "site" / "test_written_pages.py"}  # they list codes
    tests = [path for path in (project / "tests").rglob("test_*.py") if path not in here]
    named = {code for path in tests for code in CODE.findall(path.read_text(encoding="utf-8"))}
    codes = {row.code for row in documented(project / "docs" / "errors.md")}
    assert codes - named - {"TG0517"} == set(), "write a test that provokes the code, see tests/codes/"
