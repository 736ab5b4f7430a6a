"""What a change of pipelines.yaml does to the tickets, before anything is trained: `tunegate plan --against COMMIT`.

The present source is curated twice, as the files next to pipelines.yaml declare now and as they did in a commit of git.
Results that are stored are read; others are made in a temporary folder, so that neither store nor ledger is written.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.context.graph_context import GraphContext
from flows.curate import Curated, curate
from flows.forecast.planned_run import PlannedRun, plan_pipeline
from flows.graph.execute import NodeOutcome, Observer, Run
from flows.graph.graph import Graph, Node
from flows.graph.store import Store
from flows.run.guarded_run import guarded_run
from flows.views.data_diff import DataDiff
from flows.workspace.commit import Commit
from schemas.artifacts import Artifact, Splits, TicketTable
from schemas.curation_steps import RedactStep
from schemas.errors import TunegateError
from schemas.load import load_file
from schemas.pipeline import DataPipeline
from tasks.curate.rows import read_rows
from tasks.curate.table_diff import TableState, diff_tables
from tasks.sources.registry import fingerprint_source, ingest_source, kind_of

CODE = (".py", ".sql", ".yaml", ".yml")
"""Files that decide what curation does, besides named tables."""


def row_changes(
    pipeline: str, config: Path, commit: str, *, as_of: str | None = None, given: tuple[str, ...] = ()
) -> DataDiff:
    """Compare the tickets as the commit curates them with those of the present files.

    The tickets are those of the source as it is now. Options as of `plan_pipeline`.

    Raises:
        ConfigError: TG0159, git has no such commit, or none of this file.
        TunegateError: one of the two cannot be read, or its curation fails.
    """
    now = plan_pipeline(pipeline, config, as_of=as_of, given=given)
    root = config.resolve().parent
    files = Commit(root, commit)
    with tempfile.TemporaryDirectory(prefix="tunegate-against-") as aside:
        folder = Path(aside)
        past_root = folder / "past"
        files.write((name for name in files.names if name.endswith(CODE)), past_root)
        try:
            past = load_file(past_root / config.name, settings=given, only=pipeline).find(pipeline)
            _write_tables(files, past, root, past_root)
        except TunegateError as error:
            error.where = f"{files.commit[:12]}: {error.where or config.name}".replace(f"{past_root}{os.sep}", "")
            raise
        store = Store(folder / "made")
        context = _context(now, folder, root)
        states: list[TableState] = []
        for name, spec, given_context in (
            (files.commit[:12], past, replace(context, root=past_root)),
            (config.name, now.spec, context),
        ):
            fingerprint = fingerprint_source(spec.source, root=root, landed=given_context.landed)
            try:
                made = _curate(spec, replace(given_context, fingerprint=fingerprint), now, store)
            except TunegateError as error:
                error.where = f"{name}: {error.where or pipeline}".replace(f"{past_root}{os.sep}", "")
                raise
            states.append(_state(spec, *made, _folder(folder / f"state_{len(states)}")))
        tables = diff_tables(*states)
    heads = [
        {"asked": asked, "pipeline": pipeline, "snapshot": "", "run": "", "made_at": ""}
        for asked in (f"{config.name} of {files.commit[:12]}", f"{config.name} now")
    ]
    return DataDiff(heads[0], heads[1], tables)


def _context(now: PlannedRun, folder: Path, root: Path) -> GraphContext:
    """That of the plan; a database that another program writes is copied first."""
    context = replace(now.context, source_root=root)
    if kind_of(now.spec.source).is_remote:
        return context
    landed = folder / "landed"
    ingest_source(now.spec.source, root=root, landed=landed)
    return replace(context, landed=landed)


def _curate(spec: DataPipeline, context: GraphContext, now: PlannedRun, store: Store) -> tuple[Curated, Run]:
    """Make the steps that lead to the splits, unless they are stored."""
    graph = Graph()
    curated = curate(graph, spec.model_copy(update={"checks": ()}), context)
    run = guarded_run(graph, spec, now.run.store, now.settings, observer=Observer())
    clean: Any = curated.clean
    last = graph.nodes[graph.name_of(clean)]
    needed = {*graph.ancestors(last), last}
    for node in [each for each in graph.nodes.values() if each in needed]:
        run.end(node, run.decide(node, deep=False) or _made(run, node, store))
    return curated, run


def _made(run: Run, node: Node, store: Store) -> NodeOutcome:
    def produce(out: Path) -> Artifact:
        return run.call(node, out=out, scratch=None)

    made = store.obtain(node.folder, run.parts(node).key, node.returns, produce)
    return NodeOutcome(made.artifact, made.key, made.reused, made.seconds)


def _state(spec: DataPipeline, curated: Curated, run: Run, folder: Path) -> TableState:
    """The state as its files, with the removed rows of all steps in one."""
    split, clean = run.result(curated.split), run.result(curated.clean)
    tables = {name: run.result(table) for name, table in curated.tables}
    steps: list[tuple[str, TicketTable | Splits]] = [*tables.items(), ("split", split), ("decontaminate", clean)]
    removed = [(name, read_rows(each.removed)) for name, each in steps]
    listed = [rows.add_column(0, "step", pa.repeat(pa.scalar(name), rows.num_rows)) for name, rows in removed]
    pq.write_table(pa.concat_tables(listed), folder / "removed.parquet")
    order = pa.table({"position": list(range(1, len(steps) + 1)), "step": [name for name, _ in steps]})
    pq.write_table(order, folder / "funnel.parquet")
    return TableState(
        train=clean.train,
        validation=clean.validation,
        test=clean.test,
        removed=folder / "removed.parquet",
        funnel=folder / "funnel.parquet",
        raw=tables["extract"].tickets,
        tables={name: table.tickets for name, table in tables.items() if name != "extract"},
        is_redacted=any(isinstance(step, RedactStep) for step in spec.curate.steps),
    )


def _write_tables(files: Commit, spec: DataPipeline, root: Path, past: Path) -> None:
    """Put named tables and corrections where the past declaration looks for them; those outside git as they are."""
    paths = {table.path for table in spec.tables.values()}
    paths |= {spec.curate.corrections} if spec.curate.corrections else set()
    files.write(paths & files.names, past)
    for path in paths - files.names:
        place, now = (past / path).resolve(), (root / path).resolve()
        if place.is_relative_to(past.resolve()) and now.is_relative_to(root) and now.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(now.read_bytes())


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
