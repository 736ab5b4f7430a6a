"""The columns that a pipeline needs: found missing in its source by `validate --data`, in its tickets by a run."""

from pathlib import Path

from flows.context.run_context import RunContext
from schemas.artifacts import Splits
from schemas.check import Declared, sections_of
from schemas.errors import DataError
from schemas.template import PASSAGES, template_columns

LEARNED = "train.prompt.answer"


def needed_columns(declared: Declared) -> dict[str, str]:
    """Column -> the first key that needs it, of the sections that can be read."""
    spec = sections_of(declared)
    needed: dict[str, str] = dict.fromkeys(spec.table.required if spec.table is not None else (), "schema.required")
    if spec.train is not None:
        for key in ("system", "user", "answer"):
            for column in template_columns(getattr(spec.train.prompt, key)):
                if column != PASSAGES:
                    needed.setdefault(column, f"train.prompt.{key}")
    if spec.evaluate is None:
        return needed
    for column in spec.evaluate.slices:
        needed.setdefault(column, "evaluate.slices")
    if spec.gates is not None and spec.gates.cluster_by is not None:
        needed.setdefault(spec.gates.cluster_by, "gates.cluster_by")
    routing = spec.evaluate.routing_field
    if routing is not None and {"majority", "tfidf"} & set(spec.evaluate.arms):
        needed.setdefault(routing, "evaluate.routing_field")
    return needed


def is_empty(column: str, *tickets: Path) -> bool:
    """Whether no ticket of these files has a value; reads up to the first one."""
    import pyarrow.parquet as pq

    batches = (batch for path in tickets for batch in pq.ParquetFile(path).iter_batches(columns=[column]))
    return all(batch.column(0).null_count == batch.num_rows for batch in batches)


def no_ticket_has(column: str, needed_by: str, *, pipeline: str) -> DataError:
    """Make the error (TG0204) for a column that is needed and always empty."""
    return DataError(
        f"no ticket of the source has `{column}`, which {needed_by} needs", code="TG0204",
        where=f"{pipeline}.source", hint=f"source.columns: {{{column}: THEIR_NAME}}",
    )  # fmt: skip


def check_columns(run: RunContext, *, clean: Splits, last: Splits | None) -> None:
    """End a run whose curated tickets have nothing to learn; note other columns that are needed and always empty.

    Args:
        last: The split of the last complete run.

    Raises:
        DataError: TG0204, no ticket has the answer, or none has a time any more and the last split was by time.
    """
    spec = run.spec
    for column, needed_by in needed_columns(spec).items():
        if is_empty(column, clean.train, clean.validation, clean.test):
            fault = no_ticket_has(column, needed_by, pipeline=spec.name)
            if needed_by == LEARNED:
                raise fault
            run.listeners.noted(f"{fault.message}; {fault.hint}")
    was_by_time = spec.split.stable and last is not None and last.cut is not None
    if spec.split.by_time and clean.cut is None and was_by_time:
        raise DataError(
            "no ticket has `created_at` any more, and the last split was by time: a new one would hold out tickets "
            "that were trained on, and train on held-out ones",
            code="TG0204",
            where=f"{spec.name}.source",
            hint="source.columns: {created_at: THEIR_NAME}; split.by_time: false begins a new split all the same",
        )
