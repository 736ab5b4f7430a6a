"""What `tunegate validate` finds beyond the file itself: in the sources, the SQL and the functions that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from flows.context.ingest import source_fault
from flows.curation_steps import declaration_advice, declaration_faults
from schemas.check import ReadableSections
from schemas.comparison import with_comparison
from schemas.errors import TunegateError
from schemas.metrics import traits_by_name
from schemas.pipeline import PipelineSpec
from schemas.training_advice import prompt_advice, training_advice
from tasks.assess.limits import gate_warnings
from tasks.assess.user_metrics import sql_faults
from tasks.corpus.build import corpus_faults
from tasks.curate.data_checks import check_faults
from tasks.model.model_uri import parse_model_uri

Declared = PipelineSpec | ReadableSections
"""A valid pipeline, or what can be read of another."""


def address_fault(uri: str) -> TunegateError | None:
    """Return what is wrong with the address of a base model; None if nothing is. Reads no file, opens no connection."""
    try:
        parse_model_uri(uri)
    except TunegateError as error:
        return error
    return None


def faults_of(pipelines: Mapping[str, Declared], *, root: Path) -> list[TunegateError]:
    """Every fault once: what several pipelines inherit is one fault, with the place of the first."""
    faults: dict[str, TunegateError] = {}
    for name, spec in pipelines.items():
        for fault in _faults_of(spec, root):
            faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    return list(faults.values())


def _faults_of(spec: Declared, root: Path) -> Iterator[TunegateError]:
    about_source = None if spec.source is None else source_fault(spec.source, pipeline=spec.name)
    if about_source is not None:
        yield about_source
    if spec.curate is not None:
        yield from declaration_faults(spec.curate.steps, pipeline=spec.name, root=root)
    yield from check_faults(spec.checks or (), root)
    if spec.evaluate is not None:
        yield from corpus_faults(spec.evaluate.corpus, root)
        yield from sql_faults(spec.evaluate.metrics, where=f"{spec.name}.evaluate")


def advice_on(spec: Declared, *, root: Path, n_items: int | None = None) -> list[str]:
    """Return what is allowed but worth a second look, one sentence each.

    Args:
        root: Folder of pipelines.yaml.
        n_items: Held-out items if they are known.
    """
    advice = [] if spec.train is None else training_advice(spec.train)
    if spec.curate is not None:
        advice += declaration_advice(spec.curate.steps, root=root)
    if spec.train is not None and spec.evaluate is not None:
        advice += prompt_advice(spec.train, spec.evaluate)
    if spec.gates is not None and spec.evaluate is not None:
        advice += gate_warnings(
            with_comparison(spec.gates, spec.evaluate),
            traits=traits_by_name(spec.evaluate.traits()),
            n_items=spec.evaluate.max_items if n_items is None else n_items,
        )
    return advice


def advice_by_pipeline(pipelines: Mapping[str, Declared], *, root: Path) -> dict[str, list[str]]:
    """Return each piece of advice once, with the pipelines that it is for."""
    found: dict[str, list[str]] = {}
    for name, spec in sorted(pipelines.items()):
        for sentence in advice_on(spec, root=root):
            found.setdefault(sentence, []).append(name)
    return found
