"""Profile a file of tickets: its rows, and counts and kinds of values per column.

It uses a run's own readers, so whatever it calls readable a run can read. What a column is for, `roles.py` decides.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal
from zlib import crc32

from schemas.errors import ConfigError, DataError
from schemas.file_reading import EXCEL_DAYS, CsvSpec
from schemas.source import FilesSource
from tasks.curate.redaction.personal import find_personal, is_personal_id
from tasks.sources.files import find_files
from tasks.sources.formats import file_format, reader_of
from tasks.sources.readers.paths import MISSING, parse_path, walk
from tasks.sources.readers.records import Fault, RowBatch
from tasks.sources.readers.streams import open_binary
from tasks.sources.readers.values import ValueForms, excel_time, to_rating, to_time
from tasks.start.csv_form import find_csv_form, find_decimal, find_time_formats, is_excel_time, looks_like_date
from tasks.start.other_formats import refuse_other_formats

SAMPLE_ROWS = 2000
"""Between this and twice as many rows of a large file are sampled, spread evenly over it; all rows are counted."""
_DEPTH = 4
_ITEMS = 2
"""Items of a list to look into: what a customer wrote first, and the first answer."""
_MAX_PATHS = 400
_SPEAKER = re.compile(r"(?mi)^(user|customer|human|assistant|agent|bot|system):")
_MIN_KEYED = 20
"""Objects in an object from which on its keys are ids and not names."""
_YEARS = (1990, 2100)
"""A number outside these years is an id, not seconds since 1970."""


@dataclass(frozen=True)
class ColumnFacts:
    """The sampled values of one column, or of one path into nested rows; blank values count as absent."""

    name: str
    is_top: bool
    """The name is at the top level of the rows."""
    n_rows: int
    """Sampled rows; a nested path may be absent in some."""
    n_filled: int
    n_distinct: int
    median_chars: int
    """Median length of the texts, characters."""
    time_formats: tuple[str, ...]
    """Formats that read its dates, if ISO 8601 does not; several if day and month are ambiguous. `excel` if all values
    may be days as Excel stores them: they may be ids or amounts as well, so they do not count as times."""
    kinds: Counter[str]
    """`text`, `boolean`, `time`, `date` (in a format that is not read), `excel` (may be Excel's), `number`, `email`,
    `phone`, `code` (an id, link or address) -> number of values that are one (`email`, `phone`: contain one)."""
    is_excel_time: bool = False
    """Its numbers can be nothing but Excel's times."""

    @property
    def times_as(self) -> str:
        """What times were read as."""
        one = len(self.time_formats) == 1
        if self.time_formats == (EXCEL_DAYS,):
            return "Excel's days since 1899-12-30"
        return f"{self.time_formats[0]} or ISO 8601" if one else "ISO 8601 or seconds since 1970"

    @property
    def n_dates(self) -> int:
        """Values that are times, or dates in a format that is not read."""
        return self.kinds["time"] + self.kinds["date"]

    @property
    def is_codes(self) -> bool:
        """Most values are ids, links or addresses, which people do not read as text."""
        return 2 * self.kinds["code"] > self.n_filled

    @property
    def personal_share(self) -> float:
        """Share of the values that contain an e-mail address or a phone number, 0-1."""
        return max(self.kinds["email"], self.kinds["phone"]) / max(1, self.n_filled)


@dataclass(frozen=True)
class Profile:
    """A profile of a file."""

    path: Path
    n_rows: int
    """Rows in the file, including unreadable ones."""
    unreadable: Mapping[str, int]
    """Error code -> rows of the file that cannot be read."""
    why_unreadable: str
    """The reason of the first of these rows; empty without any."""
    lines: tuple[int, ...]
    """Line of the file where each sampled row begins."""
    rows: tuple[Mapping[str, object], ...]
    """The sampled rows, as read."""
    top: tuple[str, ...]
    """Names at the top level of the rows."""
    columns: Mapping[str, ColumnFacts]
    """Columns of the rows in order, and paths into nested ones."""
    csv: CsvSpec
    """The form of a CSV file."""

    @property
    def n_sampled(self) -> int:
        return len(self.rows)


def profile_file(path: Path) -> Profile:
    """Read the file: count all rows and sample some.

    Raises:
        ConfigError: TG0130, its suffix names no format, it holds another trainer's settings, or it is a folder or glob.
        DataError: TG0201 to TG0204, the file is missing, damaged or has no usable header; TG0221, it has no rows.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ConfigError(
            f"{path.name} holds settings, not tickets; other trainers' settings are not supported",
            code="TG0130",
            where=str(path),
            hint="give the file of tickets that it names (axolotl: `datasets`, LLaMA-Factory: dataset_info.json): "
            "tunegate init --from DATA.jsonl",
        )
    if path.is_dir() or (glob.has_magic(str(path)) and not path.exists()):
        raise ConfigError(
            f"{str(path)!r} is not one file",
            code="TG0130",
            where=str(path),
            hint="start from one of the files, if they are alike; then `paths` in pipelines.yaml takes a glob of all",
        )
    source = FilesSource(kind="files", paths=(glob.escape(str(path.absolute())),))
    (file,) = find_files(source, root=path.absolute().parent)
    refuse_other_formats(file.path)
    form = file_format(file, "auto")
    csv = find_csv_form(file.path) if form == "csv" else CsvSpec()
    return profile_rows(reader_of(form, csv)(file.path), path=path, csv=csv if form == "csv" else None)


def profile_rows(batches: Iterable[RowBatch], *, path: Path, csv: CsvSpec | None = None) -> Profile:
    """Count all rows and sample some.

    Args:
        path: The file, or what stands for it in messages.
        csv: The form of the file, if it is CSV.

    Raises:
        DataError: TG0221, there are no rows; and as the reader.
    """
    n_rows = n_seen = mask = 0
    unreadable: Counter[str] = Counter()
    why_unreadable = ""
    sample: list[tuple[int, int, Mapping[str, object]]] = []
    for batch in batches:
        n_rows += len(batch)
        faults = [(each.offset, each.content) for each in batch.faulty if isinstance(each.content, Fault)]
        unreadable.update(fault.code for _, fault in faults)
        if faults and not why_unreadable:
            why_unreadable = _why_unreadable(path, *faults[0])
        for index, line in enumerate(batch.lines):
            # Keep every row, then about every second, every fourth and so on. A hash of the row number decides, so
            # that a pattern that repeats in the file cannot fall between the sampled rows.
            mark = crc32(b"%d" % n_seen)
            n_seen += 1
            if not mark & mask:
                sample.append((mark, int(line), batch.rows.pick(index, batch.rows.names(index))))
            if len(sample) >= 2 * SAMPLE_ROWS:
                mask = 2 * mask + 1
                sample = [each for each in sample if not each[0] & mask]
    if not n_rows:
        hint = None if csv is None else "a header alone is not enough"
        raise DataError("there are no rows", code="TG0221", where=str(path), hint=hint)
    rows = tuple(row for _, _, row in sample)
    top = tuple(dict.fromkeys(name for row in rows for name in row))
    leaves = _leaves_by_path(rows)
    csv = CsvSpec() if csv is None else csv.model_copy(update={"decimal": find_decimal(leaves.values())})
    facts = partial(_facts, decimal=csv.decimal, n_rows=len(rows))
    return Profile(
        path=path,
        n_rows=n_rows,
        unreadable=dict(unreadable.most_common()),
        why_unreadable=why_unreadable,
        lines=tuple(line for _, line, _ in sample),
        rows=rows,
        top=top,
        columns={name: facts(name, values, is_top=name in top) for name, values in leaves.items()},
        csv=csv,
    )


def _why_unreadable(path: Path, offset: int | None, fault: Fault) -> str:
    """The reason of the fault; of JSON with NaN, which pandas and Python write, the cause and what to do."""
    place = re.search(r"is not JSON: .* at character (\d+)", fault.reason)
    if place is None:
        return fault.reason
    with open_binary(path) as stream:
        left = offset or 0
        while left:  # a compressed stream cannot seek
            left -= len(stream.read(min(left, 1 << 20)))
        data = stream.read() if offset is None else stream.readline()
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    if not re.match("NaN|Infinity", text[int(place[1]) - 1 :][:8]):
        return fault.reason
    fix = "pandas does (`to_json`), and json.dumps(..., allow_nan=False) finds them"
    return f"NaN and Infinity are not JSON. Write null: {fix}"


def wrapped_rows(profile: Profile) -> tuple[str, int, bool] | None:
    """Path to the most objects in a file of one row, their number, and whether they are in an object, by their ids.

    None if there are not several. The path begins with a dot, and is empty for the row itself.
    """
    if profile.n_rows != 1 or not profile.rows:
        return None
    found = list(_objects("", profile.rows[0], _DEPTH))
    return max(found, key=lambda each: each[1], default=None)


def is_by_columns(profile: Profile) -> bool:
    """Whether the one row holds columns, as pandas writes them: values by the numbers of rows, or lists of values."""
    if profile.n_rows != 1 or not profile.rows:
        return False
    (row,) = profile.rows
    first, *others = row.values() if row else [None]
    if isinstance(first, dict):
        are_alike = bool(others) and all(isinstance(each, dict) and each.keys() == first.keys() for each in others)
        return are_alike and len(first) >= max(_MIN_KEYED, len(row))
    return {"columns", "data"} <= row.keys()


def _objects(path: str, value: object, depth: int) -> Iterator[tuple[str, int, bool]]:
    is_keyed = isinstance(value, dict)
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    n_least = _MIN_KEYED if is_keyed else 2
    if len(inner) >= n_least and all(isinstance(each, dict) for each in inner):
        yield path, len(inner), is_keyed
    elif isinstance(value, dict) and depth:
        for key, each in value.items():
            yield from _objects(f"{path}.{key}", each, depth - 1)


def is_conversation(profile: Profile, name: str) -> bool:
    """Whether most texts at the top-level column are transcripts: lines that begin with `user:` and `assistant:`."""
    texts = [text for row in profile.rows if isinstance(text := row.get(name), str)]
    return 2 * sum(len(set(_SPEAKER.findall(text))) > 1 for text in texts) > len(texts)


def is_own_value(profile: Profile, name: str) -> bool:
    """Whether the name of a top-level column is one of its values: a row of data may have been read as the header.

    Rows that repeat the whole header do not count, nor do columns of one value, as of surveys.
    """
    return (
        profile.columns.get(name) is not None
        and profile.columns[name].n_distinct > 1
        and any(row.get(name) == name and not all(key == value for key, value in row.items()) for row in profile.rows)
    )


def facts_at(profile: Profile, name: str) -> ColumnFacts | None:
    """The values in a column or at a path, such as `comments[-1].body`, which is not listed; None if it is neither."""
    if name in profile.columns:
        return profile.columns[name]
    path = parse_path(name)
    if path is None:
        return None
    found = [value for row in profile.rows if (value := walk(row, path)) is not MISSING]
    values = [value for value in found if not isinstance(value, dict | list)]
    return _facts(name, values, is_top=False, decimal=profile.csv.decimal, n_rows=profile.n_sampled)


def filled_share(profile: Profile, name: str) -> float:
    """Share of the sampled rows with a value in the column or at the path, 0-1."""
    facts = facts_at(profile, name)
    return facts.n_filled / profile.n_sampled if facts else 0.0


def _leaves_by_path(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for row in rows:
        for name, value in row.items():
            for path, leaf in _leaves(name, value, _DEPTH):
                if path in found or len(found) < _MAX_PATHS:
                    found.setdefault(path, []).append(leaf)
    return found


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Values that are neither object nor list, each with its path; anything deeper than `depth` is left out."""
    inner: Iterable[tuple[str, object]]
    if isinstance(value, dict):
        inner = ((f".{key}", each) for key, each in value.items() if re.fullmatch(r"[^.\[\]]+", str(key)))
    elif isinstance(value, list):
        inner = ((f"[{place}]", each) for place, each in enumerate(value[:_ITEMS]))
    else:
        yield path, value.decode(errors="replace") if isinstance(value, bytes) else value
        return
    for step, each in inner if depth else ():
        yield from _leaves(path + step, each, depth - 1)


def _facts(
    name: str, values: Sequence[object], *, is_top: bool, decimal: Literal[".", ","], n_rows: int
) -> ColumnFacts:
    time_formats = find_time_formats(values)
    forms = ValueForms(time_formats[0] if len(time_formats) == 1 else None, decimal)
    filled = [value for value in values if value is not None and not (isinstance(value, str) and not value.strip())]
    lengths = [len(value) for value in filled if isinstance(value, str)]
    kinds = Counter(kind for value in filled for kind in _kinds_of(value, forms))
    if filled and kinds["excel"] == len(filled):
        time_formats = (EXCEL_DAYS,)
    return ColumnFacts(
        name=name,
        is_top=is_top,
        n_rows=n_rows,
        n_filled=len(filled),
        n_distinct=len(set(filled)),
        time_formats=time_formats,
        median_chars=int(median(lengths or [0])),
        kinds=kinds,
        is_excel_time=time_formats == (EXCEL_DAYS,) and 2 * sum(map(is_excel_time, filled)) >= len(filled),
    )


def _kinds_of(value: object, forms: ValueForms) -> Iterator[str]:
    """The kinds that the readers recognise in one value."""
    if isinstance(value, bool):
        yield "boolean"
    if isinstance(value, str):
        yield "text"
        if (value.isascii() and len(value.split()) == 1) or (len(value) <= 60 and is_personal_id(value)):
            yield "code"
        # In a longer text an address is part of the ticket, not the purpose of the column.
        yield from {found.type for found in find_personal(value, ("email", "phone"))} if len(value) <= 200 else ()
    if not isinstance(value, str) or len(value) <= 40:
        time = to_time("created_at", forms.plain("created_at", value))
        if isinstance(time, datetime) and _YEARS[0] <= time.year < _YEARS[1]:
            yield "time"
        elif looks_like_date(value):
            yield "date"
    if excel_time(value) is not None:
        yield "excel"
    if isinstance(to_rating("rating", forms.plain("rating", value)), float):
        yield "number"
