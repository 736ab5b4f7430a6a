"""How commands speak: data to stdout (text or JSON), talk to stderr.

All of it is written here, so that no ticket and no file speaks to the terminal: what is no visible character, such as
the escape that begins a command to it, is shown as a mark, in JSON as an escape of JSON.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import orjson
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from tasks.visible import visible

PIPE_WIDTH = 200
BROKEN_PIPE = 141
"""Exit code of a process that SIGPIPE ended."""
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]")
"""What JSON allows in a text and a terminal or a reader's eye takes for something else; those below 0x20 it escapes."""


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(to_json(value, option=orjson.OPT_INDENT_2) + "\n")


def to_json(value: Any, *, option: int = 0) -> str:
    """The value as JSON that a terminal shows as it is.

    >>> to_json("a\x9bb")
    '"a\\\\u009bb"'
    """
    text = orjson.dumps(value, default=str, option=option).decode()
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write(text: str, stream: TextIO) -> None:
    """Write text as it is, neither wrapped nor coloured, but nothing that a terminal would obey."""
    stream.write(visible(text))


def out() -> Console:
    """The console for data; plain when stdout is not a terminal or NO_COLOR is set."""
    return _console(stderr=False)


def talk() -> Console:
    """The console for everything that is not data."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console: Console = _Piped(stderr=stderr, highlight=False)
    if not console.is_terminal:  # lines of a log file or a pipe must not be cut at 80 columns
        console = _Piped(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    console.push_render_hook(_AllVisible())
    return console


class _Piped(Console):
    """Ends the command as SIGPIPE would when nobody reads on, as after `| head`; rich itself says that it failed."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE) from None


class _AllVisible(RenderHook):
    """Lets every text of a console be visible; what the console itself says to the terminal stays."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(each) for each in renderables]


class _Visible:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as an aligned table on stdout."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(column) is None else escape(str(row[column])) for column in columns))
    out().print(table)
