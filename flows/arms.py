"""The arms of an ablation: which curation each tries. Called by `flows/ablation.py` and `tunegate ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.curation_steps import CurateStep, PythonStep, RedactStep, RuleStep, SqlStep
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from schemas.template import template_columns


@dataclass(frozen=True)
class Arm:
    """One way of curating."""

    name: str
    told: str
    steps: tuple[CurateStep, ...]
    takes_all: bool = False
    """Every row, whatever `train.max_examples` says; else as many as the pipeline declares."""
    takes_k: bool = False
    """As many as the curated arm trained on."""


def arms_of(spec: PipelineSpec) -> tuple[Arm, ...]:
    """Raw tickets, as many raw ones as curated, and the curation without each of its steps; redaction always stays.

    Raises:
        ConfigError: TG0159, no step is declared beside redaction.
    """
    steps = spec.curate.steps
    kept = tuple(step for step in steps if isinstance(step, RedactStep))
    removable = [step for step in steps if not isinstance(step, RedactStep)]
    if not removable:
        raise ConfigError(
            "nothing is curated here beside redaction, so there is nothing to leave out", code="TG0159",
            where=f"{spec.name}.curate.steps", hint="declare steps: docs/curation.md",
        )  # fmt: skip
    arms = [
        Arm("raw", "redacted tickets as they came, all of them", kept, takes_all=True),
        Arm("raw-k", "as many of those as were curated, the newest", kept, takes_k=True),
    ]
    for step in removable:
        rest = tuple(each for each in steps if each is not step)
        label, number = label_of(step), sum(1 for arm in arms if arm.name.startswith(f"without-{label_of(step)}"))
        label = f"{label}_{number + 1}" if number else label
        arms.append(Arm(f"without-{label}", f"all steps but {label}", rest))
    return tuple(arms)


def label_of(step: CurateStep) -> str:
    """What a step is called in an arm's name."""
    return step.name if isinstance(step, RuleStep | SqlStep | PythonStep) else step.uses


def learnable(steps: tuple[CurateStep, ...], spec: PipelineSpec) -> tuple[CurateStep, ...]:
    """With a last rule for what no training can take: a ticket without anything to answer."""
    columns = template_columns(spec.train.prompt.answer)
    keep = " or ".join(f"{name} is not null" for name in ("messages", *columns))
    return (*steps, RuleStep(uses="rule", name="has_an_answer", keep=keep))


def choose_arms(arms: Sequence[Arm], only: Sequence[str]) -> tuple[Arm, ...]:
    """Those that are named; all where none is.

    Raises:
        ConfigError: TG0158, a name is none of them.
    """
    names = [arm.name for arm in arms]
    for name in only:
        if name not in names:
            raise ConfigError(f"no arm {name!r}; there are: {', '.join(names)}", code="TG0158", where="--only")
    return tuple(arm for arm in arms if not only or arm.name in only)
