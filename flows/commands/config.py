"""`tunegate validate` and `tunegate schema`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

from flows.commands.output import out, print_json, talk
from flows.context.ingest import source_fault
from flows.curation_steps import declaration_faults
from schemas.editor import editor_schema_text
from schemas.errors import TunegateError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.training_rules import training_advice


def validate(*, config: Path, as_json: bool) -> int:
    """Load the file, whose errors come all at once, then check the sources, the SQL and the functions that it names.

    Raises:
        TunegateError: the first fault of those; the others are told on stderr before it.
    """
    loaded = load_file(config)
    names = sorted(loaded.pipelines)
    faults: dict[str, TunegateError] = {}  # by words: what several pipelines inherit is told once
    for name in loaded.pipelines:
        steps = loaded.pipelines[name].curate.steps
        about_source = source_fault(loaded.pipelines[name])
        found = declaration_faults(steps, pipeline=name, root=loaded.root)
        for fault in (*([about_source] if about_source else ()), *found):
            faults.setdefault(f"{fault.code} {fault.message} {(fault.where or '').removeprefix(name)}", fault)
    first, *others = [*faults.values(), None]
    for fault in filter(None, others):
        talk().print(f"{fault}\n", markup=False, soft_wrap=True)
    if first is not None:
        raise first
    advice = advice_by_pipeline(loaded.pipelines)
    for told, where in advice.items():
        talk().print(f"[yellow]warning[/yellow] {escape(told)} ({', '.join(where)})", soft_wrap=True)
    if as_json:
        print_json({"file": str(config), "pipelines": names, "warnings": list(advice)})
    else:
        out().print(f"{config}: {len(names)} pipelines are valid: {', '.join(names)}")
    return 0


def advice_by_pipeline(pipelines: Mapping[str, PipelineSpec]) -> dict[str, list[str]]:
    """Each piece of advice once, with the pipelines that it is for."""
    found: dict[str, list[str]] = {}
    for name in sorted(pipelines):
        for told in training_advice(pipelines[name].train):
            found.setdefault(told, []).append(name)
    return found


def schema() -> int:
    """Print the schema that editors use, byte for byte as it is committed."""
    sys.stdout.write(editor_schema_text())
    return 0
