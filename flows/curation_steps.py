"""Add `curate.steps` of a pipeline to the graph."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import tasks.curate.steps  # noqa: F401  registers the kinds of steps
from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.workspace.ray_cluster import spread_of
from schemas.artifacts import ModelRef, Perplexities, TicketTable
from schemas.curation_steps import CurateStep, QualityStep, RedactStep
from schemas.errors import ConfigError, TunegateError
from schemas.named_tables import NamedTable
from schemas.pipeline import DataPipeline, PipelineSpec
from schemas.tables import NO_TABLES, Relations
from tasks.compute.spread import Spread
from tasks.curate.corrections import corrections_file, read_corrections
from tasks.curate.named_tables import tables_used
from tasks.curate.redaction.pseudonyms import fingerprint_key
from tasks.curate.step import kind_of
from tasks.model.perplexity import measure_perplexity
from tasks.monitor.learn import learn_from_feedback

Named = tuple[str, TicketTable]
"""A step's name in the ledger, and the table after it."""


def add_curation_steps(
    graph: Graph,
    spec: DataPipeline,
    context: GraphContext,
    *,
    tickets: TicketTable,
    base_model: ModelRef | None,
    corrected: TicketTable | None,
) -> tuple[Named, ...]:
    """Add the steps in order; consecutive rules are one step. A second step `rules` is named `rules · 2`.

    Tickets from agents' feedback are added after the last redaction, or first if nothing is redacted.
    """
    groups, spread = list(_grouped(spec.curate.steps)), spread_of(context.place)
    kept = _kept_rules(spec, context.root)
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
        kind = kind_of(group[0]).name
        numbers[kind] += 1
        number = str(numbers[kind]) if numbers[kind] > 1 else ""
        table = found[-1][1] if found else tickets
        adder = _Adder(graph, context.root, table, base_model, spread, number, spec.tables)
        adder = replace(adder, corrected=corrected, kept=kept)
        found.append((f"{kind}_{number}" if number else kind, adder.add(group)))
        if place == learns_at:
            learn()
    return tuple(found)


def _kept_rules(spec: DataPipeline, root: Path) -> frozenset[str]:
    """The rules in spite of which corrections keep a ticket: a step that has none of them does not wait for them."""
    if spec.curate.corrections is None:
        return frozenset()
    found = read_corrections(corrections_file(spec.curate.corrections, root))
    return frozenset(each.rule for each in found if each.rule is not None)


def _grouped(declared: tuple[CurateStep, ...]) -> Iterator[tuple[CurateStep, ...]]:
    for kind, group in groupby(declared, key=kind_of):
        if kind.joined:
            yield tuple(group)
        else:
            yield from ((step,) for step in group)


def _learned(graph: Graph, spec: DataPipeline, context: GraphContext, tickets: TicketTable) -> TicketTable | None:
    """Return the tickets with those from agents' feedback; None if there are none."""
    state, feedback = context.feedback, spec.feedback if isinstance(spec, PipelineSpec) else None
    if state is None or feedback is None or not (feedback.learn or feedback.own_answers == "drop"):
        return None
    database = context.feedback_database
    if database is None:
        raise TypeError("there is feedback, but no database of it")
    return graph.named("feedback", reads={"digest": state.digest}).add(
        learn_from_feedback, tickets=tickets, spec=feedback, upto=state.last, database=database
    )


@dataclass(frozen=True)
class _Adder:
    """Adds one declared step to the graph, or several that run together."""

    graph: Graph
    root: Path
    tickets: TicketTable
    base_model: ModelRef | None
    spread: Spread | None
    number: str
    tables: Mapping[str, NamedTable]
    corrected: TicketTable | None = None
    kept: frozenset[str] = frozenset()
    """Rules in spite of which corrections keep a ticket."""

    def add(self, group: tuple[CurateStep, ...]) -> TicketTable:
        step, kind = group[0], kind_of(group[0])
        used = tables_used(self.tables, [kind.sql(each, self.root) for each in group], self.root)
        reads = {**kind.reads(step, self.root), **({"tables": used} if used else {})}
        offered: dict[str, Callable[[], Any]] = {
            "tickets": lambda: self.tickets,
            "spread": lambda: self.spread,
            "tables": lambda: used,
            "kept": lambda: (
                self.corrected if self.kept & {rule for each in group for rule in kind.rules(each)} else None
            ),
            "perplexities": lambda: self._perplexities(step),
        }
        named = self.graph.named(kind.name, self.number, reads=reads, libraries=kind.libraries(step))
        return named.add(kind.run, **kind.arguments_of(group, offered, root=self.root))

    def _perplexities(self, step: CurateStep) -> Perplexities | None:
        if not isinstance(step, QualityStep) or not step.perplexity or self.base_model is None:
            return None
        return self.graph.named("perplexity", self.number).add(
            measure_perplexity, tickets=self.tickets, model=self.base_model
        )


def declaration_faults(
    declared: tuple[CurateStep, ...], *, pipeline: str, root: Path, tables: Relations = NO_TABLES
) -> list[TunegateError]:
    """Return what is wrong with the SQL and the functions that the steps name, without running them.

    A run would find the same, but only once it reaches the step.

    Args:
        tables: Columns of the named tables.
    """
    faults: list[TunegateError] = []
    for step in declared:
        try:
            kind_of(step).check(step, root, f"{pipeline}.curate", tables)
        except TunegateError as error:
            faults.append(error)
    return faults


def declaration_advice(declared: tuple[CurateStep, ...], *, root: Path) -> list[str]:
    """Return sentences about valid steps that probably do not do what the user wants."""
    advice: list[str] = []
    for step in declared:
        # A step with a fault is reported by `declaration_faults`.
        with suppress(TunegateError):
            advice += [f"curate.{step.uses}.{step.label}: {sentence}" for sentence in kind_of(step).advise(step, root)]
        if isinstance(step, RedactStep):
            try:
                fingerprint_key(step)
            except ConfigError as error:  # a file is valid on a machine that lacks the key
                advice.append(f"curate.redact: {error.message}: {error.hint}")
    return advice
