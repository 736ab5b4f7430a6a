"""The allowed orders of `curate.steps`, and why. Used by `schemas/curation.py`; `tunegate validate` shows faults."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.curation_steps import CurateStep, DedupStep, NamedStepSpec, RedactStep, RuleStep
from schemas.spec import Fault
from schemas.tables import SCORES_OF

_QUOTED = re.compile(r"'[^']*'")
_WORD = re.compile(r"[A-Za-z_]\w*")


def order_faults(steps: tuple[CurateStep, ...]) -> list[Fault]:
    """Return what is wrong with the order of the steps, each with the step to move."""
    return [*_repeated(steps), *_before_redaction(steps), *_scores_not_filled(steps), *_after_dedup(steps)]


def _repeated(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, step in enumerate(steps):
        if not step.once and not isinstance(step, NamedStepSpec):
            continue
        if step.label in seen:
            message = f"two steps are named {step.label!r}" if not step.once else f"`{step.uses}` is listed twice"
            yield Fault(message, at=("steps", index, "uses" if step.once else "name"), hint="keep one of them")
        seen.add(step.label)


def _before_redaction(steps: tuple[CurateStep, ...]) -> Iterator[Fault]:
    redact = next((index for index, step in enumerate(steps) if isinstance(step, RedactStep)), None)
    for index, step in enumerate(steps[: redact or 0]):
        if step.after_redact:
            message = f"`{step.uses}` comes before `redact`"
            yield Fault(message, at=("steps", index, "uses"), hint=f"move it down: {step.after_redact}")


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
    for index, step in enumerate(steps[dedup:], start=dedup):
        if step.before_dedup:
            hint = f"move it up: {step.before_dedup}"
            yield Fault(f"`{step.uses}` comes after `dedup`", at=("steps", index, "uses"), hint=hint)
