"""Values that know where they were written: what a YAML text is read into.

Knows nothing of the text or its grammar (`schemas/yaml_text.py` reads it). Frozen, so that aliases and pipelines can
share parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from schemas.diagnostics import Span

MAX_VALUES = 20_000
"""Keys and values, each alias counted with all that it stands for."""

Plain: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number, true, false or null."""

    value: Plain
    span: Span
    n_values: int = 1
    height: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A value under its key, or in its place of a sequence.

    Attributes:
        key: Where the key is written; for items of a sequence, where the item is.
        path: `pipelines.name.train.epochs` or `steps[2]`: the way to the place where it is written.
        deletes: The value is a null that stands over an inherited one (see `schemas/merge.py`).
    """

    key: Span
    value: Node
    path: str
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Entry, ...]
    span: Span
    n_values: int
    height: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values; keys are text."""

    entries: dict[str, Entry]
    span: Span
    n_values: int
    height: int

    @classmethod
    def of(cls, entries: dict[str, Entry], span: Span) -> Mapping:
        """A mapping of these entries, counted."""
        return cls(entries, span, *counted([entry.value for entry in entries.values()], 2))


Node: TypeAlias = Scalar | Sequence | Mapping


def mapping_of(node: Node) -> Mapping | None:
    """The node itself when it is a mapping."""
    return node if isinstance(node, Mapping) else None


def kind_of(node: Mapping) -> Plain:
    """What a section with variants says it is: its `kind`, or `uses`; null when it does not say."""
    for key in ("kind", "uses"):
        entry = node.entries.get(key)
        if entry is not None and isinstance(entry.value, Scalar):
            return entry.value.value
    return None


def shown(value: str, limit: int = 60) -> str:
    """Text short enough for a message."""
    return value if len(value) <= limit else value[: limit - 3] + "..."


def counted(nodes: list[Node], each: int) -> tuple[int, int]:
    """Number of values and height of a collection that spends `each` values on an item: 2 with keys, 1 without."""
    n_values = 1 + sum(node.n_values + each - 1 for node in nodes)
    return n_values, 1 + max((node.height for node in nodes), default=0)


_CORE: tuple[tuple[re.Pattern[str], Callable[[str], Plain]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]{1,300}"), int),
    (re.compile(r"0o[0-7]{1,300}"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]{1,300}"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda _: float("nan")),
)


def resolve(text: str) -> Plain:
    """The value of an unquoted scalar in the core schema of YAML 1.2.

    Source: https://yaml.org/spec/1.2.2/#103-core-schema

    >>> [resolve(text) for text in ("no", "5e-5", "0123", "22:22", "~", "2026-06-01")]
    ['no', 5e-05, 123, '22:22', None, '2026-06-01']
    """
    for pattern, convert in _CORE:
        if pattern.fullmatch(text):
            return convert(text)
    return text
