"""`tunegate explain`: the documentation of error codes.

It knows no code itself: the rows are read from docs/reference/errors.md, which comes with the program.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.command import command
from flows.cli.output import Result
from schemas.errors import ConfigError, StorageError
from schemas.names import nearest

_SHIPPED = Path(__file__).with_name("errors.md")
"""Where a wheel has it (pyproject.toml); a checkout has the page of the documentation alone."""
DOCUMENTATION = _SHIPPED if _SHIPPED.is_file() else Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
_ROW = re.compile(r"\| (?P<code>TG\d{4}) \| (?P<meaning>[^|]+) \| (?P<what_to_do>[^|]+) \|")
_EXIT = re.compile(r"\| (?P<exit_code>\d) \| .*\((?P<ranges>TG[^)]*)\) \|")
_SHORTEST = 4
"""Characters that name a range: `TG02` prints all of its codes."""


@command(example="tunegate explain TG0220")
def explain(
    code: Annotated[str, typer.Argument(help="Error code, such as TG0220; TG02 gives its range.", show_default=False)],
) -> Result:
    """Explain an error code and what to do about it."""
    found = rows_of(code)
    text = (
        f"{row.code} ({row.range}): {row.meaning}\n  {row.what_to_do}\n  exit code {row.exit_code}" for row in found
    )
    return Result({"codes": [asdict(row) for row in found]}, text)


@dataclass(frozen=True)
class ErrorCodeRow:
    """One error code as it is documented."""

    code: str
    range: str
    meaning: str
    what_to_do: str
    exit_code: int


def rows_of(code: str) -> list[ErrorCodeRow]:
    """The rows of the code, or of the range that it begins.

    Raises:
        ConfigError: TG0103, there is no such code.
        StorageError: TG0517, the documentation is not next to the program.
    """
    wanted = code.strip().upper()
    rows = list(documented(DOCUMENTATION))
    found = [row for row in rows if row.code.startswith(wanted)] if len(wanted) >= _SHORTEST else []
    if not found:
        hint = nearest(wanted, [row.code for row in rows]) or f"all codes are in {DOCUMENTATION}"
        raise ConfigError(f"no error code {code!r}", code="TG0103", where="explain", hint=hint)
    return found


def documented(path: Path) -> Iterator[ErrorCodeRow]:
    """Every row of the tables, in the file's order.

    Raises:
        StorageError: TG0517, the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StorageError(f"no documentation: {error.strerror}", code="TG0517", where=str(path)) from None
    heading = ""
    exits: dict[str, int] = {}
    for line in lines:
        if line.startswith("## "):
            heading = line.removeprefix("## ").partition(" ")[2]
        elif exit_line := _EXIT.fullmatch(line):
            marks = re.findall(r"TG\d{2}(?:: marked \*locked\*)?", exit_line["ranges"])
            exits |= {mark: int(exit_line["exit_code"]) for mark in marks}
        elif row := _ROW.fullmatch(line):
            mark = row["code"][:4] + (": marked *locked*" if row["meaning"].startswith("*locked*") else "")
            yield ErrorCodeRow(range=heading, exit_code=exits.get(mark, 1), **row.groupdict())
