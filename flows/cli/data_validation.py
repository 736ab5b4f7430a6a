"""What is in the files that a pipelines.yaml names, base models and sources: for `validate --data` and `plan`.

Every source is read as a run reads it, into a folder that is removed. Contacts no service: of a remote source it reads
what was ingested last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from flows.cli.validation import Declared, address_fault
from flows.context.ingest import landed_folder, source_fault
from flows.privacy.keys import load_forgotten
from flows.workspace.settings import Settings
from schemas.artifacts import RowCounts, TicketTable
from schemas.candidates import base_models
from schemas.errors import DataError, TunegateError
from schemas.source import SourceSpec
from schemas.template import template_columns
from tasks.curate.extract import extract_tickets
from tasks.curate.row_faults import FaultLimit
from tasks.curate.validate import validate_tickets
from tasks.model.base_model import fingerprint_base_model
from tasks.sources.ingest import ingest_source, ingested
from tasks.sources.registry import fingerprint_source, kind_of, place_of

MAKES_COLUMNS = ("sql", "python")
"""Steps that may fill a column which the source lacks."""


class DataFindings(NamedTuple):
    """What is in the files of all pipelines."""

    faults: list[TunegateError]
    """Each once: what several pipelines share is one fault."""
    rows: dict[str, RowCounts]
    """Pipeline -> rows of its source, if that can be read."""
    unread: list[str]
    """Pipelines whose remote source has not been ingested yet."""


def check_data(pipelines: Mapping[str, Declared], settings: Settings, *, root: Path) -> DataFindings:
    """Read what the pipelines name, all of it, and collect every fault."""
    found = DataFindings([], {}, [])
    faults: dict[str, TunegateError] = {}
    for name, spec in pipelines.items():
        for fault in (*_model_faults(spec, root), *_source_faults(spec, root, settings, found)):
            faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    found.faults.extend(faults.values())
    return found


def _model_faults(spec: Declared, root: Path) -> Iterator[TunegateError]:
    for uri, _ in () if spec.train is None else base_models(spec.train):
        if address_fault(uri) is not None:
            continue  # the loader reports it
        try:
            fingerprint_base_model(uri, root=root)
        except TunegateError as error:
            error.where = error.where or f"{spec.name}.train.base_model"
            yield error


def _source_faults(spec: Declared, root: Path, settings: Settings, found: DataFindings) -> Iterator[TunegateError]:
    if spec.source is None or source_fault(spec.source, pipeline=spec.name) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="tunegate-validate-") as aside:
        try:
            table = read_source(spec.source, root, settings, aside=Path(aside), pipeline=spec.name)
        except TunegateError as error:
            error.where = f"{spec.name}.source, {error.where}"
            yield error
            return
        if table is None:
            found.unread.append(spec.name)
            return
        found.rows[spec.name] = table.rows
        try:
            yield from missing_columns(spec, table, aside=Path(aside))
        except DataError as error:
            yield error


def read_source(
    source: SourceSpec, root: Path, settings: Settings, *, aside: Path, pipeline: str, as_of: str | None = None
) -> TicketTable | None:
    """Read the source as a run does, into an empty folder; None of a remote source that was never ingested.

    Raises:
        TunegateError: as `extract_tickets` and `ingest_source`.
    """
    landed = landed_folder(settings, pipeline)
    if kind_of(source).is_remote:
        if ingested(source, landed=landed) is None:
            return None
    else:  # a database that another program writes is copied first
        landed = aside / "landed"
        ingest_source(source, root=root, landed=landed)
    out = aside / "out"
    out.mkdir()
    return extract_tickets(
        out, source=source, fingerprint=fingerprint_source(source, root=root, landed=landed),
        place=place_of(source, root=root, landed=landed), forgotten=load_forgotten(settings), as_of=as_of,
    )  # fmt: skip


def _empty_columns(tickets: Path) -> set[str]:
    """Columns without a value in any ticket."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(tickets).read()  # `read_table` imports pandas
    return {name for name in table.column_names if table.column(name).null_count == table.num_rows}


def missing_columns(spec: Declared, table: TicketTable, *, aside: Path) -> list[TunegateError]:
    """Columns that the pipeline needs and that no ticket of its source has.

    Raises:
        DataError: TG0220, TG0221, as a run at its step `validate`: too many rows are faulty, so what they lack says
            nothing of the columns.
    """
    try:
        if spec.table is not None:
            FaultLimit(spec.table.fail_above, (table,)).check()
        missing = list(_column_faults(spec, table))
        if spec.table is not None and not missing:
            out = aside / "valid"
            out.mkdir()
            validate_tickets(out, tickets=table, table=spec.table)
    except DataError as error:
        error.where = f"{spec.name}.source"
        raise
    return missing


def _column_faults(spec: Declared, table: TicketTable) -> Iterator[TunegateError]:
    """None if a step may make the column."""
    if spec.curate is None or any(step.uses in MAKES_COLUMNS for step in spec.curate.steps):
        return
    empty = _empty_columns(table.tickets)
    for column, needed_by in _needed_columns(spec).items():
        if column in empty:
            yield DataError(
                f"no ticket of the source has `{column}`, which {needed_by} needs", code="TG0204",
                where=f"{spec.name}.source", hint=f"source.columns: {{{column}: THEIR_NAME}}",
            )  # fmt: skip


def _needed_columns(spec: Declared) -> dict[str, str]:
    """Column -> the first key that needs it, of the sections that can be read."""
    needed: dict[str, str] = dict.fromkeys(spec.table.required if spec.table is not None else (), "schema.required")
    if spec.train is not None:
        for key in ("system", "user", "answer"):
            for column in template_columns(getattr(spec.train.prompt, key)):
                needed.setdefault(column, f"train.prompt.{key}")
    if spec.evaluate is None:
        return needed
    for column in spec.evaluate.slices:
        needed.setdefault(column, "evaluate.slices")
    routing = spec.evaluate.routing_field
    if routing is not None and {"majority", "tfidf"} & set(spec.evaluate.arms):
        needed.setdefault(routing, "evaluate.routing_field")
    return needed
