"""Judge the arms of a data ablation: does curation, or one of its steps, improve the model?

All arms train for the same number of steps and answer the same held-out items; the statistics are the gate's.
`flows/run/ablation.py` runs the arms.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel

from schemas.artifacts import EvalSet, Scores
from schemas.errors import GateError
from schemas.gates import GatesSpec
from tasks.assess.judge import ChangeTest
from tasks.assess.side_by_side import judge_scores

Gain = Literal["helps", "harms", "not shown", "no item differs", "not judged"]
GAINS: Mapping[str, Gain] = {"PROMOTE": "helps", "BLOCK": "harms", "HOLD": "not shown"}
ANSWERS = {
    "helps": "Yes: at equal steps the curated tickets beat the raw ones ({difference}, at least {lower}).",
    "harms": "No: at equal steps the raw tickets are better ({difference}, at most {upper}); check the steps that "
    "harm, or curate less.",
}
NOT_SHOWN = (
    "Not shown: at equal steps curation changes the result by {difference} (bounds {lower} to {upper}); more held-out "
    "items would decide."
)


class AblationRow(BaseModel, frozen=True, extra="forbid"):
    """One arm, and the curated arm's gain over it."""

    arm: str
    """`curated`, `raw`, `raw-k`, `without-STEP`."""
    description: str
    """How its tickets were curated."""
    n_rows: int | None = None
    """Train tickets after its curation."""
    n_examples: int | None = None
    """Of those, the examples that it was trained on."""
    n_steps: int | None = None
    value: float | None = None
    """Mean of the metric on the held-out items."""
    difference: float | None = None
    """curated - arm."""
    lower: float | None = None
    upper: float | None = None
    """One-sided confidence bounds of the difference, at `confidence`."""
    won: int | None = None
    """Items on which the curated arm is better."""
    lost: int | None = None
    gain: Gain | None = None
    """Whether the curation that this arm lacks helps; null for the curated arm."""
    reason: str = ""
    trained: str = ""
    """Digest of its weights."""


class AblationTable(BaseModel, frozen=True, extra="forbid"):
    """All arms and the answer; JSON in `.tunegate/ablations`, read by `tunegate study advise`."""

    pipeline: str
    metric: str
    n_items: int
    n_steps: int
    seed: int
    confidence: float
    """Of each bound; the comparisons share the error probability."""
    items: str
    """Digest of the held-out items."""
    rows: tuple[AblationRow, ...]
    answer: str
    """Whether curation improves the model, in one sentence."""


def shared_confidence(gates: GatesSpec, n_comparisons: int) -> float:
    """One-sided confidence of each bound, so that all bounds of a table hold together.

    Source: Bonferroni. A gate needs no such correction, since all its rules must be met; here each row is a claim.
    """
    return 1 - (1 - gates.confidence) / max(1, n_comparisons)


def judge_arm(
    row: AblationRow, *, curated: Scores, arm: Scores, test: ChangeTest, items: EvalSet, cluster_by: str | None = None
) -> AblationRow:
    """Add the curated arm's gain over this one, with the curated arm as the candidate.

    Args:
        test: The gate's `improve`, at `shared_confidence`.
        cluster_by: `gates.cluster_by`.
    """
    try:
        judged = judge_scores(curated, arm, test, items=items, cluster_by=cluster_by)
    except GateError as error:
        return row.model_copy(update={"gain": "not judged", "reason": error.message})
    gain = GAINS.get(judged.verdict, "not judged") if judged.won or judged.lost else "no item differs"
    same = {name: getattr(judged, name) for name in ("difference", "lower", "upper", "won", "lost", "reason")}
    return row.model_copy(update={"value": judged.reference, "gain": gain, **same})


def answer_of(rows: Mapping[str, AblationRow]) -> str:
    """Say whether curation improves the model: by the arm `raw`, else by the steps that were compared.

    >>> row = AblationRow(arm="raw", description="", difference=0.2, lower=0.1, upper=0.3, gain="helps", n_examples=90)
    >>> answer_of({"raw": row})
    'Yes: at equal steps the curated tickets beat the raw ones (+0.200, at least +0.100).'
    """
    raw = rows.get("raw")
    if raw is None:
        helping = [row.arm for row in rows.values() if row.gain == "helps"]
        steps = f"steps shown to help: {', '.join(helping)}" if helping else "no step is shown to help"
        return f"Not compared: the arm raw was left out; {steps}."
    if raw.difference is None or raw.lower is None or raw.upper is None or raw.gain == "not judged":
        return f"Not known: {raw.reason or 'the raw arm was not judged'}"
    return ANSWERS.get(raw.gain or "", NOT_SHOWN).format(
        difference=f"{raw.difference:+.3f}", lower=f"{raw.lower:+.3f}", upper=f"{raw.upper:+.3f}"
    )
