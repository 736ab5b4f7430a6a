"""Each error code has one kind and one exit code, as the documentation says."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from flows.cli.error_codes import documented
from schemas import errors
from schemas.errors import TunegateError

CODE = re.compile(r"TG\d{4}")
RANGES = {
    "TG00": {"TunegateError"},
    "TG01": {"ConfigError"},
    "TG02": {"DataError"},
    "TG03": {"DataError"},
    "TG04": {"TrainingError", "OutOfMemoryError", "ProcessLostError"},
    "TG05": {"StorageError", "LockedError"},
    "TG06": {"GateError"},
    "TG07": {"ServiceError"},
    "TG08": {"SecurityError"},
}


@cache
def raised(project: Path) -> dict[str, set[str]]:
    """Code -> names of the error classes that are raised with it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in [path for folder in ("schemas", "tasks", "flows") for path in (project / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_each_code_is_raised_as_the_kind_of_its_range(project: Path) -> None:
    found = raised(project)
    assert found
    wrong = {code: kinds for code, kinds in found.items() if not kinds <= RANGES[code[:4]]}
    assert wrong == {}


def test_a_code_has_one_exit_code_and_the_documentation_marks_the_locks(project: Path) -> None:
    rows = documented(project / "docs" / "reference" / "errors.md")
    marked = {row.code for row in rows if row.meaning.startswith("*locked*")}
    found = raised(project)
    exits = {code: {getattr(errors, kind).exit_code for kind in kinds} for code, kinds in found.items()}
    assert {code for code, numbers in exits.items() if len(numbers) > 1} == set()
    assert {code for code, kinds in found.items() if "LockedError" in kinds} == marked


def test_the_exit_codes_of_the_documentation_are_those_of_the_classes(project: Path) -> None:
    text = (project / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    table = {int(code): kind for code, kind in re.findall(r"^\| (\d) \| (.+) \|$", text, re.M)}
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TunegateError)}
    assert {kind.exit_code for kind in kinds} == {code for code, kind in table.items() if "no error" not in kind}
    assert {code for code, kind in table.items() if "no error" in kind} == {0, 5, 8}
    assert {"130", "143"} <= set(re.findall(r"^\| (\d+) \|", text, re.M))
    for start, names in RANGES.items():
        for name in names:
            assert start in table[getattr(errors, name).exit_code], name
