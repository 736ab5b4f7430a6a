"""How many tickets still hold a name after redaction, told from a seeded sample of them.

Called by `tasks/curate/redact.py`, inside functions: it imports numpy and pyarrow.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.curation_steps import NamesSpec
from tasks.curate.redaction.batches import READ
from tasks.curate.redaction.ticket import texts_of
from tasks.curate.rows import read_batches

if TYPE_CHECKING:
    import pyarrow as pa


class NameSample:
    """The sampled tickets. Which ones depends on their ids and the seed alone."""

    def __init__(self, path: Path, spec: NamesSpec) -> None:
        self._spec = spec
        ids = (name for batch in read_batches(path, ("ticket_id",)) for name in batch.column("ticket_id").to_pylist())
        lots = zip((self._lot(name) for name in ids), count())  # of equal ids the first is the first
        self._wanted = np.array(sorted(row for _, row in heapq.nsmallest(spec.sample_tickets, lots)), np.int64)
        self._tables: list[pa.Table] = []

    def watch(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same batches; of the sampled rows the texts are kept."""
        start = 0
        for batch in batches:
            low, high = np.searchsorted(self._wanted, (start, start + batch.num_rows))
            if high > low:
                self._tables.append(batch.select(list(READ)).take(self._wanted[low:high] - start))
            start += batch.num_rows
            yield batch

    def notes(self) -> dict[str, int]:
        """`names_sampled`, and `names_found_permille`: in how many of a thousand of them a name is left."""
        from tasks.curate.redaction.names import find_names

        least = self._spec.min_score
        rows = [row for table in self._tables for row in table.to_pylist()]
        n_found = sum(any(any(find_names(text, min_score=least)) for text in texts_of(row)) for row in rows)
        return {"names_sampled": len(rows), "names_found_permille": round(1000 * n_found / len(rows)) if rows else 0}

    def _lot(self, ticket_id: str) -> str:
        return hashlib.sha256(f"{self._spec.seed}:{ticket_id}".encode()).hexdigest()
