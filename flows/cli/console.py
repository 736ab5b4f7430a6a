"""The console that commands print through: rich, and nothing that a terminal would obey.

A module of its own, imported when something is printed, because rich takes long to import.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from flows.cli.exit_codes import BROKEN_PIPE
from tasks.tickets.visible import visible

PIPE_WIDTH = 200


def open_console(*, stderr: bool) -> Console:
    """A console for data (stdout) or for everything else (stderr)."""
    console: Console = _Piped(stderr=stderr, highlight=False)
    if not console.is_terminal:  # lines of a log file or a pipe must not be cut at 80 columns
        console = _Piped(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    console.push_render_hook(_AllVisible())
    return console


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Rows as an aligned table; null is an empty cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(column) is None else escape(str(row[column])) for column in columns))
    return table


class _Piped(Console):
    """Ends the command as SIGPIPE would when the reader has stopped, as after `| head`; rich itself prints an error."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE) from None


class _AllVisible(RenderHook):
    """Makes every text of a console visible; the console's own control codes stay."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(each) for each in renderables]


class _Visible:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
