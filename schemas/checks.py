"""What a gate checks beside its rules: parts of the section `gates`. Used by `schemas/gates.py`.

`tasks/assess/measured_checks.py` holds them against the evidence; docs/reference/gates.md has the reasons for the
defaults.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.spec import Spec

SuiteName = Literal["general"]


class ForgettingSpec(Spec):
    """`gates.forgetting`: on general questions the candidate is not shown, nor left possible, to be worse than its base
    by more than the margin."""

    margin: float = Field(default=0.05, gt=0, lt=1)
    """Largest tolerated loss, as a share of the suite's items."""
    suite: SuiteName = "general"
    """The questions: `general` is facts, arithmetic, instructions and format."""
    max_items: int | None = Field(default=None, ge=1)
    """Items of the suite that are asked; null asks all. `tunegate plan` says how many the margin needs."""
    max_new_tokens: int = Field(default=12, ge=1, le=256)
    """Longest answer, in tokens."""
    seed: int = Field(default=0, ge=0)
    """Of the choice of items."""
    kl_max: float | None = Field(default=None, gt=0)
    """Largest mean KL(base || candidate) on neutral texts, nats per token; null only reports it."""


class RoundTripSpec(Spec):
    """`gates.round_trip`: the candidate's files, loaded by a fresh process, answer as the candidate did."""

    n_prompts: int = Field(default=8, ge=1, le=100)
    """Held-out prompts that are answered again."""
    bound: float | None = Field(default=None, gt=0)
    """Largest mean difference in nats per token of a reference answer; null takes 0.001, and 0.1 where the arithmetic
    is in bfloat16: another batch sums in another order, and short answers average little of that away."""


class LatencySpec(Spec):
    """`gates.latency`: seconds per answer, one ticket at a time, in turn with the champion (before there is one, with
    the base model)."""

    p95_ratio_max: float | None = Field(default=None, gt=0)
    """Largest p95 as a multiple of the other's; null only reports. Kept in every round: met; in none: BLOCK."""
    n_prompts: int = Field(default=16, ge=1, le=1000)
    """Held-out prompts of a round."""
    repeats: int = Field(default=3, ge=1, le=100)
    """Rounds over the prompts."""
    on_cpu: Literal["report", "judge"] = "report"
    """A CPU is rarely what serves: without `judge` its figures decide nothing."""


class CostSpec(Spec):
    """`gates.cost`: rent of the machine for 1,000 answers, one at a time, at the seconds that `gates.latency` takes."""

    machine: str
    """The machine that the run is on, by its name among `gpus` of infra/prices.yaml."""
    usd_per_1k_max: float | None = Field(default=None, gt=0)
    """Null only reports."""


class ContaminationSpec(Spec):
    """`gates.contamination`: no ticket that was trained on may give a held-out item away, whatever curation declared.

    The thresholds are wider than those of `curate.decontaminate`, for word runs are weighed by the pool at hand, and
    the pool changes when leaks leave it: the rest may come out a few hundredths higher.
    """

    near_threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of 3-word shingles from which a question is nearly a held-out one."""
    quote_threshold: float = Field(default=0.4, gt=0, le=1)
    """Rarity-weighted share of a held-out question's long n-grams, from which a question quotes it."""
    paraphrase_threshold: float = Field(default=0.4, gt=0, le=1)
    """The same of short n-grams in four or more pieces: a paraphrase."""
    same: tuple[Literal["customer_id", "thread_id"], ...] | None = None
    """Columns of which no trained ticket may share a value with a held-out item; null takes `split.group_by`."""
    time_order: bool = True
    """Trained tickets must be older than the split's cut, where it has one."""
