"""What `tunegate validate` finds beyond the file itself: in the sources, the SQL and the functions that it names."""

from __future__ import annotations

from pathlib import Path

from flows.context.ingest import source_fault
from flows.curation_steps import declaration_advice, declaration_faults
from schemas.errors import TunegateError
from schemas.load import PipelineFile
from schemas.metrics import traits_by_name
from schemas.pipeline import PipelineSpec
from schemas.training_advice import training_advice
from tasks.assess.limits import gate_warnings
from tasks.corpus.build import corpus_faults
from tasks.curate.data_checks import check_faults
from tasks.model.model_uri import parse_model_uri


def address_fault(uri: str) -> TunegateError | None:
    """Return what is wrong with the address of a base model; None if nothing is. Reads no file, opens no connection."""
    try:
        parse_model_uri(uri)
    except TunegateError as error:
        return error
    return None


def faults_of(loaded: PipelineFile) -> list[TunegateError]:
    """Every fault once: what several pipelines inherit is one fault, with the place of the first."""
    faults: dict[str, TunegateError] = {}
    for name, spec in loaded.pipelines.items():
        about_source = source_fault(spec)
        found = declaration_faults(spec.curate.steps, pipeline=name, root=loaded.root)
        about_checks = check_faults(spec.checks, loaded.root)
        about_corpus = corpus_faults(spec.evaluate.corpus, loaded.root)
        for fault in (*([about_source] if about_source else ()), *found, *about_checks, *about_corpus):
            faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    return list(faults.values())


def advice_on(spec: PipelineSpec, *, root: Path, n_items: int | None = None) -> list[str]:
    """Return what is allowed but worth a second look, one sentence each.

    Args:
        root: Folder of pipelines.yaml.
        n_items: Held-out items if they are known.
    """
    about_gates = gate_warnings(
        spec.judged_gates,
        traits=traits_by_name(spec.evaluate.traits()),
        n_items=spec.evaluate.max_items if n_items is None else n_items,
    )
    return [*training_advice(spec.train), *declaration_advice(spec.curate.steps, root=root), *about_gates]


def advice_by_pipeline(loaded: PipelineFile) -> dict[str, list[str]]:
    """Return each piece of advice once, with the pipelines that it is for."""
    found: dict[str, list[str]] = {}
    for name, spec in sorted(loaded.pipelines.items()):
        for sentence in advice_on(spec, root=loaded.root):
            found.setdefault(sentence, []).append(name)
    return found
