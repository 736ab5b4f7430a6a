"""Find a customer in the files of `tables` and `curate.corrections`: their own id, or the ids of their tickets.

These files are the user's, as sources are: what is found is listed, and never changed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import TunegateError
from schemas.forget import Holding
from schemas.pipeline import DataPipeline
from tasks.curate.corrections import corrections_file, read_corrections
from tasks.curate.named_tables import sound_tables
from tasks.privacy.hashes import Forgotten, any_of

SHOWN_LINES = 50


def rows_in_tables(specs: Iterable[DataPipeline], root: Path, forgotten: Forgotten) -> Iterator[Holding]:
    """Yield each named table with rows of the customers, and each that cannot be read, so that a person looks."""
    seen: set[str] = set()
    for spec in specs:
        read, _ = sound_tables(spec.tables, root)
        for name, table in spec.tables.items():
            place = table.path if table.table is None else f"{table.path}: {table.table}"
            if place in seen:
                continue
            seen.add(place)
            if name not in read:
                note = f"table {name}, which cannot be read: look there"
                yield Holding(kind="source", place=place, fate="yours", note=note)
            elif n_rows := _count(read[name], forgotten):
                note = f"table {name}: remove them there"
                yield Holding(kind="source", place=place, n_rows=n_rows, fate="yours", note=note)


def lines_of_corrections(specs: Iterable[DataPipeline], root: Path, forgotten: Forgotten) -> Iterator[Holding]:
    """Yield each file of corrections with lines about tickets of the customers, and each that cannot be read.

    The file is in git: taking the lines out, there and in its history, is up to the user.
    """
    for path in dict.fromkeys(spec.curate.corrections for spec in specs):
        if path is None:
            continue
        try:
            file = corrections_file(path, root)
            read_corrections(file)  # a damaged one may hold what is not found
        except TunegateError:
            yield Holding(kind="source", place=path, fate="yours", note="corrections that cannot be read: look there")
            continue
        lines = [
            number
            for number, line in enumerate(file.read_bytes().split(b"\n"), start=1)
            if line.strip()
            and forgotten.is_gone("ticket", orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))["ticket_id"])
        ]
        if lines:
            shown = ", ".join(f"{number}" for number in lines[:SHOWN_LINES])
            more = f" and {len(lines) - SHOWN_LINES:,} more" if len(lines) > SHOWN_LINES else ""
            word = "line" if len(lines) == 1 else "lines"
            note = "corrections: take these lines out, and out of git's history"
            yield Holding(
                kind="source", place=f"{path}: {word} {shown}{more}", n_rows=len(lines), fate="yours", note=note
            )


def _count(rows: pa.Table, forgotten: Forgotten) -> int:
    found = pa.array([False]).take(pa.array([0] * rows.num_rows, pa.int64()))
    for column in rows.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
            ids = column.cast(pa.string())
            gone = {*forgotten.gone("customer", ids), *forgotten.gone("ticket", ids)}
            found = pc.or_(found, any_of(ids, sorted(gone)))
    return int(pc.sum(found).as_py() or 0)
