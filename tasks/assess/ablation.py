"""Is data quality the lever? Scores of the arms of an ablation in, a table with the gate's paired statistics out.

One training per way of curating, on the same held-out items with equal steps. Knows nothing of curation, training or
stores; `flows/run/ablation.py` runs the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from schemas.artifacts import EvalSet, Scores
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.side_by_side import judge_scores

if TYPE_CHECKING:
    from schemas.gates import GatesSpec

Gain = Literal["helps", "harms", "not shown", "no item differs", "not judged"]
GAINS: Mapping[str, Gain] = {"PROMOTE": "helps", "BLOCK": "harms", "HOLD": "not shown"}
ANSWERS = {
    "helps": "Yes: at equal steps the curated tickets beat the raw ones ({difference}, at least {lower}).",
    "harms": "No: at equal steps the raw tickets teach more ({difference}, at most {upper}); look at the steps that "
    "harm, or curate less.",
}
NOT_SHOWN = (
    "Not shown: at equal steps curation changes the result by {difference}, and anything from {lower} to {upper} fits; "
    "more held-out items would decide."
)


class AblationRow(BaseModel, frozen=True, extra="forbid"):
    """One arm and how the curated one compares."""

    arm: str
    """`curated`, `raw`, `raw-k`, `without-STEP`."""
    told: str
    """What its tickets went through, in words."""
    n_rows: int | None = None
    """Train tickets that its curation left."""
    n_examples: int | None = None
    """Of those, what was trained on."""
    n_steps: int | None = None
    value: float | None = None
    """Mean of the metric on the held-out items."""
    difference: float | None = None
    """curated - arm: what curation, or the step, gains."""
    lower: float | None = None
    upper: float | None = None
    """One-sided confidence bounds of the difference, at `confidence`."""
    won: int | None = None
    """Items on which the curated arm is better."""
    lost: int | None = None
    gain: Gain | None = None
    """Does the curation that this arm lacks help? Null for the curated arm itself."""
    reason: str = ""
    trained: str = ""
    """Digest of its weights."""


class AblationTable(BaseModel, frozen=True, extra="forbid"):
    """All arms, and the answer. Kept as JSON in `.tunegate/ablations`, and read by `tunegate study advise`."""

    pipeline: str
    metric: str
    n_items: int
    n_steps: int
    seed: int
    confidence: float
    """Of each bound, after all comparisons have shared the error probability."""
    items: str
    """Digest of the held-out items."""
    rows: tuple[AblationRow, ...]
    answer: str
    """Is quality the lever here? One sentence."""


def shared_confidence(gates: GatesSpec, n_comparisons: int) -> float:
    """One-sided confidence of each bound when all comparisons of a table are to hold together.

    Source: Bonferroni. A gate needs no such correction, for all its rules must be met; here each row is a claim.
    """
    return 1 - (1 - gates.confidence) / max(1, n_comparisons)


def judge_arm(
    row: AblationRow,
    *,
    curated: Scores,
    arm: Scores,
    items: EvalSet,
    traits: MetricTraits,
    confidence: float,
    cluster_by: str | None = None,
) -> AblationRow:
    """The row with what the curated arm gains over this one: `improve` of the gate, with the curated as candidate.

    Args:
        confidence: Of each bound, from `shared_confidence`.
        cluster_by: `gates.cluster_by`.
    """
    try:
        judged = judge_scores(
            curated, arm, traits=traits, confidence=confidence, against=f"arm {row.arm}", items=items,
            cluster_by=cluster_by,
        )  # fmt: skip
    except GateError as error:
        return row.model_copy(update={"gain": "not judged", "reason": error.message})
    gain = GAINS.get(judged.verdict, "not judged") if judged.won or judged.lost else "no item differs"
    same = {name: getattr(judged, name) for name in ("difference", "lower", "upper", "won", "lost", "reason")}
    return row.model_copy(update={"value": judged.reference, "gain": gain, **same})


def answer_of(rows: Mapping[str, AblationRow]) -> str:
    """Is quality the lever here? By the arm `raw`, else by what was compared.

    >>> row = AblationRow(arm="raw", told="", difference=0.2, lower=0.1, upper=0.3, gain="helps", n_examples=90)
    >>> answer_of({"raw": row})
    'Yes: at equal steps the curated tickets beat the raw ones (+0.200, at least +0.100).'
    """
    raw = rows.get("raw")
    if raw is None:
        helping = [row.arm for row in rows.values() if row.gain == "helps"]
        told = f"steps that are shown to help: {', '.join(helping)}" if helping else "no step is shown to help"
        return f"Not asked: the arm raw was left out; {told}."
    if raw.difference is None or raw.lower is None or raw.upper is None or raw.gain == "not judged":
        return f"Not known: {raw.reason or 'the raw arm was not judged'}"
    return ANSWERS.get(raw.gain or "", NOT_SHOWN).format(
        difference=f"{raw.difference:+.3f}", lower=f"{raw.lower:+.3f}", upper=f"{raw.upper:+.3f}"
    )
