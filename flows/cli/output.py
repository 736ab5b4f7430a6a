"""How commands print: data to stdout (text or JSON), everything else to stderr.

All of it is written here, so that no ticket and no file controls the terminal: what is no visible character, such as
the escape that begins a command to it, is shown as a mark, in JSON as an escape of JSON.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from schemas.errors import ConfigError, StorageError
from tasks.storage.files import write_atomic
from tasks.tickets.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]")
"""What JSON allows in a text and a terminal or a reader's eye takes for something else; those below 0x20 it escapes."""
_NOT_ASCII = re.compile("[^\x00-\x7f]")


@dataclass(frozen=True)
class TextLine:
    """A line with a style of rich; `wraps` breaks it between words at the terminal's width."""

    text: str
    style: str = ""
    wraps: bool = False


@dataclass(frozen=True)
class TextTable:
    """An aligned table with these columns, or those of the first row; null is an empty cell."""

    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str] | None = None


def cell(value: float | None, form: str = ".3f") -> str | None:
    """The formatted value; None is an empty cell."""
    return None if value is None else format(value, form)


@dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes:
        data: What `--json` prints; None prints nothing.
        text: How it reads, from top to bottom: lines as they are, `TextLine`, `TextTable`, or what rich prints. Made
            while it is printed, so that remarks for stderr may be written between two parts, and not at all for
            `--json`.
    """

    data: Any
    text: Iterable[Any] = ()
    exit_code: int = 0


def render(result: Result, *, as_json: bool) -> int:
    """Print a result on stdout, as JSON or as text; return its exit code."""
    if not as_json:
        for part in result.text:
            _print_part(part)
    elif result.data is not None:
        _print_plain(to_json(result.data, option=orjson.OPT_INDENT_2))
    return result.exit_code


def _print_part(part: Any) -> None:
    if isinstance(part, str):
        _print_plain(visible(part))
    else:
        with _named_stdout_errors():
            _print_rich(part)


def _print_rich(part: Any) -> None:
    from rich.text import Text

    from flows.cli.console import table_of

    if isinstance(part, TextTable):
        part = table_of(part.rows, tuple(part.rows[0]) if part.columns is None else part.columns)
    elif isinstance(part, TextLine):
        out().print(Text(part.text, part.style), soft_wrap=not part.wraps)
        return
    out().print(part)


def _print_plain(text: str) -> None:
    try:
        with _named_stdout_errors():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
    except BrokenPipeError:
        out().on_broken_pipe()


@contextmanager
def _named_stdout_errors() -> Iterator[None]:
    """Name stdout where it cannot be written: else a full disk that it goes to would be taken for the home's."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"the output cannot be written: {error.strerror}", code=_code_of(error), where="stdout",
            hint="send it to another place; what the command did is done",
        ) from error  # fmt: skip


def to_json(value: Any, *, option: int = 0) -> str:
    """The value as JSON that a terminal shows as it is, and that the encoding of stdout has.

    >>> to_json("a\x9bb")
    '"a\\\\u009bb"'
    """
    text = orjson.dumps(value, default=str, option=option).decode()
    text = _NOT_IN_JSON.sub(_escape, text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = _NOT_ASCII.sub(_escape, text)
    return text


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def write(text: str, stream: TextIO) -> None:
    """Write text as it is, neither wrapped nor coloured, but nothing that a terminal would obey."""
    stream.write(visible(text))


def write_file(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file that an option names, completely or not at all; folders above it are made.

    Raises:
        ConfigError: TG0189, it is there already and `replace` is false.
        StorageError: TG0501, the disk is full; TG0554, it cannot be written for another reason, which is named.
    """
    if path.exists() and not replace:
        raise ConfigError(f"{path} is there already", code="TG0189", where=str(path), hint="--force replaces it")
    make_folder_for(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        write_atomic(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def make_folder_for(path: Path) -> None:
    """Make the folders above a file or folder that an option names.

    Raises:
        StorageError: as `write_file`.
    """
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    files = (each for each in path.absolute().parents if each.exists() and not each.is_dir())
    why = next((f"{each} is not a folder" for each in files), error.strerror)
    return StorageError(
        f"{path} cannot be written: {why}",
        code=_code_of(error),
        where=str(path),
        hint="name another place, which may be written",
    )


def _code_of(error: OSError) -> str:
    return "TG0501" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "TG0554"


def out() -> Console:
    """The console for data; plain when stdout is not a terminal or NO_COLOR is set."""
    from flows.cli.console import open_console

    return open_console(stderr=False)


def talk() -> Console:
    """The console for everything that is not data."""
    from flows.cli.console import open_console

    return open_console(stderr=True)


def warn(message: str) -> None:
    """One warning on stderr, on one line."""
    _print_remark("warning", message)


def note(message: str) -> None:
    """One remark on stderr, on one line."""
    _print_remark("note", message)


def _print_remark(kind: str, message: str) -> None:
    from rich.text import Text

    talk().print(Text.assemble((kind, "yellow"), f" {message}"), soft_wrap=True)
