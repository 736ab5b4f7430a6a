"""Parse YAML 1.2 text into values with their places in the text.

Stricter than YAML: duplicate keys, tags and recursive anchors are refused, and size, depth and the number of values
after aliases are limited, so that no file takes more than a moment. `no` and `22:22` are text and `5e-5` is a number
(YAML 1.2 core schema).

Source: YAML 1.2.2, https://yaml.org/spec/1.2.2/#103-core-schema, and for `<<` https://yaml.org/type/merge.html
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from schemas.diagnostics import ConfigErrors, Diagnostic, SourceText, Span

MAX_BYTES = 1_000_000
MAX_LINE = 20_000
"""Characters in one line; the scanner takes quadratic time on some long tokens."""
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Keys and values, where an alias counts with everything that it refers to."""

Plain: TypeAlias = str | int | float | bool | None
Mapping: TypeAlias = "dict[str, Entry]"
Value: TypeAlias = "Plain | Mapping | list[Entry]"


class Entry(NamedTuple):
    """A value below a key or in a list. Immutable: aliases and pipelines share parts.

    Attributes:
        value: A plain value, or a mapping or list of further entries.
        key: Place of the key; for an item of a list, of the item.
        span: Place of the value; for an alias, of its anchor.
        path: `pipelines.name.train.epochs` or `steps[2]`.
        deletes: The value is a null that deletes an inherited one (see `schemas/merge.py`).
    """

    value: Value
    key: Span
    span: Span
    path: str
    deletes: bool = False


def read_tree(source: SourceText) -> Mapping:
    """Parse a document whose top level is a mapping.

    Raises:
        ConfigErrors: TG0107 for text that is not YAML, uses what is refused here, or has duplicate keys; TG0109 for a
            file beyond the limits.
    """
    tree, span = _ValueBuilder(source).document()
    if not isinstance(tree, dict):
        raise ConfigErrors([source.fault("TG0107", "the top level should be `key: value` lines", span, _FRAME)])
    return tree


def size(value: Value) -> tuple[int, int]:
    """Number of keys and values, and of levels below the top."""
    if not isinstance(value, dict | list):
        return 1, 0
    sizes = [size(entry.value) for entry in (value.values() if isinstance(value, dict) else value)]
    n_keys = len(value) if isinstance(value, dict) else 0
    return 1 + n_keys + sum(n for n, _ in sizes), 1 + max((height for _, height in sizes), default=0)


def shown(value: str, limit: int = 60) -> str:
    """The text, shortened for a message."""
    return value if len(value) <= limit else value[: limit - 3] + "..."


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


_FRAME = "start with `version: 1`, then `pipelines:`"
_END = re.compile(r"'\\x00'|'<stream end>'")
_HELP = (
    ("mapping values are not allowed", "quote a value that contains `: `"),
    ("'\\t'", "indent with spaces, not tabs"),
    ("'%'", "quote a value that starts with `%`"),
    ("'@'", "quote a value that starts with `@`"),
    ("'`'", "quote a value that starts with a backtick"),
    ("<block end>", "lines of one section start in the same column; is one indented differently, or a quote open?"),
    ("unexpected end of stream", "a quote is not closed"),
    ("unknown escape character", "in double quotes `\\` starts an escape; use single quotes"),
)


class _Anchor(NamedTuple):
    value: Value
    span: Span
    n_values: int
    height: int


