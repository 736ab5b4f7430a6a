"""What `tunegate advise` may look at, and the form of a rule about it.

`flows/advice.py` gathers it, `tasks/assess/advice_rules.py` declares the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.ablation import AblationTable
from schemas.costs import CostReport
from tasks.assess.judge import Judgement

Says = Literal[
    "prompting", "retrieval", "tuning", "curate", "more tickets", "more items", "qlora", "lora", "full", "smaller base",
    "own model", "API", "enough", "missing",
]  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """Where a method fits by memory."""

    here: bool | None
    """On this machine as it is; null where the base model is not at hand."""
    smallest_card: str | None
    """Null: none of those that are known."""


@dataclass(frozen=True)
class Evidence:
    """What is recorded; null and empty for what is not."""

    pipeline: str
    run_id: str | None = None
    method: str | None = None
    """Of the run's training."""
    verdict: str | None = None
    metric: str = ""
    means: Mapping[str, float] = field(default_factory=dict)
    """Arm -> mean of the metric."""
    best_prompting: str | None = None
    prompting_meets: Literal["yes", "no", "not shown"] | None = None
    """Do the best prompting arm's bounds reach every absolute limit of the gate?"""
    limits: tuple[str, ...] = ()
    tuned: Judgement | None = None
    """The tuned model against the best prompting arm."""
    retrieval: Judgement | None = None
    """Retrieval against the same examples for every ticket."""
    classifier: Judgement | None = None
    """The tuned model's routing against the plain text classifier's."""
    n_items: int | None = None
    min_items: int = 0
    n_train: int | None = None
    n_checked: int | None = None
    n_conflicting: int | None = None
    forms: Mapping[str, float] | None = None
    """Null: nobody looked; empty: no form is declared."""
    ablation: AblationTable | None = None
    fits: Mapping[str, Fit] = field(default_factory=dict)
    train_loss: float | None = None
    validation_loss: float | None = None
    costs: CostReport | None = None
    card: str | None = None
    """Card of the price book that would serve; no measured seconds are priced by it."""
    queries: float | None = None


@dataclass(frozen=True)
class Said:
    """What one rule makes of the evidence."""

    says: Says
    evidence: str
    get: str = ""
    """The command that gets what is missing."""


@dataclass(frozen=True)
class Rule:
    """One question."""

    name: str
    question: str
    threshold: str
    source: str
    change: str
    """What would change the answer."""
    ask: Callable[[Evidence], Said]
