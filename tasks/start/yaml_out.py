"""Sections with comments -> YAML text that says the same to the project's own loader, whatever a value holds.

It knows nothing of pipelines. Called by `tasks/start/propose.py` and `tasks/start/translate.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from schemas.yaml_text import resolve

WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*(?:\.[A-Za-z0-9]+)*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"


@dataclass(frozen=True)
class Key:
    """`name: value # note`; a tuple of keys is a section."""

    name: str
    value: Value | Section | Items
    note: str = ""


@dataclass(frozen=True)
class Remark:
    """A comment on a line of its own."""

    text: str


@dataclass(frozen=True)
class Item:
    """`- {a: 1} # note`."""

    value: Mapping[str, Value]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Keys below one another."""

    parts: tuple[Key | Remark, ...]


@dataclass(frozen=True)
class Items:
    """A list, one item a line."""

    parts: tuple[Item | Remark, ...]


def to_yaml(section: Section) -> str:
    """The text of a file.

    >>> print(to_yaml(Section((Key("a", Section((Key("b", ["x", 1.5, "no: y"], "why"),))),))), end="")
    a:
      b: [x, 1.5, "no: y"] # why
    """
    return "\n".join(_section(section, "")) + "\n"


def _section(section: Section, indent: str) -> Iterator[str]:
    for part in section.parts:
        if isinstance(part, Remark):
            yield from _remark(part.text, indent)
        elif isinstance(part.value, Section):
            yield from _noted(f"{indent}{flow(part.name)}:", part.note, indent)
            yield from _section(part.value, indent + "  ")
        elif isinstance(part.value, Items):
            yield from _noted(f"{indent}{flow(part.name)}:", part.note, indent)
            yield from _items(part.value, indent + "  ")
        else:
            yield from _noted(f"{indent}{flow(part.name)}: {flow(part.value)}", part.note, indent)


def _items(items: Items, indent: str) -> Iterator[str]:
    for part in items.parts:
        if isinstance(part, Remark):
            yield from _remark(part.text, indent)
        else:
            yield from _noted(f"{indent}- {flow(part.value)}", part.note, indent)


def _remark(text: str, indent: str) -> Iterator[str]:
    """Comment lines, broken between words."""
    line = f"{indent}#"
    for word in one_line(text).split(" ") if text else ():
        if len(line) + 1 + len(word) > WIDTH and line.strip() != "#":
            yield line
            line = f"{indent}#  "
        line += f" {word}"
    yield line if text else ""


def _noted(line: str, note: str, indent: str) -> Iterator[str]:
    """The note behind the line, or above it where that would be too long."""
    note = one_line(note)
    if note and len(line) + len(note) + 3 > WIDTH:
        yield from _remark(note, indent)
        note = ""
    yield f"{line} # {note}" if note else line


def one_line(text: str) -> str:
    """Text that cannot leave its comment."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]+", " ", text).rstrip()


def flow(value: Value) -> str:
    """A value on one line; text is quoted where it could be read as anything else.

    >>> flow("no"), flow("1e3"), flow("a b"), flow({"keep": ["en"]}), flow("${env:X}")
    ('no', '"1e3"', '"a b"', '{keep: [en]}', '"$${env:X}"')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(flow, value)) + "]"


def _number(value: float) -> str:
    """As a person writes it: 2.0e-4, 0.05."""
    text = f"{value:g}"
    text = text if float(text) == value else repr(value)
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text if "." in text else f"{text}.0"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(power)}"


def _text(value: str) -> str:
    value = value.replace("${", "$${")
    if _PLAIN.fullmatch(value) and isinstance(resolve(value), str):
        return value
    return '"' + "".join(_escaped(each) for each in value) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() and ord(character) < 0xD800:
        return character
    return f"\\U{ord(character):08x}"
