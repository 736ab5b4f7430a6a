"""The section `gates`: the statistical conditions under which a candidate replaces the champion.

`tasks/assess/gate.py` applies it. docs/reference/gates.md explains the defaults.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.checks import (
    ContaminationSpec,
    CostSpec,
    ExposureSpec,
    ForgettingSpec,
    JudgeSpec,
    LatencySpec,
    RoundTripSpec,
)
from schemas.kinds import OptionalSections
from schemas.spec import Spec
from schemas.tables import TicketColumn

MAX_MARGIN = 0.05
"""Largest loss that a comparison with the champion may tolerate, if it is to be the only one."""
LEAST_ITEMS = 50
"""Held-out items without which the comparison that is added is not met, whatever `gates.min_items` is."""
MIN_GAIN = 0.01
"""Least measured gain of mode refresh, a point for shares; one standard error of the gain if that is more. With few
items a wide margin tolerates every candidate, and the gain alone decides: a point of 248 items is three of them."""


class ChangeThreshold(Spec):
    """A paired comparison on the same held-out items."""

    against: Literal["champion", "best_baseline", "endpoint"] = "champion"
    """champion: the model that serves now. best_baseline: each of the prompting arms and, for the routing field, of the
    classifiers `majority` and `tfidf`; all of them must be beaten, and the best is the one that is shown. endpoint: the
    model of `evaluate.endpoint`, the incumbent that is to be replaced; it then is no baseline, and until there is a
    champion such a rule takes the place of the comparison that `compare` adds."""
    mode: Literal["improve", "refresh", "no_worse"] = "improve"
    """improve: significantly better. refresh: at the confidence at most `margin` worse, better by `min_gain` on
    average, and at most the margin of `gates.anchor` worse than the anchor. no_worse: the same, but it need not be
    better, so that a copy of the champion is met: for a retraining that must replace the champion, such as after a
    customer was forgotten."""
    margin: float = Field(default=0.0, ge=0)
    """Largest tolerated loss in the metric's unit; for refresh and no_worse."""
    min_gain: float | None = Field(default=None, ge=0)
    """For refresh: least measured gain in the metric's unit. Null is 0.01 or one standard error of the gain, whichever
    is more. With 0 any measured gain is enough."""

    @model_validator(mode="after")
    def _margin_fits_mode(self) -> ChangeThreshold:
        if self.mode == "improve" and self.margin:
            raise ValueError("margin belongs to the modes refresh and no_worse; mode improve has none")
        if self.mode != "improve" and not self.margin:
            raise ValueError(f"mode {self.mode} needs a margin above 0")
        if self.mode != "refresh" and self.min_gain is not None:
            raise ValueError(f"min_gain belongs to the mode refresh; mode {self.mode} has none")
        return self

    @property
    def least_gain(self) -> float | None:
        """The gain that must be measured; None is 0.01 or one standard error, whichever is more."""
        return self.min_gain if self.mode == "refresh" else 0.0


class GateRule(Spec):
    """One condition a candidate must meet. Exactly one of value_threshold and change_threshold."""

    metric: str
    """A metric of `evaluate`, such as exact, format, style or field_category."""
    slice: str | None = None
    """`column=value` judges one slice; null judges all items."""
    value_threshold: float | None = None
    """Absolute limit that the confidence bound must reach (at least; at most if lower is better)."""
    hard_limit: float | None = None
    """With value_threshold: a mean beyond this limit is BLOCK, however likely it is by chance."""
    change_threshold: ChangeThreshold | None = None
    """A comparison with the champion or the best baseline, instead of an absolute limit."""

    @model_validator(mode="after")
    def _one_threshold(self) -> GateRule:
        if (self.value_threshold is None) == (self.change_threshold is None):
            raise ValueError("give exactly one of `value_threshold` and `change_threshold`")
        if self.hard_limit is not None and self.value_threshold is None:
            raise ValueError("`hard_limit` needs `value_threshold`: it only blocks, a bound promotes")
        return self


class CompareSpec(Spec):
    """`gates.compare`: the comparison with the champion, `mode: refresh` with at least 50 items, that is added unless a
    rule over all items makes one: of a metric of quality, with `mode: improve` or a margin of at most 0.05. Before the
    first champion it is with the best prompting arm, as by `if_missing`; zero_shot answers for it if no prompting arm
    is declared."""

    off: str | None = Field(default=None, pattern=r"\S")
    """Why candidates are not compared with the champion. The verdict is then UNCOMPARED at best, and only `tunegate
    model promote --accept-uncompared` makes such a candidate champion."""
    metric: str | None = None
    """Metric to compare. Null adds nothing if a rule makes such a comparison; else it takes the first metric of the
    rules, or of evaluate.metrics, that measures quality, else heldout_loss (chrf if there is an arm endpoint)."""
    margin: float = Field(default=MAX_MARGIN, gt=0, le=MAX_MARGIN)
    """Largest tolerated loss: a share for metrics between 0 and 1. For heldout_loss, which is a logarithm, nats per
    token: 0.05 is 5 % of perplexity, at whatever level."""

    @model_validator(mode="after")
    def _off_or_not(self) -> CompareSpec:
        if self.off is not None and self.metric is not None:
            raise ValueError("`off` turns the comparison off that `metric` asks for; give one of them")
        return self


