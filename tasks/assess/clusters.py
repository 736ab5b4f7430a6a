"""Which held-out items belong together, such as those of one customer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.artifacts import Artifact, EvalSet
from schemas.errors import GateError
from tasks.step import as_step


class Clusters:
    """Item id -> value of the column; an item without a value is its own cluster."""

    def __init__(self, values: Mapping[str, str | None], column: str) -> None:
        self._values = values
        self._column = column

    @classmethod
    def read(cls, items: EvalSet | None, column: str) -> Clusters:
        """Read the column of `items.parquet`.

        Raises:
            GateError: TG0606, the items or the column are missing, or no item has a value.
        """
        if items is None:
            raise GateError(f"gates.cluster_by is {column}, but the gate did not get the items", code="TG0606")
        try:
            table = pq.read_table(items.root / "items.parquet", columns=["item_id", column])
        except (OSError, pa.ArrowException) as error:
            raise GateError(
                f"gates.cluster_by: {column} of the held-out items cannot be read ({type(error).__name__})",
                code="TG0606",
            ) from None
        values = dict(zip(table.column("item_id").to_pylist(), table.column(column).to_pylist(), strict=True))
        if all(value is None for value in values.values()):
            raise GateError(f"gates.cluster_by is {column}, but no held-out item has one", code="TG0606")
        return cls({item: None if value is None else str(value) for item, value in values.items()}, column)

    def of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Cluster of each item, numbered from 0 without gaps in the order of the items.

        Raises:
            GateError: TG0606, an item is not among the held-out items.
        """
        numbers: dict[tuple[str, str], int] = {}
        found = []
        for item in item_ids:
            if item not in self._values:
                raise GateError(f"a scored item is not in the held-out set, so its {self._column} is unknown",
                                code="TG0606")  # fmt: skip
            value = self._values[item]
            key = ("item", item) if value is None else ("value", value)
            found.append(numbers.setdefault(key, len(numbers)))
        return np.array(found, np.int64)


@as_step("clusters", libraries=("pyarrow",))
def check_clusters(out: Path, *, items: EvalSet, column: str) -> Artifact:
    """Check that the held-out items have the column of `gates.cluster_by`; the result is empty.

    Raises:
        GateError: TG0606, no item has a value.
    """
    Clusters.read(items, column)
    return Artifact(root=out)
