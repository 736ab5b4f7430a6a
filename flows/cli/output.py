"""How commands print: data to stdout (text or JSON), everything else to stderr.

All of it is written here, so that no ticket and no file controls the terminal: what is no visible character, such as
the escape that begins a command to it, is shown as a mark, in JSON as an escape of JSON.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from schemas.errors import ConfigError, StorageError
from tasks.tickets.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

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


def write_file(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file that an option names, completely or not at all; folders above it are made.

    Raises:
        ConfigError: TG0189, it is there already and `replace` is false.
        StorageError: TG0501, the disk is full; TG0554, it cannot be written for another reason, which is named.
    """
    from tasks.storage.files import write_atomic

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
    code = "TG0501" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "TG0554"
    files = (each for each in path.absolute().parents if each.exists() and not each.is_dir())
    why = next((f"{each} is not a folder" for each in files), error.strerror)
    return StorageError(
        f"{path} cannot be written: {why}", code=code, where=str(path), hint="name another place, which may be written"
    )


def out() -> Console:
    """The console for data; plain when stdout is not a terminal or NO_COLOR is set."""
    from flows.cli.console import open_console

    return open_console(stderr=False)


def talk() -> Console:
    """The console for everything that is not data."""
    from flows.cli.console import open_console

    return open_console(stderr=True)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows as an aligned table on stdout, with these columns, or those of the first row."""
    from flows.cli.console import table_of

    out().print(table_of(rows, tuple(rows[0]) if columns is None else columns))


def warn(message: str) -> None:
    """One warning on stderr, on one line."""
    _print_remark("warning", message)


def note(message: str) -> None:
    """One remark on stderr, on one line."""
    _print_remark("note", message)


def _print_remark(kind: str, message: str) -> None:
    from rich.text import Text

    talk().print(Text.assemble((kind, "yellow"), f" {message}"), soft_wrap=True)
