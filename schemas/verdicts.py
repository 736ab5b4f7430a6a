"""The result of a gate: a verdict, the finding of each rule, and its number among earlier verdicts.

Created by `tasks/assess/gate.py`; earlier verdicts are counted in the ledger (`flows/registry/state.py`).
`GateDecision`, the artefact with them, is in `schemas/artifacts.py`.
"""

from typing import Literal, get_args

from pydantic import Field

from schemas.counted import counted
from schemas.spec import Frozen

Verdict = Literal["PROMOTE", "UNCOMPARED", "HOLD", "BLOCK", "ERROR"]
"""From best to worst."""
Part = Literal[
    "contamination", "round_trip", "safety", "latency", "cost", "primary", "judge", "slices", "forgetting", "check",
    "live", "baseline", "use",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)
"""The order of findings: first those that invalidate the others, then those that must not happen at any score."""
CHECKS: frozenset[Part] = frozenset(
    {"contamination", "round_trip", "latency", "cost", "judge", "forgetting", "check", "live"}
)
"""Parts that are not rules on the held-out items."""
INCUMBENT = "endpoint"
"""Name of the evidence about an endpoint that is to be replaced, and metric of the findings about it."""
EXPOSURE = "exposure"
"""Method of the finding about canaries: the only one about safety that is not such a rule."""


class Terms(Frozen):
    """How a verdict is reached on given answers: what may not be edited until one passes."""

    rules: str
    """Digest of the rules, and of how their metrics are measured."""
    alpha: float
    """Error probability of all looks at a candidate together."""
    looks: int
    """`gates.looks.max`."""
    spend: Literal["obrien_fleming", "equal"]
    at: tuple[int, ...] = ()
    """`gates.looks.at`."""


class Look(Frozen):
    """One verdict of the ledger."""

    held_out: str
    """Digest of the held-out set."""
    model: str
    """Digest of the trained model."""
    terms: Terms | None = None
    verdict: Verdict | None = None
    """None if the run did not get as far as recording it."""


class UsedBudget(Frozen):
    """Earlier verdicts that used up evidence."""

    looks: int = Field(default=0, ge=0)
    """Earlier looks at this candidate: on other held-out sets, or by other rules after a HOLD or BLOCK."""
    edited: int = Field(default=0, ge=0)
    """Those on the same items by other rules."""
    spent: tuple[float, ...] = ()
    """Error probability that each of them spent; empty if it was what these gates would have given it."""
    nested: tuple[int, ...] = ()
    """Items of each of these sets, if each contains the one before, unchanged, and this verdict's contains them all;
    else empty."""
    changed: int = Field(default=0, ge=0)
    """Items of these sets that have another question or reference answer now, if they would be nested without."""
    verdicts: int = Field(default=0, ge=0)
    """Other candidates for the registered model that were judged on the same items before."""
    n_seen: int = Field(default=0, ge=0)
    """Items whose text people had seen before this run: whoever repairs what they read teaches to the test."""


class SeenItems(Frozen):
    """Held-out items whose text was shown to people, by `tunegate gate explain` or in a report; or those of a set."""

    salt: str = ""
    hashes: tuple[str, ...] = ()
    """`tasks.tickets.draw.item_hash` of each, sorted."""


NOTHING_SEEN = SeenItems()


class JudgedItems(Frozen):
    """Held-out items by how many candidates they have judged, once the budget of some nears its end."""

    salt: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    """`tasks.tickets.draw.item_hash` of each and its number of candidates, sorted."""
    budget: int = 1
    """`gates.reuse.budget`."""


NOTHING_JUDGED = JudgedItems()


class EvidenceUse(Frozen):
    """A verdict's number among those on the same candidate and on the same items."""

    look: int
    """1 for the first time that this candidate is judged; another held-out set is another time, and so are other rules
    on the same one after a HOLD or BLOCK."""
    looks_max: int
    verdict: int
    """1 for the first candidate judged on these items."""
    budget: int | None
    """Candidates that these items may judge; null for no limit."""
    confidence: float
    """One-sided confidence of each bound of this verdict, with its share of the error probability."""
    n_corrected: int = 0
    """Items that people have corrected (`curate.corrections`)."""
    n_seen: int = 0
    """Items whose text people had seen before."""
    edited: int = 0
    """Earlier looks on the same items by other rules."""
    changed: int = 0
    """Items of earlier looks that have another question or reference answer now."""
    is_spent: bool = False
    """Earlier looks spent the whole error probability."""

    def sentence(self) -> str:
        """The same as a sentence.

        >>> EvidenceUse(look=1, looks_max=2, verdict=4, budget=20, confidence=0.95).sentence()[:52]
        'these items have judged 4 candidates of at most 20; '
        """
        judged = counted(self.verdict, "candidate")
        budget = "" if self.budget is None else f" of at most {self.budget}"
        looks = counted(self.look, "look (set of items)", "looks (sets of items)")
        if self.edited:
            looks = counted(self.look, "look", "looks") + f" ({self.edited} on these items by other rules)"
        seen = f"; people had seen {self.n_seen} of these items before" if self.n_seen else ""
        corrected = ""
        if self.n_corrected:
            corrected = f"; {counted(self.n_corrected, 'held-out item was', 'held-out items were')} corrected"
        if self.changed:
            corrected += (
                f"; {counted(self.changed, 'item has', 'items have')} changed since an earlier look, so that this one "
                "counts on no evidence that the two share"
            )
        return (
            f"these items have judged {judged}{budget}; this candidate has had {looks} of at most {self.looks_max}; "
            f"bounds are one-sided, at {100 * self.confidence:.6g} %{seen}{corrected}"
        )


