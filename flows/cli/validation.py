"""What `tunegate validate` finds beyond the file itself: in the sources, the SQL and the functions that it names."""

from __future__ import annotations

from collections.abc import Mapping

from flows.context.ingest import source_fault
from flows.curation_steps import declaration_faults
from schemas.errors import TunegateError
from schemas.load import PipelineFile
from schemas.pipeline import PipelineSpec
from schemas.training_advice import training_advice


def faults_of(loaded: PipelineFile) -> list[TunegateError]:
    """Every fault once: what several pipelines inherit is one fault, with the place of the first."""
    faults: dict[str, TunegateError] = {}
    for name, spec in loaded.pipelines.items():
        about_source = source_fault(spec)
        found = declaration_faults(spec.curate.steps, pipeline=name, root=loaded.root)
        for fault in (*([about_source] if about_source else ()), *found):
            faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    return list(faults.values())


def advice_by_pipeline(pipelines: Mapping[str, PipelineSpec]) -> dict[str, list[str]]:
    """Each piece of advice once, with the pipelines that it is for."""
    found: dict[str, list[str]] = {}
    for name in sorted(pipelines):
        for sentence in training_advice(pipelines[name].train):
            found.setdefault(sentence, []).append(name)
    return found
