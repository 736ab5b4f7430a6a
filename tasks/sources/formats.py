"""Formats of files of tickets: which one a file has, what reads it, and the prefix of ids made for its rows."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.errors import ConfigError
from schemas.file_reading import CsvSpec, FileReading, RowReading
from tasks.sources.kind import Part
from tasks.sources.readers.read_arrow import read_parquet
from tasks.sources.readers.read_csv import read_csv
from tasks.sources.readers.read_jsonl import read_json, read_jsonl
from tasks.sources.readers.records import RowBatch, in_batches
from tasks.sources.readers.streams import COMPRESSED
from tasks.sources.readers.values import ValueForms
from tasks.storage.files import sha256_file, sha256_json

FileFormat = Literal["csv", "jsonl", "json", "parquet"]
DeclaredFormat = Literal["auto", "csv", "jsonl", "parquet"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_ENDING = re.compile(r"(\.(csv|tsv|jsonl|ndjson|json|parquet|pq|gz|zst))+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and the name that its rows keep: relative to pipelines.yaml if it is below it."""

    name: str
    path: Path


def ending_of(name: str) -> str:
    """The suffixes that determine how the file is read, in lower case; empty if there are none.

    >>> ending_of("exports/2026.06/tickets.CSV.gz"), ending_of("tickets")
    ('.csv.gz', '')
    """
    found = _ENDING.search(name)
    return found[0].lower() if found else ""


def file_format(file: SourceFile, declared: DeclaredFormat) -> FileFormat:
    """The declared format, or the one the suffix names.

    Raises:
        ConfigError: TG0130, the suffix names none, or a Parquet file is compressed again.
    """
    suffixes = [suffix.lower() for suffix in file.path.suffixes]
    squeezed = bool(suffixes) and suffixes[-1] in COMPRESSED
    plain = suffixes[:-1] if squeezed else suffixes
    found: FileFormat | None = declared if declared != "auto" else _SUFFIXES.get(plain[-1]) if plain else None
    if found is None:
        raise ConfigError(
            f"{file.path.name!r} has no known suffix; known are {', '.join(_SUFFIXES)}, each also with "
            f"{' or '.join(COMPRESSED)}",
            code="TG0130",
            where=file.name,
            hint="set `format: csv`, `jsonl` or `parquet`",
        )
    if found == "parquet" and squeezed:
        raise ConfigError("Parquet files are compressed inside; decompress this one", code="TG0130", where=file.name)
    return found


def id_prefixes(files: Iterable[SourceFile]) -> dict[str, str]:
    """File name -> prefix of the ids made for its rows: its stem, or its whole path where stems repeat.

    >>> files = [SourceFile(name, Path(name)) for name in ("a/x.jsonl", "b/x.jsonl.gz")]
    >>> id_prefixes(files)
    {'a/x.jsonl': 'a/x', 'b/x.jsonl.gz': 'b/x'}
    """
    names = [file.name for file in files]
    bare = {name: _ENDING.sub("", name) for name in names}
    stems = {name: bare[name].rpartition("/")[2] for name in names}
    for prefixes in (stems, bare):
        if len(set(prefixes.values())) == len(names):
            return prefixes
    return {name: name for name in names}


def fingerprint_files(files: Iterable[SourceFile]) -> str:
    """sha256 over the names and the sha256 of the bytes."""
    return sha256_json({file.name: sha256_file(file.path) for file in files})


def file_parts(files: Iterable[SourceFile], reading: FileReading) -> Iterator[Part]:
    """The rows of each file.

    Raises:
        ConfigError: as `file_format`.
    """
    files = tuple(files)
    prefixes = id_prefixes(files)
    for file in files:
        yield Part(file.name, prefixes[file.name], reader_of(file_format(file, reading.format), reading.csv)(file.path))


def forms_of(source: object) -> ValueForms:
    """How the source writes times and decimals, where it declares that."""
    decimal = source.csv.decimal if isinstance(source, FileReading) else "."
    return ValueForms(source.time_format if isinstance(source, RowReading) else None, decimal)


def reader_of(form: FileFormat, csv: CsvSpec) -> Callable[[Path], Iterator[RowBatch]]:
    """The function that reads files of this format in batches; `tunegate init` uses it as well."""
    readers: dict[str, Callable[[Path], Iterator[RowBatch]]] = {
        "csv": lambda path: in_batches(read_csv(path, csv)),
        "jsonl": read_jsonl,
        "json": lambda path: in_batches(read_json(path)),
        "parquet": read_parquet,
    }
    return readers[form]
