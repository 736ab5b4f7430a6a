"""`schema.fail_above` over all steps that look into rows, together: what one step quarantines counts for the next.

Called by `flows/curate.py`, `flows/finetune.py`, `flows/choice.py` and `flows/assess.py`, which declare the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flows.engine.step import Step
from schemas.artifacts import Artifact, DatasetRef, EvalSet, Splits, TicketTable
from schemas.curation import TableSpec
from tasks.curate.row_faults import FaultLimit, count_faulty

Known = Mapping[str, Artifact | None]


def within_limit(step: Step, table: TableSpec) -> Step:
    """The step, checked against the limit when it is done, also when its result is reused.

    A step that takes `limit` gets what is left, so that it stops when more rows raise.
    """

    def limit(done: Known) -> FaultLimit | None:
        stages = tuple(result for result in done.values() if isinstance(result, TicketTable | Splits))
        made = tuple(result for result in done.values() if isinstance(result, DatasetRef | EvalSet))
        return FaultLimit(table.fail_above, stages, made) if stages else None

    def check(done: Known, result: Any) -> None:
        left = limit(done)
        if left is not None and count_faulty(result):
            left.hold(result)

    takes = {"limit": limit} if issubclass(step.returns, TicketTable | Splits | EvalSet) else {}
    return replace(step, from_results=takes, check=check)
