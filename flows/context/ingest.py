"""Before a run reads its source: bring in what lies behind a connection, or copy what another program is writing.

`tunegate plan`, `reproduce` and `report` never come here: they ask no service. Called by `flows/run/open_run.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.graph.graph import Node, Scope
from flows.privacy.index import let_go
from flows.privacy.keys import load_forgotten
from schemas.errors import TunegateError
from schemas.remote_files import RemoteFilesSource
from schemas.remote_source import RemoteSource
from tasks.curate.ingest.bring import Brought, bring_in, brought, check_source, ingest_folder
from tasks.curate.ingest.in_use import forget_copy
from tasks.step import StepInfo

if TYPE_CHECKING:
    from flows.context.run_context import RunContext
    from flows.workspace.settings import Settings
    from schemas.pipeline import PipelineSpec


def landed_folder(settings: Settings, pipeline: str) -> Path:
    """Where a pipeline's sources are brought in; one pipeline's run is in no other's way."""
    return settings.home / "ingest" / pipeline


@contextmanager
def source_at_hand(run: RunContext) -> Iterator[None]:
    """The source as it is now can be read while the block runs."""
    spec, landed = run.spec, landed_folder(run.settings, run.spec.name)
    folder = ingest_folder(spec.source, landed)
    if folder is None:
        yield
        return
    forgotten = load_forgotten(run.settings)
    # Only for who listens: what is ingested is no result of the store.
    node = Node("ingest", bring_in, Brought, {}, Scope("curate"), "act", StepInfo("ingest"))

    def progress(done: int, total: int | None, unit: str, **figures: float) -> None:
        run.listeners.progressed(node, done, total, unit, figures)

    run.listeners.started(node)
    try:
        here = bring_in(spec.source, root=run.root, landed=landed, forgotten=forgotten, progress=progress)
        if here is not None:
            run.listeners.noted(told(spec, here))
        yield
    finally:
        forget_copy(folder)
        if forgotten is not None:
            let_go(run.settings, folder, forgotten)


def told(spec: PipelineSpec, here: Brought) -> str:
    """What lies here of a source, in words."""
    if spec.source.kind == "duckdb":
        return "the DuckDB file is open for writing elsewhere: reading a copy of its last committed state"
    gone = f", {here.n_gone:,} of them deleted upstream" if here.n_gone else ""
    return f"{spec.source.kind}: {here.n_rows:,} {here.unit} brought in{gone}, as of {here.finished_at}"


def source_fault(spec: PipelineSpec) -> TunegateError | None:
    """What is wrong with the source, as far as it can be told without asking it; its place begins with the pipeline."""
    try:
        check_source(spec.source)
    except TunegateError as error:
        error.where = f"{spec.name}.{error.where}"
        return error
    return None


def told_without_asking(spec: PipelineSpec, settings: Settings) -> str | None:
    """The same for a plan, which asks no service; None for a source that is read where it lies."""
    if not isinstance(spec.source, RemoteSource | RemoteFilesSource):
        return None
    here = brought(spec.source, landed=landed_folder(settings, spec.name))
    if here is None:
        return f"{spec.source.kind}: nothing has been brought in yet; a plan asks no service, the next run does"
    return f"{told(spec, here)}; a plan asks no service, the next run does"