@dataclass
class _ValueBuilder:
    """Builds the values from ruamel's events.

    Its `compose()` takes 18 CPU-seconds for a megabyte of `- a` lines (here the limits stop after 1.4), recurses as
    deep as the text, and loses the places of aliases.
    """

    source: SourceText
    events: Iterator[Event] = field(init=False)
    anchors: dict[str, _Anchor | None] = field(default_factory=dict)
    faults: list[Diagnostic] = field(default_factory=list)
    n_values: int = 0

    def document(self) -> tuple[Value, Span]:
        """The only document of the stream, and its start."""
        self.events = YAML(typ="safe", pure=True).parse(self.source.text)
        self._next()  # start of the stream
        if not isinstance(self._next(), DocumentStartEvent):
            self._stop("TG0107", "the file is empty", Span(1, 1), _FRAME)
        tree, span = self._value(self._next(), "", 0)
        if tree is None:
            self._stop("TG0107", "the file is empty", Span(1, 1), _FRAME)
        self._next()  # end of the document
        event = self._next()
        if isinstance(event, DocumentStartEvent):
            self._stop("TG0107", "a second document starts here", _start(event), "keep one document in the file")
        if self.faults:
            raise ConfigErrors(self.faults)
        return tree, span

    def _next(self) -> Event:
        try:
            return next(self.events)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = _END.sub("the end of the file", str(error.problem or error.context))
            message = f"not YAML: {problem}" + (f" {error.context}" if error.problem and error.context else "")
            hint = next((hint for part, hint in _HELP if part in problem), None)
            if mark and "${" in self.source.line(mark.line + 1)[max(0, mark.column - 1) : mark.column + 1]:
                hint = "quote `${...}` inside brackets and braces"
            elif hint is None and error.context_mark and error.context_mark.line != mark.line:
                hint = f"it starts in line {error.context_mark.line + 1}"
            self._stop("TG0107", message, Span(mark.line + 1, mark.column + 1) if mark else None, hint)
        except ReaderError as error:
            lines = SourceText("", self.source.text[: error.position]).lines
            character = f"U+{ord(self.source.text[error.position]):04X}"
            span = Span(len(lines), len(lines[-1]) + 1)
            self._stop("TG0107", f"character {character} is not allowed in YAML", span)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            # The scanner does not catch these, e.g. OverflowError for the escape "\UFFFFFFFF".
            self._stop("TG0107", f"not YAML: {type(error).__name__}: {error}")

    def _stop(self, code: str, message: str, span: Span | None = None, help: str | None = None) -> NoReturn:
        raise ConfigErrors([*self.faults, self.source.fault(code, message, span, help)]) from None

    def _value(self, event: Event, path: str, depth: int) -> tuple[Value, Span]:
        """The value that starts with this event, and its place."""
        span = _start(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        if not isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent):
            self._stop("TG0107", "a value is expected here", span)
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None  # until it is complete, since it must not contain itself
        if event.tag is not None:
            self._tag(span)
        self._count(1, depth, span)
        value: Value
        if isinstance(event, ScalarEvent):
            is_plain = event.implicit[0] and event.tag is None
            value, span = resolve(event.value) if is_plain else event.value, _extent(self.source, event)
        elif isinstance(event, SequenceStartEvent):
            value = self._items(path, depth)
        else:
            value = self._mapping(path, depth)
        if anchor is not None:
            self.anchors[anchor] = _Anchor(value, span, *size(value))
        return value, span

    def _alias(self, event: AliasEvent, depth: int) -> tuple[Value, Span]:
        span = _extent(self.source, event)
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            known = "contains itself" if event.anchor in self.anchors else "is not defined above"
            self._stop("TG0107", f"anchor `{event.anchor}` {known}", span)
        self._count(anchor.n_values, depth + anchor.height, span)
        return anchor.value, anchor.span

    def _items(self, path: str, depth: int) -> list[Entry]:
        items: list[Entry] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            place = f"{path}[{len(items)}]"
            value, span = self._value(event, place, depth + 1)
            items.append(Entry(value, _start(event) if isinstance(event, AliasEvent) else span, span, place))
        return items

    def _mapping(self, path: str, depth: int) -> Mapping:
        entries: Mapping = {}
        inherited: Mapping = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key_span = _extent(self.source, event)
            if not isinstance(event, ScalarEvent):
                self._stop("TG0107", "a key should be text", key_span)
            if event.tag is not None:
                self._tag(key_span)
            self._count(1, depth, key_span)
            key = event.value
            place = f"{path}.{shown(key)}" if path else shown(key)
            value, span = self._value(self._next(), place, depth + 1)
            if key == "<<" and event.implicit[0]:
                inherited |= self._merged(value, key_span)
            elif key in entries:
                first = f"first written in line {entries[key].key.line}"
                self.faults.append(self.source.fault("TG0107", f"duplicate key `{place}`", key_span, first))
            else:
                entries[key] = Entry(value, key_span, span, place)
        return inherited | entries

    def _merged(self, value: Value, span: Span) -> Mapping:
        """The entries that `<<` adds; in a list of mappings the first one wins."""
        entries: Mapping = {}
        for each in [item.value for item in value] if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                entries = each | entries
            else:
                self.faults.append(self.source.fault("TG0107", "`<<` takes a mapping or a list of mappings", span))
        return entries

    def _tag(self, span: Span) -> None:
        match = re.compile(r"\S+").match(self.source.line(span.line), span.column - 1)
        place = Span(span.line, span.column, len(match[0]) if match else 1)
        self.faults.append(self.source.fault("TG0107", "tags are refused", place, "quote text that starts with `!`"))

    def _count(self, n_values: int, depth: int, span: Span) -> None:
        self.n_values += n_values
        if self.n_values > MAX_VALUES:
            self._stop("TG0109", f"more than {MAX_VALUES:,} values, counting what aliases refer to", span)
        if depth > MAX_DEPTH:
            self._stop("TG0109", f"nested deeper than {MAX_DEPTH} levels", span)


def _start(event: Event) -> Span:
    return Span(event.start_mark.line + 1, event.start_mark.column + 1)


def _extent(source: SourceText, event: Event) -> Span:
    """From the start of a token to its end, or to the end of its first line."""
    start, end = event.start_mark, event.end_mark
    if isinstance(event, ScalarEvent) and event.style in ("|", ">"):
        return Span(start.line + 1, start.column + 1)
    last = end.column if end.line == start.line else len(source.line(start.line + 1).rstrip())
    return Span(start.line + 1, start.column + 1, max(0, last - start.column))