class InterimLook(Frozen):
    """The state of an unfinished comparison after a batch of answers (`gates.interim`)."""

    n_items: int
    """Items answered by then."""
    rule: str
    """The rule that was least likely to be met in the end."""
    chance: float
    """That it is met with all planned items, if the rest is as planned; 0-1."""
    stopped: bool
    """Whether the run stopped here."""


class InterimUse(Frozen):
    """How many of the planned items were answered, and what the looks on the way saw."""

    n_items: int
    n_planned: int
    looks: tuple[InterimLook, ...] = ()

    @property
    def stopped(self) -> bool:
        """Whether items were left unanswered."""
        return self.n_items < self.n_planned

    def sentence(self) -> str:
        """The same as a sentence.

        >>> look = InterimLook(n_items=96, rule="exact improves on champion", chance=0.04, stopped=True)
        >>> InterimUse(n_items=96, n_planned=400, looks=(look,)).sentence()
        'stopped after 96 of 400 planned items, 304 are left unanswered; chance to pass so far 4 % (1 look)'
        """
        looks = counted(len(self.looks), "look")
        if not self.stopped:
            return f"all {self.n_planned:,} planned items are answered ({looks})"
        left, chance = self.n_planned - self.n_items, self.looks[-1].chance
        return (
            f"stopped after {self.n_items:,} of {self.n_planned:,} planned items, {left:,} are left unanswered; "
            f"chance to pass so far {100 * chance:.2g} % ({looks})"
        )


class Passes(Frozen):
    """What a comparison does: how often it passes candidates of a given true gain."""

    gains: tuple[float, ...]
    """True gains over the reference in the metric's unit; below 0 is worse."""
    chances: tuple[float, ...]
    """Chance of each to meet the comparison, 0-1."""
    basis: str
    """Number of items, and how much the two models differ on them, in words."""
    in_points: bool = True
    """The metric is a share: a hundredth is a point."""

    def sentence(self) -> str:
        """The same as a sentence, without its end.

        >>> Passes(gains=(0.0, -0.02, 0.03), chances=(0.061, 0.0042, 0.8312), basis="n").sentence()
        'This gate passes an equal model in 6 %, one 2 points worse in 0.4 %, one 3 points better in 83 % (n)'
        """
        pairs = zip(self.gains, self.chances, strict=True)
        passed = ", ".join(f"{self._model(gain)} in {_percent(chance)}" for gain, chance in pairs)
        return f"This gate passes {passed} ({self.basis})"

    def _model(self, gain: float) -> str:
        if not gain:
            return "an equal model"
        size = counted(round(100 * abs(gain)), "point") if self.in_points else f"{abs(gain):g}"
        return f"one {size} {'better' if gain > 0 else 'worse'}"


def _percent(share: float) -> str:
    """A share in percent, with a digit that says something.

    >>> [_percent(share) for share in (0.0, 0.0042, 0.8312, 0.9996)]
    ['under 0.1 %', '0.4 %', '83 %', 'over 99.9 %']
    """
    if share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if share > 0.999 else f"{100 * share:.{1 if share < 0.01 or share >= 0.99 else 0}f} %"


class Finding(Frozen):
    """The outcome of one rule or check, with its evidence."""

    rule: str
    """Description of the rule: `exact improves on best_baseline (few_shot)`."""
    metric: str
    slice: str | None = None
    verdict: Verdict
    """PROMOTE (met), UNCOMPARED (`gates.compare` is off), HOLD (not enough evidence), BLOCK (violated at the
    confidence), ERROR."""
    n_items: int
    candidate: float | None
    reference: float | None = None
    """Champion's or baseline's value; null for absolute limits."""
    difference: float | None = None
    """candidate - reference, or candidate - limit."""
    lower: float | None = None
    upper: float | None = None
    """One-sided confidence bounds of `difference` (change) or of the value (absolute limit)."""
    limit: float | None = None
    method: str
    """Statistical procedure: `tango`, `clopper_pearson`, `bootstrap_t`, with `cluster_` if customers are resampled."""
    reason: str
    """One sentence that ends with what would change it (`about 120 more items would decide`)."""
    more_items: int | None = None
    """Further items that would decide a HOLD at the planned effect and power; 0 if there are enough; null if unknown,
    or if no number would."""
    smallest_loss: float | None = None
    """Of a slice: the smallest loss that so many items show with the planned power; null if there is none."""
    won: int | None = None
    """Items on which the candidate is better than the reference; null for absolute limits."""
    lost: int | None = None
    """Items on which it is worse."""
    p_harm: float | None = None
    """p-value of "the rule is not violated"; those of one decision are one Holm family."""
    higher_is_better: bool = True
    """Of the metric."""
    part: Part = "primary"
    """What the finding is about."""
    decides: bool = True
    """False if it is only reported, such as a slice in which too few items differ to show anything."""
    passes: Passes | None = None
    """Of a comparison over all items: what it does with so many items, and as many differences as were seen."""

    @property
    def is_check(self) -> bool:
        """Whether it is not about a declared rule on the held-out items."""
        return self.part in CHECKS or self.method == EXPOSURE
