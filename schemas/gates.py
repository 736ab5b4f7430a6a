"""What decides: the section `gates`, the statistical contract between a candidate and the champion.

Used by `schemas/pipeline.py`; `tasks/assess/gate.py` applies it. docs/reference/gates.md explains the defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.canaries import ExposureSpec
from schemas.checks import ContaminationSpec, CostSpec, ForgettingSpec, LatencySpec, RoundTripSpec
from schemas.columns import TicketColumn
from schemas.judge import JudgeSpec
from schemas.kinds import OptionalSections
from schemas.spec import Spec

SliceColumn = Literal["product", "channel", "category", "priority"]


class ChangeThreshold(Spec):
    """A paired comparison on the same held-out items."""

    against: Literal["champion", "best_baseline"] = "champion"
    """champion: who serves now. best_baseline: the prompting arm with the best mean on the same items."""
    mode: Literal["improve", "refresh"] = "improve"
    """improve: significantly better. refresh: not worse than `margin` at the confidence, better on average, and not
    worse than the margin of `gates.anchor` than the anchor."""
    margin: float = Field(default=0.0, ge=0)
    """Largest tolerated loss in the metric's unit; only for refresh."""

    @model_validator(mode="after")
    def _margin_fits_mode(self) -> ChangeThreshold:
        if self.mode == "improve" and self.margin:
            raise ValueError("margin belongs to mode refresh; mode improve has none")
        if self.mode == "refresh" and not self.margin:
            raise ValueError("mode refresh needs a margin above 0")
        return self


class GateRule(Spec):
    """One condition a candidate must meet. Exactly one of value_threshold and change_threshold."""

    metric: str
    """A metric of `evaluate`, such as exact, format, style or field_category."""
    slice: str | None = None
    """`column=value` to judge one slice; null judges all items."""
    value_threshold: float | None = None
    """Absolute limit that the confidence bound must respect (at least; at most where lower is better)."""
    hard_limit: float | None = None
    """Beside value_threshold: a value on the items beyond this limit is BLOCK at once, whatever chance may explain."""
    change_threshold: ChangeThreshold | None = None
    """A comparison with the champion or the best baseline, instead of an absolute limit."""

    @model_validator(mode="after")
    def _one_threshold(self) -> GateRule:
        if (self.value_threshold is None) == (self.change_threshold is None):
            raise ValueError("give exactly one of `value_threshold` and `change_threshold`")
        if self.hard_limit is not None and self.value_threshold is None:
            raise ValueError("`hard_limit` goes with `value_threshold`: it blocks, only a bound promotes")
        return self


class SliceGuard(Spec):
    """`gates.slices`: no slice of these columns may be significantly worse than the champion (or, without one, than
    the best prompting arm). Holm's correction over all tests that may block."""

    by: tuple[SliceColumn, ...] = Field(min_length=1)
    """Columns of evaluate.slices; each of their values is a slice."""
    metric: str = "exact"
    """Metric that no slice may lose."""
    min_slice_items: int = Field(default=100, ge=1)
    """Smaller slices are not judged: 50 items find a loss of 15 points about half the time, 100 nearly always."""
    small: Literal["report", "hold"] = "report"
    """What a slice under min_slice_items does: `report` names it in the verdict, `hold` makes the verdict HOLD."""


class AnchorSpec(Spec):
    """`gates.anchor`: the fixed model that `mode: refresh` may not drift below, whoever is champion."""

    version: str = Field(default="first", pattern=r"^(first|[1-9][0-9]*)$")
    """`first`: the first champion of the registered model. A number: that version."""
    margin: float | None = Field(default=None, gt=0)
    """Largest tolerated loss against the anchor; null takes the rule's own margin."""


