"""Before a run reads its source: ingest what a connection reaches, or copy what another program is writing.

`tunegate plan`, `reproduce` and `report` never come here: they open no connection. Called by `flows/run/open_run.py`.
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
from tasks.sources.ingest import check_source, ingest_source, ingested, source_folder
from tasks.sources.kind import Ingested
from tasks.sources.registry import kind_of
from tasks.step import StepInfo

if TYPE_CHECKING:
    from flows.context.run_context import RunContext
    from flows.workspace.settings import Settings
    from schemas.pipeline import PipelineSpec


def landed_folder(settings: Settings, pipeline: str) -> Path:
    """Where a pipeline's sources are ingested; no two pipelines share a folder."""
    return settings.home / "ingest" / pipeline


@contextmanager
def source_at_hand(run: RunContext) -> Iterator[None]:
    """The source as it is now can be read while the block runs."""
    spec, landed = run.spec, landed_folder(run.settings, run.spec.name)
    kind, folder = kind_of(spec.source), source_folder(spec.source, landed)
    if folder is None:
        yield
        return
    forgotten = load_forgotten(run.settings)
    # For listeners only: what is ingested is no result of the store.
    node = Node("ingest", ingest_source, Ingested, {}, Scope("curate"), "act", StepInfo("ingest"))

    def progress(done: int, total: int | None, unit: str, **figures: float) -> None:
        run.listeners.progressed(node, done, total, unit, figures)

    run.listeners.started(node)
    try:
        here = ingest_source(spec.source, root=run.root, landed=landed, forgotten=forgotten, progress=progress)
        if here is not None:
            run.listeners.noted(kind.summary(spec.source, here))
        yield
    finally:
        kind.release(folder)
        if forgotten is not None:
            let_go(run.settings, folder, forgotten)


def source_fault(spec: PipelineSpec) -> TunegateError | None:
    """What is wrong with the source, as far as is known without a connection; its place begins with the pipeline."""
    try:
        check_source(spec.source)
    except TunegateError as error:
        error.where = f"{spec.name}.{error.where}"
        return error
    return None


def ingested_summary(spec: PipelineSpec, settings: Settings) -> str | None:
    """What is here of a remote source, for commands that open no connection; None for any other source."""
    kind = kind_of(spec.source)
    if not kind.is_remote:
        return None
    here = ingested(spec.source, landed=landed_folder(settings, spec.name))
    if here is None:
        return f"{spec.source.kind}: nothing has been ingested yet; a plan opens no connection, the next run does"
    return f"{kind.summary(spec.source, here)}; a plan opens no connection, the next run does"