class SliceGuard(Spec):
    """`gates.slices`: no slice of these columns may be significantly worse than the champion or, without one, than any
    prompting arm. Every slice is tested, with Holm's correction over all tests that may block; a loss that is only
    probable next to the other slices is HOLD."""

    by: tuple[Annotated[str, Field(pattern="^[^=]+$")], ...] = Field(min_length=1)
    """Columns of evaluate.slices; each of their values is a slice. In a file of rules: columns of the results."""
    metric: str = "exact"
    """Metric that must not get worse in any slice."""
    top_up: int = Field(default=0, ge=0)
    """Smaller slices get further held-out items up to this number, from the test split. They count for this guard and
    for no rule. 100 items nearly always show a loss of 15 points, 50 about half the time; where models differ on more
    of them than in the other slices it takes more, and the verdict says how many. Not with `gates.looks.at`."""


class AnchorSpec(Spec):
    """`gates.anchor`: the model that `mode: refresh` and `no_worse` must not drift below, whatever the champion is."""

    version: str = Field(default="best", pattern=r"^(best|[1-9][0-9]*)$")
    """`best`: the first champion of the registered model, until one is shown at the confidence to be better than it,
    then that one, and so on. A number: that version."""
    margin: float | None = Field(default=None, gt=0)
    """Largest tolerated loss against the anchor; null takes the rule's margin."""


class LooksSpec(Spec):
    """`gates.looks`: how often one candidate may be judged, on other held-out sets or by rules that were edited after a
    HOLD or BLOCK, and the error probability of each look."""

    at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Held-out items of each look, rising, such as [248, 496, 744]: a group-sequential design. A run judges with as
    many as the largest of these numbers that there are; after a HOLD `tunegate gate resume` judges the same candidate
    with the items of a later look, which include those of the looks before. Empty: `evaluate.max_items`, and no HOLD is
    resumed."""
    max: int = Field(default=1, ge=1, le=20)
    """Further looks are HOLD: only another candidate can pass. An earlier look has spent what its own gates declared,
    so that a larger number afterwards gives no further chance. With `at` it is the number of those looks."""
    spend: Literal["obrien_fleming", "equal"] = "obrien_fleming"
    """obrien_fleming: most of the error probability is left for the last look, which then needs 3 % more items than a
    single one if each set contains the one before. equal: every look spends as much, so that an early one may pass."""

    @model_validator(mode="before")
    @classmethod
    def _max_follows_at(cls, data: Any) -> Any:
        at = data.get("at") if isinstance(data, dict) else None
        return {"max": len(at), **data} if at and isinstance(at, list | tuple) else data

    @model_validator(mode="after")
    def _looks_grow(self) -> LooksSpec:
        if any(one >= other for one, other in pairwise(self.at)):
            raise ValueError(f"`at` must rise from look to look, got {list(self.at)}")
        if self.at and len(self.at) != self.max:
            raise ValueError(f"`max` is {self.max}, and `at` declares {len(self.at)} looks; leave `max` out")
        return self

    def items(self, n_available: int) -> int:
        """Held-out items of a candidate's first look.

        >>> looks = LooksSpec(at=(248, 496, 744))
        >>> [looks.items(n) for n in (100, 500, 2000)], LooksSpec().items(2000)
        ([100, 496, 744], 2000)
        """
        return max((size for size in self.at if size <= n_available), default=n_available)


class ReuseSpec(Spec):
    """`gates.reuse`: how many candidates of the registered model the same held-out items may judge."""

    budget: int = Field(default=20, ge=1)
    """Candidates judged on one held-out set. Near its end, items that judged the most give way to those that judged the
    fewest; without enough others there are fewer items, and below 50 further verdicts are HOLD."""
    spend: Literal["none", "split"] = "none"
    """split: each verdict has 1/budget of the error probability, so that all together keep `confidence`. none: each has
    all of it, and the budget only limits their number."""


class InterimSpec(Spec):
    """`gates.interim`: answer the held-out items in batches and stop when the candidate can hardly pass any more.

    A stop never promotes, and a run that answers all items gets the verdict that it gets without this section. Harm at
    a stop is judged at a higher confidence. Fewer than 200 items are one batch.
    """

    batches: int = Field(default=10, ge=2, le=10)
    """Batches of about equal size, in the order of a hash of the items' ids; each is filled up to whole batches of
    evaluate.batch_size."""
    stop_below: float = Field(default=0.2, gt=0, lt=0.5)
    """Stop after a batch if the chance that some rule over all items is met in the end, with `gates.power.effect` from
    now on, is below this. 0.2 costs a candidate with that effect at most 2 points of its chance to be promoted."""


class PowerSpec(Spec):
    """`gates.power`: assumptions of `tunegate plan`."""

    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """Wanted probability of promoting a candidate with the effect."""
    effect: float = Field(default=0.05, gt=0)
    """Smallest gain (improve) or distance from the limit (value_threshold) worth finding."""
    discordance: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of items on which two models disagree; null takes that of the last verdict, else 0.1."""
    spread: float = Field(default=0.25, gt=0)
    """Standard deviation of a continuous metric's difference per item, before a verdict has measured it."""


