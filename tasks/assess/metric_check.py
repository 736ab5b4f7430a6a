"""Check that a declared metric which alone compares with the champion distinguishes right answers from wrong ones.

A metric that is always 1 finds no candidate worse. So the metric also scores answers that no model gave: the reference
answers, those of other items, several references joined, and empty ones. It must favour the first by more than the loss
that its rule tolerates, and not by chance.

Source: ICH E10 (2000), Choice of Control Group in Clinical Trials, section 1.5: a comparison that shows two treatments
to be alike needs assay sensitivity, the ability to tell an effective from an ineffective one.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import Artifact, CheckEvidence, EvalSet, Predictions
from schemas.comparison import comparison_rules
from schemas.evaluation import EvaluateSpec
from schemas.gates import GateRule, GatesSpec
from schemas.metrics import EntryPointMetric, MetricTraits, SqlMetric, traits_of
from schemas.verdicts import Finding
from tasks.assess.check import Measurement, finding, measured
from tasks.assess.contract import sign_p
from tasks.assess.items import extra_items
from tasks.assess.score import score_answers
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS
from tasks.step import as_step
from tasks.storage.files import write_json
from tasks.tickets.row_fault import is_row_fault

METRIC_CHECK = "metric_check"
RULE = "the metric of the comparison distinguishes right answers from wrong ones"
WRONG = {"swapped": "those of other items", "joined": "several of them joined", "empty": "empty ones"}
MOST_JOINED = 8
"""References in one answer: all labels of most files, and a long reply."""
_OF_A_METRIC = ("TG0199", "TG0837")
"""Its code or its SQL fails, or takes too long."""
SETS = {"reference": "the reference answers", **WRONG}


@as_step(METRIC_CHECK, libraries=("pyarrow", "sacrebleu", "scipy"))
def check_metrics(out: Path, *, items: EvalSet, evaluate: EvaluateSpec) -> CheckEvidence:
    """Write `evidence.json`: the mean of each declared metric over each set of answers; null where it has none.

    `<metric>_<set>_p` is the p-value of the sign test: that of "wrong answers are better as often as they are worse".
    Items that only the slices count are left out.

    Args:
        evaluate: The metrics to check, and what they need.
    """
    table = pq.read_table(items.root / "items.parquet", columns=["item_id", "answer"]).to_pydict()
    reference = dict(zip(map(str, table["item_id"]), map(str, table["answer"]), strict=True))
    extra = extra_items(items)
    planned = {item: answer for item, answer in reference.items() if item not in extra}
    given = {
        "reference": reference,
        "swapped": reference | _swapped(planned),
        "joined": reference | _joined(planned),
        "empty": dict.fromkeys(reference, ""),
    }
    values: dict[str, float | None] = {}
    for metric in evaluate.metrics:  # each alone: one that fails says nothing of the others
        name, alone = metric.traits().name, evaluate.model_copy(update={"metrics": (metric,)})
        scored = {each: _scored(answers, items, alone, name) for each, answers in given.items()}
        sign = 1.0 if metric.traits().higher_is_better else -1.0
        for each, found in scored.items():
            mean = math.fsum(found.get(item, math.nan) for item in planned) / len(planned)
            values[f"{name}_{each}"] = mean if math.isfinite(mean) else None
        for each in WRONG:
            gains = [
                sign * (scored[each].get(item, math.nan) - scored["reference"].get(item, math.nan)) for item in planned
            ]
            values[f"{name}_{each}_p"] = float(sign_p(sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)))
    write_json(out / "evidence.json", values)
    return CheckEvidence(root=out, check=METRIC_CHECK, n_items=len(planned), values=values)


def own_metrics(evaluate: EvaluateSpec) -> EvaluateSpec | None:
    """Return what the metrics in the user's own code need; None if none is declared."""
    metrics = tuple(metric for metric in evaluate.metrics if isinstance(metric, SqlMetric | EntryPointMetric))
    return EvaluateSpec(fields=evaluate.fields, metrics=metrics, slices=()) if metrics else None


@as_step("metrics", libraries=("pyarrow", "sacrebleu"))
def try_metrics(out: Path, *, items: EvalSet, evaluate: EvaluateSpec) -> Artifact:
    """Score the reference answers, so that a metric whose code fails is found before a training; the result is empty.

    Raises:
        ConfigError: TG0199, as `score_answers`.
    """
    table = pq.read_table(items.root / "items.parquet", columns=["item_id", "answer"]).to_pydict()
    with _given(dict(zip(map(str, table["item_id"]), map(str, table["answer"]), strict=True))) as predictions:
        score_answers(predictions.root, items=items, predictions=predictions, evaluate=evaluate, arm="tuned")
    return Artifact(root=out)


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
    n_items = found[0].n_items
    judged = [
        _favours_reference(rule, found[0], traits_of(rule.metric, known), alpha=1 - gates.confidence)
        for rule in comparison_rules(gates, known)
        if rule.metric in metrics
    ]
    met = any(favours for favours, _ in judged)
    reasons = "; ".join(dict.fromkeys(reason for favours, reason in judged if favours or not met))
    if not met:
        other = "chrf" if n_items >= MIN_CONTINUOUS_ITEMS else "exact"
        reasons += (
            f". Wrong answers may pass; compare by a metric that distinguishes them, such as gates.compare: "
            f"{{metric: {other}}}"
        )
    yield finding(
        "check", RULE, "PROMOTE" if met else "HOLD", Measurement(None, n_items=n_items, method="comparison"),
        reason=f"{reasons}.",
    )  # fmt: skip


