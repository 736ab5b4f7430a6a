"""Refuse files that hold no rows that `init` reads, each with the way to one that it reads.

The first bytes decide before the suffix does: a workbook that is named .csv is a workbook.
"""

import json
import shlex
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ConfigError, DataError
from tasks.sources.formats import ending_of
from tasks.sources.readers.streams import COMPRESSED


def _python(program: str) -> str:
    """A line for the shell that runs the program with the Python of this environment."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def _as_parquet(table: str) -> Callable[[str], str]:
    """A conversion by pyarrow."""
    program = "import pyarrow, pyarrow.feather, pyarrow.orc, pyarrow.parquet as pq; pq.write_table({}, {})"
    return lambda name: "convert it: " + _python(program.format(table.format(_text(name)), _text("tickets.parquet")))


def _by_extension(extension: str, function: str, write: str) -> Callable[[str], str]:
    """A conversion by an extension of DuckDB, none of which is part of its package."""
    program = (
        f'import duckdb; duckdb.install_extension("{extension}"); duckdb.load_extension("{extension}"); '
        f'duckdb.table_function("{function}", [{{}}]).{write}'
    )
    return lambda name: "convert it, for which DuckDB downloads an extension: " + _python(program.format(_text(name)))


def _text(value: str) -> str:
    """A literal of Python in double quotes, which needs no escapes in the single ones of a shell."""
    return json.dumps(value, ensure_ascii=False)


def _rename(ending: str) -> Callable[[str], str]:
    return lambda name: f"rename it: mv {shlex.quote(name)} {shlex.quote(name + ending)}"


def _recode(what: str) -> Callable[[str], str]:
    return lambda name: f"convert it: iconv -f {what} -t UTF-8 {shlex.quote(name)} > {shlex.quote(f'utf8-{name}')}"


def _workbook(name: str) -> str:
    other = _by_extension("excel", "read_xlsx", 'write_csv("tickets.csv")')(name)
    return f"save the sheet with the tickets as CSV (UTF-8), and start from that file; or {other}"


_KINDS: tuple[tuple[int, bytes, str, Callable[[str], str]], ...] = (
    (0, b"\xd0\xcf\x11\xe0", "a workbook of an old Excel",
     lambda _name: "save the sheet with the tickets as CSV (UTF-8), and start from that file"),
    (0, b"ORC", "an ORC file", _as_parquet("pyarrow.orc.read_table({0})")),
    (0, b"Obj\x01", "an Avro file", _by_extension("avro", "read_avro", 'write_parquet("tickets.parquet")')),
    (0, b"ARROW1", "an Arrow file", _as_parquet("pyarrow.feather.read_table({0})")),
    (0, b"\xff\xff\xff\xff", "an Arrow stream",
     _as_parquet("pyarrow.ipc.open_stream(pyarrow.memory_map({0})).read_all()")),
    (0, b"%PDF-", "a PDF", lambda _name: "export the tickets as CSV or JSON Lines"),
    (0, b"\x1f\x8b", "compressed with gzip", _rename(".gz")),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _rename(".zst")),
    (0, b"\xff\xfe\0\0", "UTF-32", _recode("UTF-32")),
    (0, b"\0\0\xfe\xff", "UTF-32", _recode("UTF-32")),
    (0, b"\xff\xfe", "UTF-16", _recode("UTF-16")),
    (0, b"\xfe\xff", "UTF-16", _recode("UTF-16")),
)  # fmt: skip
"""Offset and value of telling bytes, what such a file is, and what to do. UTF-32's mark begins with UTF-16's."""
_MAIL = (".mbox", ".eml", ".msg")
_DATABASES = (".duckdb", ".sqlite", ".sqlite3", ".db", ".ddb")


def refuse_other_formats(path: Path) -> None:
    """Refuse a file by its first bytes, or for its suffix.

    Raises:
        DataError: TG0202, its bytes are of a kind that is not read.
        ConfigError: TG0130, its suffix names no format.
    """
    name, ending = path.name, ending_of(path.name)
    if not ending.endswith(COMPRESSED):
        with path.open("rb") as stream:
            head = stream.read(16)
        if head.startswith(b"PK\x03\x04"):
            what, hint = _of_zip(path)
            raise DataError(f"{name!r} is {what}, which is not read", code="TG0202", where=str(path), hint=hint)
        for offset, mark, what, hint_of in _KINDS:
            if head[offset:].startswith(mark):
                hint = hint_of(name)
                raise DataError(f"{name!r} is {what}, which is not read", code="TG0202", where=str(path), hint=hint)
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    if plain.suffix.lower() == ".sql":
        raise ConfigError(
            f"{name!r} is SQL statements, which are not read",
            code="TG0130",
            where=str(path),
            hint="export the rows: mysql --batch -e 'SELECT ...' > tickets.tsv, or in psql \\copy (SELECT ...) TO "
            "'tickets.csv' CSV HEADER",
        )
    if path.suffix.lower() in _MAIL:
        hint = "put the mails into an mbox, or export them as CSV, with a row for each question and its answer"
        if path.suffix.lower() == ".mbox":
            program = f"{shlex.quote(sys.executable)} -m tasks.start.mail"
            hint = f"write each mail with your first answer: {program} {shlex.quote(name)} @YOUR.DOMAIN > tickets.jsonl"
        raise ConfigError(f"{name!r} is mail, which is not read", code="TG0130", where=str(path), hint=hint)
    if path.suffix.lower() in _DATABASES:
        raise ConfigError(
            f"{name!r} has the suffix of a database, and its first bytes are those of no DuckDB or SQLite file",
            code="TG0130",
            where=str(path),
            hint="it may be damaged or incomplete: copy it again, or export its rows as CSV or JSON Lines",
        )
    if ending in ("", *COMPRESSED):
        raise ConfigError(
            f"{name!r} has no suffix that is read",
            code="TG0130",
            where=str(path),
            hint="if it holds tickets, rename it to end in .csv, .tsv, .jsonl, .json or .parquet, then .gz or .zst if "
            "it is compressed",
        )


def _of_zip(path: Path) -> tuple[str, str]:
    """What a zip archive is, and what to do with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile:
        return "a damaged zip archive", "copy it again"
    if any(member.filename.startswith("xl/") for member in members):
        return "an Excel workbook", _workbook(path.name)
    readable = [each for each in members if ending_of(each.filename) and not each.is_dir()]
    readable = [each for each in readable if not each.filename.startswith(("__MACOSX/", "."))]
    if not readable:
        return "a zip archive", f"take the file of tickets out of it: unzip {shlex.quote(path.name)}"
    largest = max(readable, key=lambda each: each.file_size)
    to = Path(largest.filename).name
    others = f" (the largest of {len(readable):,} that could be read)" if len(readable) > 1 else ""
    # unzip takes the name of a member for a pattern.
    pattern = "".join(f"[{sign}]" if sign in "*?[" else sign for sign in largest.filename)
    unzip = f"unzip -p {shlex.quote(path.name)} {shlex.quote(pattern)} > {shlex.quote(to)}"
    return "a zip archive", f"take the tickets out of it{others}: {unzip}"
