"""Make the execution of a pipeline's graph, guarded by `schema.fail_above` across all steps that check rows.

What one step quarantines counts for the next: its own share is added to what the steps before it have quarantined,
those that it depends on and those of earlier stages. So the limit does not depend on which steps run in parallel.
"""

from typing import Any

from flows.graph.budget import budget_of
from flows.graph.execute import Observer, Run
from flows.graph.graph import Graph, Node
from flows.graph.store import Store
from flows.workspace.settings import Settings
from schemas.artifacts import DatasetRef, EvalSet, Splits, TicketTable
from schemas.curation import TableSpec
from schemas.pipeline import DataPipeline
from tasks.curate.row_faults import FaultLimit, count_faulty

OWN_LIMIT = ("extract", "validate")
"""Steps that count what they quarantine themselves."""


class QuarantineGuard:
    """The limit as a guard of the run (`flows/graph/execute.py`)."""

    def __init__(self, table: TableSpec) -> None:
        self._table = table

    def arguments(self, node: Node, before: list[Any]) -> dict[str, Any]:
        """Return the rest of the limit, for a step that stops when more rows raise errors."""
        return {"limit": self._left(before)} if node.takes("limit") else {}

    def check(self, node: Node, before: list[Any], result: Any) -> None:
        """Compare a result with the limit, even if it is reused.

        Raises:
            DataError: TG0220, too large a share of the rows is quarantined.
        """
        if node.folder in OWN_LIMIT or not isinstance(result, TicketTable | Splits | DatasetRef | EvalSet):
            return
        left = self._left(before)
        if left is not None and count_faulty(result):
            left.check(result)

    def _left(self, before: list[Any]) -> FaultLimit | None:
        stages = tuple(result for result in before if isinstance(result, TicketTable | Splits))
        made = tuple(result for result in before if isinstance(result, DatasetRef | EvalSet))
        return FaultLimit(self._table.fail_above, stages, made) if stages else None


def guarded_run(
    graph: Graph, spec: DataPipeline, store: Store, settings: Settings, *, observer: Observer, live: Any = None
) -> Run:
    """Make the execution of a pipeline's graph, with the limit as its guard and the resources of the settings."""
    guard = QuarantineGuard(spec.table)
    return Run(graph, store, observer=observer, guard=guard, live=live, budget=budget_of(settings))
