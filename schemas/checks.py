"""Checks of a gate besides its rules: parts of the section `gates`.

`tasks/assess/measured_checks.py` compares them with the evidence, `tasks/assess/llm_judge.py` calls the judge;
docs/reference/gates.md explains the defaults.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.evaluation import EndpointSpec
from schemas.spec import Spec

SuiteName = Literal["general"]


class ForgettingSpec(Spec):
    """`gates.forgetting`: on general questions the candidate is, at the confidence, at most the margin worse than its
    base."""

    margin: float = Field(default=0.05, gt=0, lt=1)
    """Largest tolerated loss, as a share of the suite's items."""
    suite: SuiteName = "general"
    """The questions: `general` has facts, arithmetic, instructions and format."""
    max_items: int | None = Field(default=None, ge=1)
    """Items of the suite to use; null uses all. `tunegate plan` shows how many the margin needs."""
    max_new_tokens: int = Field(default=12, ge=1, le=256)
    """Longest answer, in tokens."""
    seed: int = Field(default=0, ge=0)
    """Of the choice of items."""
    kl_max: float | None = Field(default=None, gt=0)
    """Largest mean KL(base || candidate) on neutral texts, nats per token; null only reports it."""


class RoundTripSpec(Spec):
    """`gates.round_trip`: the candidate's files, loaded by a new process, answer as the candidate did."""

    n_prompts: int = Field(default=8, ge=1, le=100)
    """Held-out prompts to answer again."""
    bound: float | None = Field(default=None, gt=0)
    """Largest mean difference in nats per token of a reference answer; null is 0.001, or 0.1 with bfloat16 arithmetic,
    where another batch sums in another order and short answers average little of that out."""


REPORTED_PROMPTS = 16
"""Prompts that are timed where the figures are only reported."""
CURVE_PROMPTS = 64
"""Prompts of the batching curve, at most."""


class LatencySpec(Spec):
    """`gates.latency`: seconds per answer, one ticket at a time, alternating with the champion (without one, the base
    model)."""

    p95_ratio_max: float | None = Field(default=None, gt=0)
    """Largest p95 as a multiple of the other's; null only reports. Met if it is shown to be kept, BLOCK if it is shown
    to be exceeded, each at the confidence of the gate; else HOLD. With 250 prompts an equal model nearly always meets
    1.25, with 1,000 it meets 1.1."""
    n_prompts: int | None = Field(default=None, ge=1)
    """Held-out prompts to time. Null is all of them where a limit decides, and 16 where the figures are only
    reported."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Rounds over the prompts. An item's seconds are the median of its rounds: more of them smooth the clock, and show
    no further items."""
    batch_sizes: tuple[Literal[2, 4, 8, 16, 32, 64], ...] = (4, 16)
    """Batches in which the candidate also answers at most 64 of the prompts, for the batching curve of `tunegate study
    cost`; sizes over the number of prompts or `evaluate.batch_size` are left out."""
    on_cpu: Literal["report", "judge"] = "report"
    """`report` only reports the figures of a CPU, which rarely serves; `judge` lets them decide."""

    def prompts_of(self, n_items: int, *, decides: bool) -> int:
        """How many of the held-out items are timed.

        >>> LatencySpec().prompts_of(248, decides=True), LatencySpec(n_prompts=100).prompts_of(248, decides=False)
        (248, 100)
        """
        return min(n_items, self.n_prompts or (n_items if decides else REPORTED_PROMPTS))


class CostSpec(Spec):
    """`gates.cost`: rent of the machine for 1,000 single answers, at the seconds that `gates.latency` measures."""

    machine: str
    """The machine of the run, by its name in `gpus` of tasks/assess/prices.yaml."""
    usd_per_1k_max: float | None = Field(default=None, gt=0)
    """Null only reports. Judged by a bound of the mean, as the ratio of `gates.latency` is by one of the ratio."""


class ContaminationSpec(Spec):
    """`gates.contamination`: no train/test leakage, whatever curation declares.

    The thresholds are wider than those of `curate.decontaminate`: the weight of a word run depends on the pool, and
    removing leaks changes the pool, so that the remaining scores may be a few hundredths higher.
    """

    near_threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of 3-word shingles from which a question is nearly a held-out one."""
    quote_threshold: float = Field(default=0.4, gt=0, le=1)
    """Rarity-weighted share of a held-out question's long n-grams, from which a question quotes it."""
    paraphrase_threshold: float = Field(default=0.4, gt=0, le=1)
    """The same of short n-grams in four or more pieces: a paraphrase."""
    same: tuple[Literal["customer_id", "thread_id"], ...] | None = None
    """Columns whose values no train ticket may share with a held-out item; null takes `split.group_by`."""
    time_order: bool = True
    """Train tickets must be older than the split's cut, if it has one."""


class JudgeSpec(Spec):
    """`gates.judge`: a model chooses the better of two answers to a ticket, the candidate's or the champion's.

    It may block but never promotes on its own; without enough agreement with people it only reports.
    """

    endpoint: EndpointSpec
    criteria: str = Field(
        default="The better reply helps the customer more: it is right, complete, polite and no longer than needed.",
        min_length=1,
        max_length=4000,
    )
    """What makes an answer better, as an instruction to the judge."""
    n_items: int = Field(default=100, ge=1)
    """Held-out items to judge, twice each; chosen by hash of their ids from those with different answers."""
    labels: str | None = None
    """JSON Lines of people's choices, relative to pipelines.yaml: question, first, second, preferred (first, second or
    tie). Null only reports."""
    min_labels: int = Field(default=100, ge=20)
    """With fewer labels it only reports; those between equal texts do not count."""
    min_kappa: float = Field(default=0.6, gt=0, le=1)
    """Unless Cohen's kappa with those choices is at least this at 95 % confidence, it only reports."""


class ExposureSpec(Spec):
    """`gates.canaries`: the candidate does not prefer the planted secrets to others of the same form."""

    exposure_max: float = Field(default=6.0, gt=0)
    """Bits, mean over the secrets: log2(alternatives + 1) - log2(rank). 1.4 is chance."""
    alternatives: int = Field(default=255, ge=15, le=100_000)
    """Random secrets that each is ranked among."""

    @model_validator(mode="after")
    def _can_be_passed(self) -> Self:
        most = math.log2(self.alternatives + 1)
        if not self.exposure_max < most:
            raise ValueError(f"{self.alternatives} alternatives show at most {most:.1f} bits; raise alternatives")
        return self
