"""Numbers and texts between Arrow and numpy by sharing memory.

pyarrow's own conversions import pandas first, which takes a third of a second.
"""

from typing import Any

import numpy as np
import pyarrow as pa


def numpy_column(column: pa.ChunkedArray) -> Any:
    """Return a column of numbers without nulls as a numpy array."""
    dtype = np.dtype(str(column.type).replace("double", "float64"))
    if column.null_count:
        raise ValueError(f"{column.null_count} nulls in a column of {column.type}")
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def text_buffers(batch: pa.Array) -> tuple[Any, Any]:
    """Return bytes (aligned to eight) and int64 offsets (n + 1) of strings without nulls, shared if possible.

    The offsets may begin above 0.
    """
    n = len(batch)
    kind = np.int64 if pa.types.is_large_string(batch.type) else np.int32
    _, offset_bytes, text_bytes = batch.buffers()
    if not n:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offset_bytes, kind)[batch.offset : batch.offset + n + 1].astype(np.int64)
    data = np.frombuffer(text_bytes, np.uint8)[: offsets[-1]] if text_bytes else np.empty(0, np.uint8)
    return (data.copy() if data.ctypes.data % 8 else data), offsets


def arrow_table(columns: dict[str, Any]) -> pa.Table:
    """Return numpy arrays of numbers as a table."""
    arrays = []
    for values in columns.values():
        whole = np.ascontiguousarray(values)
        kind = pa.type_for_alias(whole.dtype.name)
        arrays.append(pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)]))
    return pa.Table.from_arrays(arrays, names=list(columns))
