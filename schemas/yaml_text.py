"""YAML 1.2 text -> a tree of values that each know where they were written.

Stricter than YAML: duplicate keys, tags and self-containing anchors are refused, and size, depth and the number of
values after aliases are capped, so that no file costs more than a moment. `no` and `22:22` are text and `5e-5` is a
number (YAML 1.2 core schema). Knows nothing of pipelines. Called by `schemas/load.py`.

Source: YAML 1.2.2, https://yaml.org/spec/1.2.2/#103-core-schema, and for `<<` https://yaml.org/type/merge.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

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

from schemas.diagnostics import ConfigErrors, Diagnostic, Source, Span
from schemas.tree import MAX_VALUES, Entry, Mapping, Node, Scalar, Sequence, counted, resolve, shown

MAX_BYTES = 1_000_000
MAX_LINE = 20_000
"""Characters in one line; the scanner takes quadratic time on some long tokens."""
MAX_DEPTH = 32


def read_tree(source: Source) -> Mapping:
    """Parse a document whose top level is a mapping.

    Raises:
        ConfigErrors: TG0107 for text that is not YAML or uses what is refused here, TG0108 for duplicate keys,
            TG0109 for a file beyond the caps.
    """
    tree = _Reader(source).document()
    if not isinstance(tree, Mapping):
        raise ConfigErrors([source.fault("TG0107", "the top level should be `key: value` lines", tree.span, _FRAME)])
    return tree


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


@dataclass
class _Reader:
    source: Source
    events: Iterator[Event] = field(init=False)
    anchors: dict[str, Node | None] = field(default_factory=dict)
    faults: list[Diagnostic] = field(default_factory=list)
    n_values: int = 0

    def document(self) -> Node:
        """The only document of the stream."""
        self.events = YAML(typ="safe", pure=True).parse(self.source.text)
        self._next()  # start of the stream
        if not isinstance(self._next(), DocumentStartEvent):
            self._stop("TG0107", "the file is empty", Span(1, 1), _FRAME)
        tree = self._node(self._next(), "", 0)
        if isinstance(tree, Scalar) and tree.value is None:
            self._stop("TG0107", "the file is empty", Span(1, 1), _FRAME)
        self._next()  # end of the document
        event = self._next()
        if isinstance(event, DocumentStartEvent):
            self._stop("TG0107", "a second document starts here", _start(event), "keep one document in the file")
        if self.faults:
            raise ConfigErrors(self.faults)
        return tree

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
            lines = Source("", self.source.text[: error.position]).lines
            character = f"U+{ord(self.source.text[error.position]):04X}"
            span = Span(len(lines), len(lines[-1]) + 1)
            self._stop("TG0107", f"character {character} is not allowed in YAML", span)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            # The scanner lets such through, e.g. OverflowError for the escape "\UFFFFFFFF".
            self._stop("TG0107", f"not YAML: {type(error).__name__}: {error}")

    def _stop(self, code: str, message: str, span: Span | None = None, help: str | None = None) -> NoReturn:
        raise ConfigErrors([*self.faults, self.source.fault(code, message, span, help)]) from None

    def _node(self, event: Event, path: str, depth: int) -> Node:
        span = _start(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        if not isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent):
            self._stop("TG0107", "a value should stand here", span)
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None  # until it is complete: it may not contain itself
        if event.tag is not None:
            self._tag(span)
        self._count(1, depth, span)
        node: Node
        if isinstance(event, ScalarEvent):
            plain = event.implicit[0] and event.tag is None
            node = Scalar(resolve(event.value) if plain else event.value, _extent(self.source, event))
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(span, path, depth)
        else:
            node = self._mapping(span, path, depth)
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def _alias(self, event: AliasEvent, depth: int) -> Node:
        span = _extent(self.source, event)
        node = self.anchors.get(event.anchor)
        if node is None:
            known = "contains itself" if event.anchor in self.anchors else "is not defined above"
            self._stop("TG0107", f"anchor `{event.anchor}` {known}", span)
        self._count(node.n_values, depth + node.height, span)
        return node

    def _sequence(self, span: Span, path: str, depth: int) -> Sequence:
        items: list[Entry] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            place = f"{path}[{len(items)}]"
            node = self._node(event, place, depth + 1)
            items.append(Entry(_start(event) if isinstance(event, AliasEvent) else node.span, node, place))
        return Sequence(tuple(items), span, *counted([item.value for item in items], 1))

    def _mapping(self, span: Span, path: str, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        inherited: dict[str, Entry] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key_span = _extent(self.source, event)
            if not isinstance(event, ScalarEvent):
                self._stop("TG0107", "a key should be text", key_span)
            if event.tag is not None:
                self._tag(key_span)
            self._count(1, depth, key_span)
            key = event.value
            place = f"{path}.{shown(key)}" if path else shown(key)
            value_event = self._next()
            node = self._node(value_event, place, depth + 1)
            if key == "<<" and event.implicit[0]:
                inherited |= self._merged(node, key_span)
            elif key in entries:
                first = f"first written in line {entries[key].key.line}"
                self.faults.append(self.source.fault("TG0108", f"duplicate key `{place}`", key_span, first))
            else:
                entries[key] = Entry(key_span, node, place)
        entries = inherited | entries
        return Mapping.of(entries, span)

    def _merged(self, node: Node, span: Span) -> dict[str, Entry]:
        """The entries that `<<` brings in; of a list of mappings the first one wins."""
        nodes = [item.value for item in node.items] if isinstance(node, Sequence) else [node]
        entries: dict[str, Entry] = {}
        for each in nodes:
            if isinstance(each, Mapping):
                entries = each.entries | entries
            else:
                self.faults.append(self.source.fault("TG0107", "`<<` takes a mapping or a list of mappings", span))
        return entries

    def _tag(self, span: Span) -> None:
        match = re.compile(r"\S+").match(self.source.line(span.line), span.column - 1)
        width = len(match[0]) if match else 1
        self.faults.append(
            self.source.fault(
                "TG0107", "tags are refused", Span(span.line, span.column, width), "quote text that starts with `!`"
            )
        )

    def _count(self, n_values: int, depth: int, span: Span) -> None:
        self.n_values += n_values
        if self.n_values > MAX_VALUES:
            self._stop("TG0109", f"more than {MAX_VALUES:,} values, counting what aliases stand for", span)
        if depth > MAX_DEPTH:
            self._stop("TG0109", f"nested deeper than {MAX_DEPTH} levels", span)


def _start(event: Event) -> Span:
    return Span(event.start_mark.line + 1, event.start_mark.column + 1)


def _extent(source: Source, event: Event) -> Span:
    """From the start of a token to its end, or to the end of its first line."""
    start, end = event.start_mark, event.end_mark
    if isinstance(event, ScalarEvent) and event.style in ("|", ">"):
        return Span(start.line + 1, start.column + 1)
    last = end.column if end.line == start.line else len(source.line(start.line + 1).rstrip())
    return Span(start.line + 1, start.column + 1, max(0, last - start.column))
