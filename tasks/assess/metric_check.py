"""Check that a declared metric which alone compares with the champion tells right answers from wrong ones.

A metric that is 1 for whatever is answered finds no candidate worse. So the metric also scores answers that no model
gave: the reference answers, those of other items, and empty ones. It must favour the first by more than the loss that
its rule tolerates. `flows/gate_checks.py` adds the step, `tasks/assess/gate.py` the finding.

Source: ICH E10 (2000), Choice of Control Group in Clinical Trials, section 1.5: a comparison that shows two treatments
to be alike needs assay sensitivity, the ability to tell an effective from an ineffective one.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Predictions
from schemas.comparison import compares_quality
from schemas.errors import ConfigError
from schemas.evaluation import EvaluateSpec
from schemas.evidence import CheckEvidence
from schemas.gates import GateRule, GatesSpec
from schemas.metrics import MetricTraits, traits_of
from schemas.verdicts import Finding
from tasks.assess.check import Measurement, finding, measured
from tasks.assess.score import score_answers
from tasks.files import write_json
from tasks.step import as_step

METRIC_CHECK = "metric_check"
RULE = "the metric of the comparison tells right answers from wrong ones"
SETS = ("reference", "swapped", "empty")


@as_step(METRIC_CHECK, libraries=("pyarrow", "sacrebleu"))
def check_metrics(out: Path, *, items: EvalSet, evaluate: EvaluateSpec) -> CheckEvidence:
    """Write `evidence.json`: the mean of each declared metric over each set of answers; null where it has none.

    Args:
        evaluate: The metrics to check, and what they need.
    """
    table = pq.read_table(items.root / "items.parquet", columns=["item_id", "answer"]).to_pydict()
    reference = dict(zip(map(str, table["item_id"]), map(str, table["answer"]), strict=True))
    given = {"reference": reference, "swapped": _swapped(reference), "empty": dict.fromkeys(reference, "")}
    values: dict[str, float | None] = {}
    for name in SETS:
        means = _means(given[name], items, evaluate)
        values |= {f"{metric}_{name}": means.get(metric) for metric in evaluate.declared_names()}
    write_json(out / "evidence.json", values)
    return CheckEvidence(root=out, check=METRIC_CHECK, n_items=items.n_items, values=values)


def metric_findings(
    checks: Sequence[CheckEvidence],
    gates: GatesSpec,
    *,
    metrics: Sequence[str],
    known: Mapping[str, MetricTraits],
) -> Iterator[Finding]:
    """Yield whether one of the metrics can make the comparison; nothing if there are none to check.

    Args:
        metrics: Those that alone compare with the champion (`schemas.comparison.declared_comparison`).
    """
    if not metrics:
        return
    found = [each for each in checks if each.check == METRIC_CHECK]
    if len(found) != 1:
        nothing = Measurement(None, n_items=0, method="none")
        reason = f"the gate got {len(found)} results of the check instead of one; run again."
        yield finding("check", RULE, "ERROR", nothing, reason=reason)
        return
    rules = [rule for rule in gates.judged_rules if compares_quality(rule, traits_of(rule.metric, known))]
    judged = [
        _favours_reference(rule, found[0], traits_of(rule.metric, known)) for rule in rules if rule.metric in metrics
    ]
    met = any(favours for favours, _ in judged)
    reasons = "; ".join(dict.fromkeys(reason for favours, reason in judged if favours or not met))
    if not met:
        reasons += (
            ". Whatever is answered would pass; compare by a metric that tells them apart, such as gates.compare: "
            "{metric: chrf}"
        )
    n_items = found[0].n_items
    yield finding(
        "check", RULE, "PROMOTE" if met else "HOLD", Measurement(None, n_items=n_items, method="comparison"),
        reason=f"{reasons}.",
    )  # fmt: skip


def _favours_reference(rule: GateRule, evidence: CheckEvidence, traits: MetricTraits) -> tuple[bool, str]:
    """Return whether the rule's metric favours the reference answers by more than the rule tolerates, and its means."""
    change, sign = rule.change_threshold, 1.0 if traits.higher_is_better else -1.0
    tolerated = 0.0 if change is None or change.mode == "improve" else change.margin
    reference, swapped, empty = (measured(evidence, f"{traits.name}_{name}") for name in SETS)
    if reference is None or swapped is None or empty is None:
        return False, f"{traits.name} has no value for reference answers, swapped or empty ones"
    means = (
        f"{traits.name} is {reference:.3f} for the reference answers, {swapped:.3f} for those of other items and "
        f"{empty:.3f} for empty ones"
    )
    return min(sign * (reference - swapped), sign * (reference - empty)) > tolerated, means


def _swapped(reference: Mapping[str, str]) -> dict[str, str]:
    """Give every item the answer of another one: a different answer, unless most items have the same."""
    order = sorted(reference, key=lambda item: (reference[item], item))
    step = max(Counter(reference.values()).values(), default=0)
    return {item: reference[order[(place + step) % len(order)]] for place, item in enumerate(order)}


def _means(answers: Mapping[str, str], items: EvalSet, evaluate: EvaluateSpec) -> Mapping[str, float]:
    """Mean of each metric that has one; none if a metric's code fails on these answers."""
    rows = [
        {"item_id": item, "text": text, "n_new_tokens": len(text.split()), "finished": True, "loss": math.nan}
        for item, text in sorted(answers.items())
    ]
    with tempfile.TemporaryDirectory(prefix="tunegate-metric-check-") as scratch:
        given, scored = Path(scratch, "answers"), Path(scratch, "scores")
        given.mkdir()
        scored.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), given / "predictions.parquet")
        predictions = Predictions(root=given, n_items=len(rows), n_new_tokens=0)
        try:
            scores = score_answers(scored, items=items, predictions=predictions, evaluate=evaluate, arm="tuned")
        except ConfigError:
            return {}
        return scores.means
