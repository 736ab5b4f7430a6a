"""Find a customer in the files of `tables`: their own id, or the ids of their tickets, in any column.

These files are the user's, as sources are: what is found is listed, and never changed. Called by
`flows/privacy/forget.py`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.forget import Holding
from schemas.pipeline import DataPipeline
from tasks.curate.named_tables import sound_tables
from tasks.privacy.hashes import Forgotten, any_of


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


def _count(rows: pa.Table, forgotten: Forgotten) -> int:
    found = pa.array([False]).take(pa.array([0] * rows.num_rows, pa.int64()))
    for column in rows.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
            ids = column.cast(pa.string())
            gone = {*forgotten.gone("customer", ids), *forgotten.gone("ticket", ids)}
            found = pc.or_(found, any_of(ids, sorted(gone)))
    return int(pc.sum(found).as_py() or 0)
