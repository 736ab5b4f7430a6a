"""One step over one table by one engine, in this process as the driver; prints what it cost as JSON.

Run by `benchmarks/scale.py` as `python -m benchmarks.scale_run STEP ENGINE TABLE OUT [ADDRESS SHARED]`.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import DedupStep, RedactStep
from tasks.cluster.connect import Place
from tasks.cluster.ray_spread import RaySpread
from tasks.curate.dedup import drop_duplicates
from tasks.curate.redact import redact_tickets
from tasks.files import seal

MAX_COMPARISONS = 2_000_000_000
"""More than the default, which is for one machine: the tickets are built of stock sentences."""


class CountingSpread(RaySpread):
    """Counts the bytes of what parts are given and give: what goes through Ray's object store, each thing once."""

    moved = 0

    def each(self, work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for result in super().each(work, self._counted(parts)):
            self.moved += n_bytes(result)
            yield result

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        held = super().hold(weighed, ((work, *part) for part in self._counted(parts)), n_outputs=n_outputs + 1)
        self.moved += sum(super().each(itself, [handles[-1:] for handles in held]))
        return [handles[:-1] for handles in held]

    def _counted(self, parts: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        from ray import ObjectRef

        for part in parts:
            self.moved += sum(n_bytes(thing) for thing in part if not isinstance(thing, ObjectRef))
            yield part


def weighed(work: Callable[..., tuple[Any, ...]], *part: Any) -> tuple[Any, ...]:
    """What the work gives, and its bytes."""
    outputs = work(*part)
    return (*outputs, sum(map(n_bytes, outputs)))


def itself(thing: Any) -> Any:
    return thing


def n_bytes(thing: Any) -> int:
    """As it travels."""
    buffers: list[pickle.PickleBuffer] = []
    return len(pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)) + sum(b.raw().nbytes for b in buffers)


def main(step: str, engine: str, table: str, out: str, *place: str) -> None:
    """Run it."""
    spread = CountingSpread(Place(*place)) if engine == "ray" else None
    started = time.perf_counter()
    if spread is not None:
        spread.get_ready()
    joined = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True)
    rows = RowCounts(n_in=0, n_out=0)  # what was before is not asked for
    tickets = TicketTable(root=Path(table), rows=rows)
    if step == "redact":
        result = redact_tickets(tickets=tickets, step=RedactStep(uses="redact"), out=folder, spread=spread)
    else:
        wanted = DedupStep(uses="dedup", max_comparisons=MAX_COMPARISONS)
        result = drop_duplicates(tickets=tickets, step=wanted, out=folder, spread=spread)
    done = time.perf_counter()
    told = {"join_s": joined - started, "step_s": done - joined, "moved_mb": spread.moved / 1e6 if spread else 0.0}
    print(json.dumps({**told, "n_out": result.rows.n_out, "digest": seal(folder), "notes": result.notes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
