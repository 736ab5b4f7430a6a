"""`curate.steps` of a pipeline as steps of the engine. Called by `flows/curate.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from flows.engine.step import Step
from schemas.artifacts import TicketTable
from schemas.curation_steps import CurateStep, DedupStep, RedactStep, RuleStep
from tasks.curate.dedup import drop_duplicates
from tasks.curate.redact import redact_tickets
from tasks.curate.rules import apply_rules


def declared_steps(declared: tuple[CurateStep, ...], *, after: str) -> list[Step]:
    """One step each, in order; rules that stand next to each other are one. A second `rules` is named `rules_2`."""
    steps: list[Step] = []
    for group in _grouped(declared):
        kind = "rules" if isinstance(group[0], RuleStep) else group[0].uses
        number = sum(1 for step in steps if step.kind == kind)
        name = f"{kind}_{number + 1}" if number else kind
        steps.append(_step(group, name=name, kind=kind, after=steps[-1].name if steps else after))
    return steps


def _grouped(declared: tuple[CurateStep, ...]) -> Iterator[tuple[CurateStep, ...]]:
    for is_rule, group in groupby(declared, key=lambda step: isinstance(step, RuleStep)):
        if is_rule:
            yield tuple(group)
        else:
            yield from ((step,) for step in group)


def _step(group: tuple[CurateStep, ...], *, name: str, kind: str, after: str) -> Step:
    inputs, libraries = {"tickets": after}, ("duckdb", "pyarrow", "sqlglot")
    first = group[0]
    match first:
        case RuleStep():
            return Step(name, apply_rules, TicketTable, inputs, {"rules": group}, libraries=libraries, kind=kind)
        case RedactStep():
            return Step(name, redact_tickets, TicketTable, inputs, {"step": first}, libraries=libraries, kind=kind)
        case DedupStep():
            return Step(name, drop_duplicates, TicketTable, inputs, {"step": first}, libraries=libraries, kind=kind)
    raise NotImplementedError(first.uses)
