"""Numbers between Arrow and numpy by sharing memory; pyarrow's own way imports pandas first, a third of a second.

It knows nothing of texts. Called by dedup and the modules of `tasks/curate/similarity/`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def numpy_column(column: pa.ChunkedArray) -> Any:
    """A column of numbers without nulls as a numpy array."""
    dtype = np.dtype(str(column.type).replace("double", "float64"))
    if column.null_count:
        raise ValueError(f"{column.null_count} nulls in a column of {column.type}")
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def arrow_table(columns: dict[str, Any]) -> pa.Table:
    """Numpy arrays of numbers as a table."""
    arrays = []
    for values in columns.values():
        whole = np.ascontiguousarray(values)
        kind = pa.type_for_alias(whole.dtype.name)
        arrays.append(pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)]))
    return pa.Table.from_arrays(arrays, names=list(columns))
