"""Refuse files that hold no rows that `init` reads, each with the way to one that it reads.

The first bytes decide before the suffix does: a workbook that is named .csv is a workbook. Called by
`tasks/start/file_profile.py`.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from schemas.errors import ConfigError, DataError
from tasks.sources.formats import ending_of
from tasks.sources.readers.streams import COMPRESSED

_WORKBOOK = "save the sheet with the tickets as CSV (UTF-8), and start from that file"
_ICONV = "convert it: iconv -f {what} -t UTF-8 {file} > {new_file}"
_KINDS = (
    (0, b"PK\x03\x04", "an Excel workbook or another zip archive", _WORKBOOK),
    (0, b"\xd0\xcf\x11\xe0", "a workbook of an old Excel", _WORKBOOK),
    (0, b"SQLite format 3\0", "a SQLite database",
     "export the table as CSV: sqlite3 -header -csv {file} 'SELECT * FROM TABLE' > tickets.csv"),
    (8, b"DUCK", "a DuckDB database",
     "declare it in pipelines.yaml: source: {{kind: duckdb, database: FILE, table: TABLE}}"),
    (0, b"%PDF-", "a PDF", "export the tickets as CSV or JSON Lines"),
    (0, b"\x1f\x8b", "compressed with gzip", "rename it: mv {file} {file}.gz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "rename it: mv {file} {file}.zst"),
    (0, b"\xff\xfe\0\0", "UTF-32", _ICONV),
    (0, b"\0\0\xfe\xff", "UTF-32", _ICONV),
    (0, b"\xff\xfe", "UTF-16", _ICONV),
    (0, b"\xfe\xff", "UTF-16", _ICONV),
)  # fmt: skip
"""Offset and value of telling bytes, what such a file is, and what to do. UTF-32's mark begins with UTF-16's."""
_MAIL = (".mbox", ".eml", ".msg")


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
        for offset, mark, what, hint in _KINDS:
            if head[offset:].startswith(mark):
                hint = hint.format(what=what, file=shlex.quote(name), new_file=shlex.quote(f"utf8-{name}"))
                raise DataError(f"{name!r} is {what}, which is not read", code="TG0202", where=str(path), hint=hint)
    if path.suffix.lower() in _MAIL:
        hint = "convert it to CSV or JSON Lines, with a row for each question and its answer"
        raise ConfigError(f"{name!r} is mail, which is not read", code="TG0130", where=str(path), hint=hint)
    if ending in ("", *COMPRESSED):
        raise ConfigError(
            f"{name!r} has no suffix that is read",
            code="TG0130",
            where=str(path),
            hint="if it holds tickets, rename it to end in .csv, .tsv, .jsonl, .json or .parquet, then .gz or .zst if "
            "it is compressed",
        )