def _favours_reference(
    rule: GateRule, evidence: CheckEvidence, traits: MetricTraits, *, alpha: float
) -> tuple[bool, str]:
    """Return whether the rule's metric favours the reference answers by more than the rule tolerates, and why.

    Args:
        alpha: Error probability of the sign test: a metric that has nothing to do with the answers favours them, too,
            on some items.
    """
    change, name, sign = rule.change_threshold, traits.name, 1.0 if traits.higher_is_better else -1.0
    tolerated = 0.0 if change is None or change.mode == "improve" else change.margin
    means = {each: measured(evidence, f"{name}_{each}") for each in SETS}
    if missing := [SETS[each] for each, mean in means.items() if mean is None]:
        return False, f"{name} has no value for {' and '.join(missing)}: its code must return a number for any answer"
    right, *wrong = (mean or 0.0 for mean in means.values())
    least = min(sign * (right - mean) for mean in wrong)
    *others, last = (f"{mean:.3f} for {shown}" for mean, shown in zip(wrong, WRONG.values(), strict=True))
    reason = f"{name} is {right:.3f} for the reference answers, {', '.join(others)} and {last}"
    if least <= tolerated:
        if least > 0:
            reason += f", and a loss of {tolerated:g} is tolerated: a margin under {least:.3g} would do"
        return False, reason
    p_values = [measured(evidence, f"{name}_{each}_p") for each in WRONG]
    if not all(p is not None and p <= alpha for p in p_values):
        return False, f"{reason}, which may be chance"
    return True, reason


def _swapped(reference: Mapping[str, str]) -> dict[str, str]:
    """Give every item the answer of another one: a different answer, unless most items have the same.

    Neighbours in the order of the texts are alike, such as answers that begin with the same label, so each item gets
    the answer half of the order away.
    """
    order = sorted(reference, key=lambda item: (reference[item], item))
    step = max((len(order) // 2, *Counter(reference.values()).values()))
    return {item: reference[order[(place + step) % len(order)]] for place, item in enumerate(order)}


def _joined(reference: Mapping[str, str]) -> dict[str, str]:
    """Give every item several different references, its own in the middle: an answer that lists all labels is right
    wherever the metric looks for the right one anywhere.

    >>> _joined({"a": "billing", "b": "delivery", "c": "returns"})["b"].split()
    ['returns', 'delivery', 'billing']
    >>> _joined({"a": "yes", "b": "no"})["b"].split()
    ['yes', 'no', 'yes']
    """
    different = sorted(set(reference.values()))
    step = max(1, len(different) // MOST_JOINED)
    answers = {}
    for place, own in enumerate(different):
        others = [different[(place + step * number) % len(different)] for number in range(1, MOST_JOINED)]
        others = list(dict.fromkeys(text for text in others if text != own))
        middle = (len(others) + 1) // 2
        answers[own] = "\n".join([*others[:middle], own, *(others[middle:] or others)])
    return {item: answers[text] for item, text in reference.items()}


@contextmanager
def _given(answers: Mapping[str, str]) -> Iterator[Predictions]:
    """Write given answers as a model's, into a folder that is removed."""
    rows = [
        {"item_id": item, "text": text, "n_new_tokens": len(text.split()), "finished": True, "loss": math.nan}
        for item, text in sorted(answers.items())
    ]
    with tempfile.TemporaryDirectory(prefix="tunegate-metric-check-") as scratch:
        pq.write_table(pa.Table.from_pylist(rows), Path(scratch, "predictions.parquet"))
        yield Predictions(root=Path(scratch), n_items=len(rows), n_new_tokens=0)


def _scored(answers: Mapping[str, str], items: EvalSet, evaluate: EvaluateSpec, metric: str) -> Mapping[str, float]:
    """Item -> value of the metric; empty if its code fails on these answers."""
    with _given(answers) as predictions:
        scored = predictions.root / "scores"
        scored.mkdir()
        try:
            score_answers(scored, items=items, predictions=predictions, evaluate=evaluate, arm="tuned")
        except Exception as error:
            # A failing disk says nothing about the metric, even as the cause of an error of ours.
            if not is_row_fault(error, _OF_A_METRIC):
                raise
            return {}
        wanted = pq.read_table(scored / "scores.parquet", filters=[("metric", "=", metric)]).to_pydict()
    return dict(zip(wanted["item_id"], wanted["value"], strict=True))
