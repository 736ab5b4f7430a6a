"""Is data quality the lever? Scores of the arms of an ablation in, a table with the gate's paired statistics out.

Knows nothing of curation, training or stores; `flows/ablation.py` runs the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.ablation import AblationRow, Gain
from schemas.artifacts import EvalSet, Scores
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.side_by_side import judge_scores

if TYPE_CHECKING:
    from schemas.gates import GatesSpec

GAINS: Mapping[str, Gain] = {"PROMOTE": "helps", "BLOCK": "harms", "HOLD": "not shown"}


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
    gain = GAINS.get(judged.verdict, "not judged")
    if not judged.won and not judged.lost:
        gain = "no item differs"
    return row.model_copy(
        update={
            "value": judged.reference,
            "difference": judged.difference,
            "lower": judged.lower,
            "upper": judged.upper,
            "won": judged.won,
            "lost": judged.lost,
            "gain": gain,
            "reason": judged.reason,
        }
    )


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
    if raw.gain == "helps":
        gained = f"{raw.difference:+.3f}, at least {raw.lower:+.3f}"
        return f"Yes: at equal steps the curated tickets beat the raw ones ({gained})."
    if raw.gain == "harms":
        return (
            f"No: at equal steps the raw tickets teach more ({raw.difference:+.3f}, at most {raw.upper:+.3f}); look at "
            "the steps that harm, or curate less."
        )
    return (
        f"Not shown: at equal steps curation changes the result by {raw.difference:+.3f}, and anything from "
        f"{raw.lower:+.3f} to {raw.upper:+.3f} fits; more held-out items would decide."
    )
