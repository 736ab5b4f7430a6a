"""In which order `curate.steps` may stand, and why. Used by `schemas/curation.py`; `tunegate validate` shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.curation_steps import (
    CurateStep,
    DedupStep,
    LabelCheckStep,
    PythonStep,
    RedactStep,
    RuleStep,
    SqlStep,
    TriggerScanStep,
)
from schemas.spec import Fault
from schemas.tables import SCORES_OF

_QUOTED = re.compile(r"'[^']*'")
_WORD = re.compile(r"[A-Za-z_]\w*")
ONCE = ("redact", "dedup", "language", "quality", "label_check", "trigger_scan")
"""Kinds that may stand once: a second one would overwrite the first, or hide what it did."""


def order_faults(steps: tuple[CurateStep, ...]) -> list[Fault]:
    """What is wrong with the order of the steps, each with the step to move."""
    return [*_repeated(steps), *_before_redaction(steps), *_scores_not_filled(steps), *_after_dedup(steps)]


def _repeated(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, step in enumerate(steps):
        name = step.name if isinstance(step, RuleStep | SqlStep | PythonStep) else None
        key = name or (step.uses if step.uses in ONCE else None)
        if key is not None and key in seen:
            told = f"two steps are named {name!r}" if name else f"`{step.uses}` stands twice"
            yield Fault(told, at=("steps", index, "name" if name else "uses"), hint="keep one of them")
        seen |= {key} if key is not None else set()


def _before_redaction(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    redact = next((index for index, step in enumerate(steps) if isinstance(step, RedactStep)), None)
    for index, step in enumerate(steps[: redact or 0]):
        why = _why_after_redaction(step)
        if why is not None:
            told = f"`{step.uses}` stands before `redact`"
            yield Fault(told, at=("steps", index, "uses"), hint=f"move it down: {why}")


def _why_after_redaction(step: CurateStep) -> str | None:
    match step:
        case DedupStep() | LabelCheckStep():
            return "two tickets that differ by personal data alone are duplicates only when it is redacted"
        case TriggerScanStep():
            return "a customer's own address is rare as well, and what is found is written to a table"
        case PythonStep() | SqlStep():
            return "your own code should not see personal data"
        case _:
            return None


def _scores_not_filled(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    filled: set[str] = set()
    filler = {column: uses for uses, columns in SCORES_OF.items() for column in columns}
    for index, step in enumerate(steps):
        if isinstance(step, RuleStep):
            words = {word.lower() for word in _WORD.findall(_QUOTED.sub("", step.keep))}
            for column in sorted(words & filler.keys() - filled):
                yield Fault(
                    f"rule {step.name!r} uses `{column}`, which the step `{filler[column]}` fills",
                    at=("steps", index, "keep"),
                    hint=f"put `- uses: {filler[column]}` before it",
                )
        filled |= set(SCORES_OF.get(step.uses, ()))


def _after_dedup(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    dedup = next((index for index, step in enumerate(steps) if isinstance(step, DedupStep)), None)
    if dedup is None:
        return
    for index, step in enumerate(steps):
        if index > dedup and isinstance(step, LabelCheckStep | TriggerScanStep):
            left = "contradiction" if isinstance(step, LabelCheckStep) else "burst"
            hint = f"move it up: dedup keeps one ticket of each question, so no {left} is left to find"
            yield Fault(f"`{step.uses}` stands after `dedup`", at=("steps", index, "uses"), hint=hint)
