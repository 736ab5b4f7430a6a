"""Faults of a configuration file, each shown at its place in the text.

Created by `schemas/load.py` and the modules that it calls; printed by `flows/cli/app.py`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.errors import ConfigError
from schemas.regular_file import open_regular

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""The line breaks that the YAML reader counts."""
_SHOWN = 120
"""Maximum characters of a source line to show."""


class Span(NamedTuple):
    """A place in a text: line and column from 1, and a number of characters."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True)
class Diagnostic:
    """One fault.

    Attributes:
        code: TG01xx, explained in docs/reference/errors.md.
        file: The path as the user gave it.
        span: None for a fault of the whole file.
        text: The source line as written: a value from the environment is shown as `${env:NAME}`.
    """

    code: str
    message: str
    file: str
    span: Span | None = None
    text: str = ""
    help: str | None = None

    @property
    def where(self) -> str:
        """`file:line:column`, or only the file."""
        return self.file if self.span is None else f"{self.file}:{self.span.line}:{self.span.column}"

    def render(self) -> str:
        """The fault as text, with the source line and carets below the wrong part."""
        number = str(self.span.line) if self.span else ""
        gutter = " " * max(2, len(number))
        lines = [f"error[{self.code}]: {self.message}", f"{gutter[:-1]} --> {self.where}"]
        if self.span:
            text, column, width = _window(self.text, self.span)
            lines += [
                f"{gutter} |",
                f"{number:>{len(gutter)}} | {text}".rstrip(),
                f"{gutter} | {_indent(text[: column - 1])}{'^' * width}",
            ]
        if self.help:
            lines.append(f"{gutter} = help: {self.help}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The fault as an object; `line` and `column` count from 1."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.help,
            "file": self.file,
            "line": self.span.line if self.span else None,
            "column": self.span.column if self.span else None,
            "help": self.help,
        }


class ConfigErrors(ConfigError):  # noqa: N818  it has several
    """All faults of one configuration file, in the order of its lines.

    Attributes:
        valid: Name -> pipeline without a fault.
        readable: Name -> the sections without a fault of a pipeline that has one.
    """

    def __init__(
        self,
        diagnostics: Iterable[Diagnostic],
        valid: Mapping[str, Any] = MappingProxyType({}),
        readable: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.valid, self.readable = valid, readable
        self.diagnostics = tuple(sorted(dict.fromkeys(diagnostics), key=lambda d: d.span or Span(0, 0, 0)))
        first = self.diagnostics[0]
        super().__init__(first.message, code=first.code, where=first.where, hint=first.help)

    def __str__(self) -> str:
        return "\n\n".join(diagnostic.render() for diagnostic in self.diagnostics)

    def to_json(self) -> dict[str, object]:
        """The first fault, and all of them under `errors`."""
        return {**super().to_json(), "errors": [diagnostic.to_json() for diagnostic in self.diagnostics]}


@dataclass(frozen=True)
class SourceText:
    """A file's text, which can report a fault at a place in it."""

    file: str
    text: str
    lines: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(_LINE_BREAK.split(self.text)))

    def fault(self, code: str, message: str, span: Span | None = None, help: str | None = None) -> Diagnostic:
        """A fault in this text."""
        line = self.line(span.line) if span else ""
        return Diagnostic(code, one_line(message), self.file, span, line, help and one_line(help))

    def line(self, number: int) -> str:
        """The line of this number, from 1; empty past the end."""
        return self.lines[number - 1] if number <= len(self.lines) else ""


def read_source(path: Path, *, max_bytes: int, max_line: int) -> SourceText:
    """Read a UTF-8 text, with or without a byte order mark.

    Raises:
        ConfigErrors: TG0110, the file cannot be read or is not UTF-8; TG0109, it is larger than `max_bytes` or has a
            line of more than `max_line` characters.
    """
    file = str(path)
    try:
        with open_regular(path) as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        help = "run from its folder, or name the file" if isinstance(error, FileNotFoundError) else None
        raise ConfigErrors([Diagnostic("TG0110", f"cannot read the file: {reason}", file, help=help)]) from None
    if len(data) > max_bytes:
        message = f"the file is larger than {max_bytes:,} bytes"
        raise ConfigErrors([Diagnostic("TG0109", message, file, help="move data to another file")])
    try:
        source = SourceText(file, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = SourceText(file, data[: error.start].decode("utf-8-sig"))
        span = Span(len(before.lines), len(before.lines[-1]) + 1)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigErrors([before.fault("TG0110", message, span, "save the file as UTF-8")]) from None
    for number, line in enumerate(source.lines, start=1):
        if len(line) > max_line:
            message = f"line {number} has {len(line):,} characters; at most {max_line:,} are read"
            raise ConfigErrors([source.fault("TG0109", message, Span(number, 1), "fold long text with `>-`")])
    return source


def one_line(text: str) -> str:
    """The text without line breaks and terminal control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _window(text: str, span: Span) -> tuple[str, int, int]:
    """The part of a source line to show, with the column and width in it."""
    text = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    column = span.column
    if len(text) > _SHOWN:
        start = max(0, min(column - 1 - _SHOWN // 2, len(text) - _SHOWN))
        end = start + _SHOWN
        text = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
        column += (3 if start else 0) - start
    return text, column, max(1, min(span.width, len(text) - column + 1))


def _indent(before: str) -> str:
    """Blanks as wide as `before` on a terminal: tabs stay, wide characters count twice."""
    return "".join("\t" if c == "\t" else "  " if unicodedata.east_asian_width(c) in "WF" else " " for c in before)
