"""Numbers pass between Arrow and numpy unchanged, offsets and all."""

import numpy as np
import pyarrow as pa
import pytest

from tasks.curate.similarity.buffers import arrow_table, numpy_column


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.uint8(), pa.uint64(), pa.float64()])
def test_numbers_there_and_back(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array([1, 2, 3], kind).slice(1), pa.array([], kind), pa.array([4], kind)])
    values = numpy_column(column)
    assert values.tolist() == [2, 3, 4]
    back = arrow_table({"every second": values[::2]})["every second"]
    assert back.type == kind
    assert back.to_pylist() == [2, 4]


def test_no_rows_and_nulls() -> None:
    assert numpy_column(pa.chunked_array([], pa.int64())).dtype == np.int64
    with pytest.raises(ValueError, match="1 nulls"):
        numpy_column(pa.chunked_array([[1, None]], pa.int64()))
