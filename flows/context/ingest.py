"""Before a run reads its source: ingest it from a remote service, or copy a database that another program is writing.

`tunegate plan`, `reproduce` and `report` never do this: they contact no service. Called by `flows/run/open_run.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.graph.graph import Node, Scope
from flows.privacy.index import remove_copies
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
    """Return the folder that a pipeline's sources are ingested to; each pipeline has its own."""
    return settings.home / "ingest" / pipeline


@contextmanager
def ingested_source(run: RunContext) -> Iterator[None]:
    """Ingest the source as it is now; it can be read while the block runs."""
    spec, landed = run.spec, landed_folder(run.settings, run.spec.name)
    folder = ingest_folder(spec.source, landed)
    if folder is None:
        yield
        return
    forgotten = load_forgotten(run.settings)
    # Only for the listeners: what is ingested is not a result in the store.
    node = Node("ingest", bring_in, Brought, {}, Scope("curate"), "act", StepInfo("ingest"))

    def progress(done: int, total: int | None, unit: str, **figures: float) -> None:
        run.listeners.progressed(node, done, total, unit, figures)

    run.listeners.started(node)
    try:
        here = bring_in(spec.source, root=run.root, landed=landed, forgotten=forgotten, progress=progress)
        if here is not None:
            run.listeners.noted(describe_ingested(spec, here))
        yield
    finally:
        forget_copy(folder)
        if forgotten is not None:
            remove_copies(run.settings, folder, forgotten)


def describe_ingested(spec: PipelineSpec, here: Brought) -> str:
    """Describe what has been ingested from a source."""
    if spec.source.kind == "duckdb":
        return "another program has the DuckDB file open for writing: reading a copy of its last committed state"
    gone = f", {here.n_gone:,} of them deleted upstream" if here.n_gone else ""
    return f"{spec.source.kind}: {here.n_rows:,} {here.unit} ingested{gone}, as of {here.finished_at}"


def source_fault(spec: PipelineSpec) -> TunegateError | None:
    """Return what is wrong with the source, as far as it shows without contacting it; None if nothing is."""
    try:
        check_source(spec.source)
    except TunegateError as error:
        error.where = f"{spec.name}.{error.where}"
        return error
    return None


def describe_for_plan(spec: PipelineSpec, settings: Settings) -> str | None:
    """Describe it for a plan, which contacts no service; None for a source that is read in place."""
    if not isinstance(spec.source, RemoteSource | RemoteFilesSource):
        return None
    here = brought(spec.source, landed=landed_folder(settings, spec.name))
    if here is None:
        return f"{spec.source.kind}: nothing has been ingested yet; a plan contacts no service, the next run does"
    return f"{describe_ingested(spec, here)}; a plan contacts no service, the next run does"
