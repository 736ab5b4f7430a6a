"""The encoded train examples that `tunegate data preview` shows, made where they are missing."""

from __future__ import annotations

from pathlib import Path

from flows.build import build
from flows.cli.text.progress import StepTimes
from flows.context.graph_context import context_of
from flows.context.previous_run import find_previous_run
from flows.context.registry_state import registry_state_of
from flows.context.run_context import new_run_id
from flows.graph.execute import run_plainly
from flows.ledger.opened import open_ledger, open_store
from flows.run.contract import judge_checks
from flows.run.quarantine_guard import guarded_run
from flows.workspace.clock import present
from flows.workspace.settings import load_settings
from schemas.artifacts import DatasetRef, ModelRef
from schemas.load import load_file


def encode_examples(pipeline: str, config: Path) -> tuple[DatasetRef, ModelRef]:
    """The encoded train split and the base model, from the store where they are there already.

    Raises:
        DataError: TG0222, a check of the data with severity `fail` did not pass.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    store, ledger = open_store(settings), open_ledger(settings)
    with ledger.pipeline_lock(pipeline, wait_s=0.0, run_id=new_run_id()):
        state, previous = registry_state_of(spec, ledger), find_previous_run(ledger, store, pipeline)
        context = context_of(spec, settings, root=config.resolve().parent, registry_state=state, previous_run=previous)
        declared = build(spec, context)
        run = guarded_run(declared.graph, spec, store, settings, observer=StepTimes())
        tuned, checks = declared.tuned, declared.curated.checks
        if checks is not None:
            run_plainly(run, targets=(checks,))
            judge_checks(pipeline, run.result(checks), now=present())
        run_plainly(run, targets=(tuned.first_dataset, tuned.first_model))
    return run.result(tuned.first_dataset), run.result(tuned.first_model)