class GatesSpec(Spec):
    """`gates`: PROMOTE needs every rule to pass at the confidence."""

    rules: tuple[GateRule, ...] = Field(min_length=1)
    """All must be met; the order is that of the report."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound, and of all tests that may block taken together."""
    min_items: int = Field(default=LEAST_ITEMS, ge=1)
    """With fewer held-out items no rule can pass: the verdict is HOLD at best."""
    compare: CompareSpec = CompareSpec()
    """Every candidate is compared with the champion; `{off: reason}` is the only way around it."""
    if_missing: Literal["baseline", "error"] = "baseline"
    """Without a champion: `baseline` compares with the best prompting arm, which must be improved on (with mode
    no_worse: than which it must be no worse)."""
    contamination: ContaminationSpec | None = ContaminationSpec()
    """No train/test leakage, else ERROR; null for no check."""
    round_trip: RoundTripSpec | None = RoundTripSpec()
    """The released files answer as the judged candidate, else ERROR; null for no check."""
    forgetting: ForgettingSpec | None = None
    """The candidate answers general questions as well as its base; null for no check. Costs two arms of the suite."""
    canaries: ExposureSpec | None = None
    """How much of the secrets of `train.canaries` the candidate may have memorised; null for no check."""
    latency: LatencySpec | None = None
    """Seconds per answer, compared with the champion; null for no check."""
    cost: CostSpec | None = None
    """Dollars per 1,000 answers; needs latency; null for no check."""
    judge: JudgeSpec | None = None
    """A language model compares answers; null for no check."""
    slices: SliceGuard | None = None
    """No slice may get worse; null for no guard."""
    anchor: AnchorSpec | None = AnchorSpec()
    """Guard of the modes refresh and no_worse against slow drift; null for none."""
    cluster_by: TicketColumn | None = None
    """Column whose equal values belong together, such as customer_id: bounds then count customers, not tickets."""
    looks: LooksSpec = LooksSpec()
    """How often one candidate may be judged."""
    reuse: ReuseSpec | None = ReuseSpec()
    """Budget of verdicts on the same held-out items; null for no limit."""
    interim: InterimSpec | None = None
    """Stop a candidate that can hardly pass any more; null answers all items."""
    power: PowerSpec = PowerSpec()
    strict_power: bool = False
    """Too few held-out items for `power` are an error (exit code 2) before training, instead of a warning."""

    @model_validator(mode="after")
    def _cost_has_seconds(self) -> GatesSpec:
        if self.cost is not None and self.latency is None:
            raise ValueError("`cost` is computed from the seconds of `latency`, which is not declared")
        return self

    @field_validator("compare", mode="before")
    @classmethod
    def _off_has_a_reason(cls, value: Any) -> Any:
        if value in ("off", False):
            raise ValueError("`compare: off` needs a written reason: `compare: {off: why candidates are not compared}`")
        return value

    @property
    def added_rule(self) -> GateRule | None:
        """The comparison that `compare` adds; None if it names no metric (see `schemas/comparison.py`)."""
        if self.compare.metric is None:
            return None
        change = ChangeThreshold(against="champion", mode="refresh", margin=self.compare.margin)
        return GateRule(metric=self.compare.metric, change_threshold=change)

    @property
    def judged_rules(self) -> tuple[GateRule, ...]:
        """The declared rules in their order, then the one that `compare` adds."""
        return (*self.rules, *((self.added_rule,) if self.added_rule is not None else ()))

    @property
    def has_incumbent(self) -> bool:
        """Whether a rule compares with the endpoint, the model that serves outside of the registry."""
        return any(
            rule.change_threshold is not None and rule.change_threshold.against == "endpoint" for rule in self.rules
        )

    @property
    def timed(self) -> LatencySpec | None:
        """How answers are timed: as `latency` says, or only reported where an incumbent is timed too."""
        return LatencySpec() if self.latency is None and self.has_incumbent else self.latency

    @property
    def needs_anchor(self) -> bool:
        """Whether a rule is also judged against the anchor."""
        return self.anchor is not None and any(
            change is not None and change.mode != "improve" and change.against == "champion"
            for change in (rule.change_threshold for rule in self.judged_rules)
        )

    @property
    def alpha(self) -> float:
        """Error probability of a verdict, over all looks at the candidate.

        >>> rule = GateRule(metric="exact", value_threshold=0.5)
        >>> round(GatesSpec(rules=(rule,), reuse=ReuseSpec(budget=5, spend="split")).alpha, 6)
        0.01
        """
        split = self.reuse.budget if self.reuse is not None and self.reuse.spend == "split" else 1
        return (1 - self.confidence) / split

    def judged_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that rules and slices are about, once each."""
        names = [rule.metric for rule in self.judged_rules] + ([self.slices.metric] if self.slices else [])
        return tuple(dict.fromkeys(names))


GATE_SECTIONS = OptionalSections(GatesSpec)
"""Checks with settings in their own file (`tasks/assess/check.py`)."""
