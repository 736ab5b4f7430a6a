"""The owners of a ticket as numbers: its customer and thread, and which owners are connected.

It knows nothing of time, sides or splits. Imported by `tasks/curate/split.py` and `tasks/curate/splits/placing.py`
inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Owners:
    """Two owners per ticket, equal where it has only one; a ticket without customer and thread owns itself."""

    first: Ints
    second: Ints
    names: pa.Array
    """Name per owner, ascending: `COLUMN=VALUE`."""

    @property
    def n_owners(self) -> int:
        return len(self.names)

    def connect(self, links: Flags) -> Ints:
        """Return per owner the smallest owner of its connected component, if only these tickets link their owners."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ends = (self.first[links], self.second[links])
        graph = coo_array((np.ones(ends[0].shape[0], np.int8), ends), shape=(self.n_owners, self.n_owners))
        _, component = connected_components(graph, directed=False)
        smallest = np.full(self.n_owners, self.n_owners, np.int64)
        np.minimum.at(smallest, component, np.arange(self.n_owners))
        group: Ints = smallest[component]
        return group


def owners_of(table: pa.Table, group_by: Sequence[str]) -> Owners:
    """Return the owners of each row by its columns `group_by` (at most two); null and '' are no owner.

    >>> table = pa.table({"ticket_id": ["a", "b"], "customer_id": ["7", ""], "thread_id": ["9", None]})
    >>> owners = owners_of(table, ("customer_id", "thread_id"))
    >>> owners.names.to_pylist(), owners.first.tolist(), owners.second.tolist()
    (['customer_id=7', 'thread_id=9', 'ticket_id=b'], [0, 2], [1, 2])
    """
    columns = [_named(table, name) for name in group_by]
    itself = pc.binary_join_element_wise("ticket_id", table["ticket_id"].combine_chunks(), "=")
    first = pc.coalesce(*columns, itself)
    second = pc.coalesce(*reversed(columns), itself)
    both = pa.concat_arrays([_whole(first), _whole(second)])
    names = pc.unique(both)
    names = names.take(pc.sort_indices(names))
    numbers = pc.index_in(both, value_set=names).to_numpy().astype(np.int64)
    return Owners(numbers[: table.num_rows], numbers[table.num_rows :], names)


def _named(table: pa.Table, name: str) -> pa.Array:
    values = table[name].combine_chunks()
    filled = pc.if_else(pc.equal(values, ""), None, values)
    return pc.binary_join_element_wise(name, filled, "=")


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
