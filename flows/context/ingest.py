"""Before a run reads its source: ingest it from a remote service, or copy a database that another program is writing.

`tunegate plan`, `reproduce` and `report` never do this: they contact no service.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.context.as_of import check_ingested
from flows.context.run_context import RunContext
from flows.graph.graph import Node, Scope
from flows.privacy.index import remove_copies
from flows.privacy.keys import load_forgotten
from flows.workspace.settings import Settings
from schemas.errors import TunegateError
from schemas.pipeline import DataPipeline
from schemas.source import SourceSpec
from tasks.sources.kind import Ingested
from tasks.sources.registry import check_source, ingest_source, ingested, kind_of, source_folder
from tasks.step import StepInfo


def landed_folder(settings: Settings, pipeline: str) -> Path:
    """Return the folder that a pipeline's sources are ingested to; each pipeline has its own."""
    return settings.home / "ingest" / pipeline


@contextmanager
def ingested_source(run: RunContext) -> Iterator[None]:
    """Ingest the source as it is now; it can be read while the block runs."""
    spec, landed = run.spec, landed_folder(run.settings, run.spec.name)
    kind, folder = kind_of(spec.source), source_folder(spec.source, landed)
    if folder is None:
        yield
        return
    if run.request.as_of is not None and kind.is_remote:
        when = check_ingested(spec.source, landed, run.request.as_of)
        run.listeners.noted(f"{when}; not ingested again with --as-of")
        yield
        return
    forgotten = load_forgotten(run.settings)
    # Only for the listeners: what is ingested is not a result in the store.
    node = Node("ingest", ingest_source, Ingested, {}, Scope("curate"), "effect", StepInfo("ingest"))

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
            remove_copies(run.settings, folder, forgotten)


def source_fault(source: SourceSpec, *, pipeline: str) -> TunegateError | None:
    """Return what is wrong with the source, as far as it shows without contacting it; None if nothing is."""
    try:
        check_source(source)
    except TunegateError as error:
        error.where = f"{pipeline}.{error.where}"
        return error
    return None


def ingested_summary(spec: DataPipeline, settings: Settings) -> str | None:
    """What is here of a remote source, for commands that open no connection; None for any other source."""
    kind = kind_of(spec.source)
    if not kind.is_remote:
        return None
    here = ingested(spec.source, landed=landed_folder(settings, spec.name))
    if here is None:
        return f"{kind.name}: nothing has been ingested yet; a plan contacts no service, the next run does"
    return f"{kind.summary(spec.source, here)}; a plan contacts no service, the next run does"