class ReuseSpec(Spec):
    """`gates.reuse`: how often the same held-out items may decide about candidates of the registered model."""

    budget: int = Field(default=20, ge=1)
    """Candidates judged on one held-out set; after that the verdict is HOLD until the items are fresh."""
    spend: Literal["none", "split"] = "none"
    """split: each verdict has 1/budget of the error probability, so that all together keep `confidence`. none: each
    has all of it, and the budget only bounds how often."""


class PowerSpec(Spec):
    """`gates.power`: what `tunegate plan` computes with."""

    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """Wanted chance to promote a candidate that deserves it."""
    effect: float = Field(default=0.05, gt=0)
    """Smallest gain (improve) or distance from the limit (value_threshold) that is worth finding."""
    discordance: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of items where two models disagree; null takes that of the last verdict, else 0.1."""
    spread: float = Field(default=0.25, gt=0)
    """Standard deviation of a continuous metric's difference per item, where no verdict tells it yet."""


class GatesSpec(Spec):
    """`gates`: the contract. PROMOTE only when every rule passes at the confidence."""

    rules: tuple[GateRule, ...] = Field(min_length=1)
    """All must be met; the order is that of the report."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound, and of all tests that may block taken together."""
    min_items: int = Field(default=50, ge=1)
    """With fewer held-out items no rule can pass: the verdict is HOLD at best."""
    if_missing: Literal["baseline", "error"] = "baseline"
    """Without a champion: `baseline` replaces champion comparisons by superiority over the best prompting arm."""
    contamination: ContaminationSpec | None = ContaminationSpec()
    """No trained ticket gives a held-out item away, else ERROR; null for no check."""
    round_trip: RoundTripSpec | None = RoundTripSpec()
    """What would be released answers as what was judged, else ERROR; null for no check."""
    forgetting: ForgettingSpec | None = None
    """General questions that the candidate answers as well as its base; null for none. Costs two arms of the suite."""
    canaries: ExposureSpec | None = None
    """How much of the secrets of `train.canaries` the candidate may have kept; null for no check."""
    latency: LatencySpec | None = None
    """Seconds per answer beside the champion's; null for none."""
    cost: CostSpec | None = None
    """Dollars per 1,000 answers; needs latency; null for none."""
    judge: JudgeSpec | None = None
    """A language model that compares answers; null for none."""
    slices: SliceGuard | None = None
    """No slice may suffer; null for no guard."""
    anchor: AnchorSpec | None = AnchorSpec()
    """Guard of `mode: refresh` against slow drift; null for none."""
    cluster_by: TicketColumn | None = None
    """Column whose equal values belong together (customer_id): bounds then count customers, not tickets."""
    looks_max: int = Field(default=1, ge=1, le=100)
    """Held-out sets on which one candidate may be judged. Each look has 1/looks_max of the error probability."""
    reuse: ReuseSpec | None = ReuseSpec()
    """Budget of verdicts on the same held-out items; null for no limit."""
    power: PowerSpec = PowerSpec()
    strict_power: bool = False
    """Too few held-out items for `power` are an error (exit code 2) before training, instead of a warning."""

    @model_validator(mode="after")
    def _cost_has_seconds(self) -> GatesSpec:
        if self.cost is not None and self.latency is None:
            raise ValueError("`cost` is reckoned from the seconds of `latency`, which is not declared")
        return self

    @property
    def alpha(self) -> float:
        """Error probability of one look at one held-out set.

        >>> rule = GateRule(metric="exact", value_threshold=0.5)
        >>> round(GatesSpec(rules=(rule,), looks_max=5).alpha, 6)
        0.01
        """
        split = self.reuse.budget if self.reuse is not None and self.reuse.spend == "split" else 1
        return (1 - self.confidence) / self.looks_max / split

    def judged_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that rules and slices are about, once each."""
        names = [rule.metric for rule in self.rules] + ([self.slices.metric] if self.slices else [])
        return tuple(dict.fromkeys(names))


GATE_SECTIONS = OptionalSections(GatesSpec)
"""Checks whose settings are in their own file (`tasks/assess/check.py`)."""
