"""Every arm of a run with its scores and the number of examples that it learned from or was shown."""

from collections.abc import Sequence
from typing import Any

from flows.views.run_reader import Recorded
from schemas.artifacts import DatasetRef, GateDecision, Scores
from schemas.counted import counted
from schemas.report import ArmLine
from tasks.assess.evidence import PROMPTING_ARMS

SHOWS_EXAMPLES = ("few_shot", "retrieval")


def arm_lines(recorded: Recorded) -> tuple[ArmLine, ...]:
    """Return the arms, the candidate first, then the champion."""
    found = []
    for name in recorded.keys:
        scores = recorded.scores(name.removeprefix("scores_")) if name.startswith("scores_") else None
        if scores is not None and name == f"scores_{scores.arm}":  # others belong to trainings of a selection
            means = {metric: value if value == value else None for metric, value in scores.means.items()}
            n_examples = _n_examples(recorded, scores)
            found.append(ArmLine(arm=scores.arm, n_items=scores.n_items, n_examples=n_examples, means=means))
    return tuple(sorted(found, key=lambda arm: (arm.arm != "tuned", arm.arm != "champion", arm.arm)))


def arm_rows(arms: Sequence[ArmLine], decision: GateDecision) -> list[dict[str, Any]]:
    """Return a row of text cells per arm, with the metrics that the verdict is about."""
    judged = dict.fromkeys(each.metric for each in decision.findings if not each.is_check)
    metrics = [metric for metric in judged if any(metric in arm.means for arm in arms)]
    return [
        {
            "arm": arm.name,
            "examples": "" if arm.n_examples is None else f"{arm.n_examples:,}",
            "n": str(arm.n_items),
            **{metric: "" if (mean := arm.means.get(metric)) is None else f"{mean:.3f}" for metric in metrics},
        }
        for arm in arms
    ]


def compare_examples(arms: Sequence[ArmLine], metric: str) -> str:
    """Return how the candidate compares at equal examples, and with what all tickets teach; empty without both.

    >>> lines = [("tuned", 32, 0.21), ("tfidf_examples", 32, 0.31), ("tfidf", 1315, 0.9)]
    >>> arms = [ArmLine(arm=arm, n_items=50, n_examples=n, means={"exact": mean}) for arm, n, mean in lines]
    >>> compare_examples(arms, "exact")
    'With 32 examples exact is 0.21, against 0.31 of TF-IDF; TF-IDF with all 1,315: 0.90.'
    """
    found = {arm.arm: (mean, arm.n_examples) for arm in arms if (mean := arm.means.get(metric)) is not None}
    if "tuned" not in found:
        return ""
    mine, n_mine = found["tuned"]
    start = f"With {counted(n_mine or 0, 'example')} {metric} is {mine:.2f}, against"
    if "tfidf" in found:
        best, n_all = found["tfidf"]
        same = found.get("tfidf_examples")  # left out where the candidate learned from all tickets, too
        whole = "" if same is None else f"; TF-IDF with all {n_all:,}: {best:.2f}"
        return f"{start} {best if same is None else same[0]:.2f} of TF-IDF{whole}."
    prompted = {arm: mean for arm, (mean, _) in found.items() if arm in PROMPTING_ARMS}
    if not prompted:
        return ""
    first = max(prompted, key=lambda arm: prompted[arm])
    return f"{start} {prompted[first]:.2f} of {first}."


def _n_examples(recorded: Recorded, scores: Scores) -> int | None:
    """Examples of the training, in the prompt, or of the classifier; None if its dataset is no longer there."""
    if scores.n_examples is not None:
        return scores.n_examples
    if scores.arm in ("tuned", "champion", "anchor"):
        taught = recorded if scores.arm == "tuned" else _run_of(recorded, scores.arm)
        dataset = None if taught is None else taught.of_training("encode", DatasetRef)
        return None if dataset is None else dataset.n_train
    return int(recorded.row.config["evaluate"]["few_shot_examples"]) if scores.arm in SHOWS_EXAMPLES else 0


def _run_of(recorded: Recorded, arm: str) -> Recorded | None:
    """Return the run that made the champion or the anchor of this run's verdict."""
    decision = recorded.decision()
    version = None if decision is None else getattr(decision, f"{arm}_version")
    rows = recorded.ledger.candidates(recorded.row.model_name)
    run_id = next((row.ref.run_id for row in rows if row.ref.version == version), None)
    return None if run_id is None else Recorded(recorded.settings, run_id)
