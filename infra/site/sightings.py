"""Where the program names an error code, and with which words: read from the source, so that no page differs.

Knows nothing of pages; `error_pages.py` writes them. What stands between braces in a message is filled in when the
error happens.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas import errors
from schemas.errors import TunegateError

FOLDERS = ("schemas", "tasks", "flows")
_CODE = re.compile(r"TG\d{4}")
_DOCUMENTED = re.compile(r"(TG\d{4})[,:] (.+?)(?=[.;](?:\s|$)|\s*\bTG\d{4}\b|$)", re.S)


@dataclass(frozen=True)
class Sighting:
    """One place that gives a code to an error, or to a row.

    Attributes:
        kind: Name of the error's class; empty where it is no error of its own, as for a quarantined row.
        message: Its words, with the names of what is filled in; empty where they are put together elsewhere.
    """

    code: str
    path: str
    kind: str
    message: str
    where: str
    hint: str


@dataclass(frozen=True)
class Sightings:
    """All places of all codes, and what docstrings say about when they happen."""

    places: dict[str, tuple[Sighting, ...]]
    conditions: dict[str, tuple[str, ...]]


def read_sightings(project: Path) -> Sightings:
    """Read the three folders of the program; nothing is imported or run."""
    places: dict[str, list[Sighting]] = defaultdict(list)
    conditions: dict[str, list[str]] = defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((project / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            name = path.relative_to(project).as_posix()
            texts = _Texts(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    for found in _seen(node, name, texts):
                        places[found.code].append(found)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
                    places[node.value].append(Sighting(node.value, name, "", "", "", ""))
            for code, words in _documented(tree):
                if words not in conditions[code]:
                    conditions[code].append(words)
    return Sightings(
        {code: _told(found) for code, found in places.items()},
        {code: tuple(found) for code, found in conditions.items()},
    )


class _Texts:
    """The texts of one file, looked up through a variable or through the parameter of a helper that raises."""

    def __init__(self, tree: ast.AST) -> None:
        self._assigned: dict[str, list[tuple[int, ast.expr]]] = defaultdict(list)
        self._called: dict[str, list[ast.Call]] = defaultdict(list)
        self._helpers: list[ast.FunctionDef] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._assigned[node.targets[0].id].append((node.lineno, node.value))
            elif isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                self._called[name].append(node)
            elif isinstance(node, ast.FunctionDef):
                self._helpers.append(node)

    def of(self, value: ast.expr, *, of_callers: bool = False) -> str:
        """The words of a text, or of what the variable or the helper's parameter was given."""
        if not isinstance(value, ast.Name):
            return words(value)
        above = [each for line, each in sorted(self._assigned[value.id], key=lambda it: it[0]) if line < value.lineno]
        if above or not of_callers:
            return words(above[-1]) if above else ""
        inside = [each for each in self._helpers if each.lineno <= value.lineno <= (each.end_lineno or 0)]
        calls = self._called[inside[-1].name] if inside else []
        told = [words(each) for call in calls for each in (*call.args, *(key.value for key in call.keywords))]
        return next((text for text in told if " " in text), "")


def _seen(call: ast.Call, path: str, known: _Texts) -> Iterator[Sighting]:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    kind = getattr(errors, name, None)
    is_error = isinstance(kind, type) and issubclass(kind, TunegateError)
    for value in [*call.args, *given.values()]:
        for code in _codes(value):
            texts = [
                text for each in call.args if (text := known.of(each, of_callers=True)) and not _CODE.fullmatch(text)
            ]
            message = (
                known.of(given["message"], of_callers=True) if "message" in given else max(texts, key=len, default="")
            )
            where, hint = (known.of(given[key]) if key in given else "" for key in ("where", "hint"))
            yield Sighting(code, path, name if is_error else "", message, where, hint)


def _codes(value: ast.expr) -> Iterator[str]:
    for each in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and _CODE.fullmatch(each.value):
            yield each.value


def words(value: ast.expr) -> str:
    """A text as it stands in the source; what is filled in stands in braces under its name.

    >>> words(ast.parse("f'no pipeline {name!r} in {len(files)} files'", mode="eval").body)
    "no pipeline '{name}' in {number of files} files"
    """
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else ""
    if isinstance(value, ast.JoinedStr):
        return "".join(_part(each) for each in value.values)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return words(value.left) + words(value.right)
    if isinstance(value, ast.IfExp):
        return words(value.body) or words(value.orelse)
    if isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "join" and value.args:
        parts = value.args[0].elts if isinstance(value.args[0], ast.List) else []
        return words(parts[0]) if parts else ""
    return ""


def _part(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    if not isinstance(value, ast.FormattedValue):
        return ""
    name = "{" + _name(value.value) + "}"
    return f"'{name}'" if value.conversion == ord("r") else name


def _name(value: ast.expr) -> str:
    """What is filled in, in a word or two."""
    if isinstance(value, ast.Name):
        return value.id.strip("_").replace("_", " ")
    if isinstance(value, ast.Attribute):
        return value.attr.strip("_").replace("_", " ")
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Attribute) and value.func.attr == "join" and value.args:
            return _name(value.args[0])
        called = value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        inner = _name(value.args[0]) if value.args else ""
        return f"number of {inner}" if called == "len" else inner or called.strip("_").replace("_", " ")
    inside = [each for each in ast.iter_child_nodes(value) if isinstance(each, ast.expr)]
    return _name(inside[0]) if inside else "value"


def _documented(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """`TG0144, there is no such code` of a docstring -> (TG0144, there is no such code)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            for code, told in _DOCUMENTED.findall(text):
                yield code, " ".join(told.split())


def _told(found: list[Sighting]) -> tuple[Sighting, ...]:
    """Each wording once, in the order of the source; a place without words only where its file has none with."""
    kept: list[Sighting] = []
    for each in found:
        again = any((each.path, each.message) == (other.path, other.message) for other in kept)
        worded = any(other.path == each.path and (other.message or other.kind) for other in found)
        if not again and (each.message or each.kind or not worded):
            kept.append(each)
    return tuple(kept)
