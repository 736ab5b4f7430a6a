"""Gathers what is recorded about a pipeline as evidence for `tunegate advise`; supposes nothing, changes nothing.

The rules and the conclusion are in `tasks/assess/advice.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from flows.costs import check_machine, costs_of, newest_run
from flows.recorded import Recorded, spec_of
from flows.settings import Settings
from flows.shapes import dims_of
from schemas.artifacts import CurationCard, EvalSet, ModelRef, Scores, Splits, TrainedRef
from schemas.curation_card import CardNumbers
from schemas.errors import ConfigError, TunegateError
from schemas.metrics import MetricTraits
from schemas.pipeline import PipelineSpec
from tasks.assess.ablation import AblationTable
from tasks.assess.advice import Evidence, Fit
from tasks.assess.consistency import form_shares
from tasks.assess.economics import PriceBook
from tasks.assess.evidence import PROMPTING_ARMS, ArmScores, best_prompting_arm
from tasks.assess.judge import Judgement, judge_value
from tasks.assess.side_by_side import judge_scores
from tasks.train.memory import fit_methods, forecast, workload_of

ARMS = ("tuned", *PROMPTING_ARMS, "majority", "tfidf")


def evidence_of(
    spec: PipelineSpec,
    settings: Settings,
    *,
    root: Path,
    run_id: str | None = None,
    queries: float | None = None,
    machine: str | None = None,
    book: PriceBook,
) -> Evidence:
    """Everything that a run, an ablation and the shapes of the base model tell.

    Args:
        spec: Of pipelines.yaml; a run's scores are read by the configuration that it recorded.
        run_id: A run; null takes the newest that scored a tuned model, else the newest that curated.

    Raises:
        ConfigError: TG0103, the price book has no such card; TG0151, no such run or several.
    """
    check_machine(machine, book)
    if run_id is not None:
        recorded: Recorded | None = Recorded(settings, run_id)
    else:
        found = (newest_run(settings, spec.name, step=step) for step in ("scores_tuned", "decontaminate"))
        recorded = next((run for run in found if run is not None), None)
    absolute = (rule for rule in spec.gates.rules if rule.value_threshold is not None and rule.slice is None)
    known: dict[str, Any] = {
        "fits": _fits(spec, recorded, root), "ablation": _ablation(settings, spec.name), "queries": queries,
        "card": machine, "min_items": spec.gates.min_items,
        "limits": tuple(f"{rule.metric} {rule.value_threshold:g}" for rule in absolute),
    }  # fmt: skip
    if recorded is not None:
        known |= {"run_id": recorded.row.run_id, **_data(recorded), **_scored(recorded)}
        known["costs"] = costs_of(recorded, book=book, queries_per_month=queries)
    return Evidence(pipeline=spec.name, **known)


def _data(recorded: Recorded) -> dict[str, Any]:
    """Of curation, and the losses of the training."""
    splits, card = recorded.result("decontaminate", Splits), recorded.result("card", CurationCard)
    conflicts = None
    if card is not None:
        conflicts = CardNumbers.model_validate_json(card.numbers.read_bytes()).label_conflicts
    trained = recorded.result("train", TrainedRef)
    spec = spec_of(recorded.row)
    forms = None if splits is None else form_shares(splits, spec.evaluate, answer=spec.train.prompt.answer)
    return {
        "n_train": splits.n_train if splits else None,
        "n_checked": conflicts.n_checked if conflicts else None,
        "n_conflicting": conflicts.n_conflicting if conflicts else None,
        "forms": forms,
        "method": trained.method if trained else None,
        "train_loss": trained.train_loss if trained else None,
        "validation_loss": trained.validation_loss if trained else None,
    }


def _scored(recorded: Recorded) -> dict[str, Any]:
    """What the held-out scores of one run say."""
    spec, items, decision = spec_of(recorded.row), recorded.result("items", EvalSet), recorded.decision()
    traits = {each.name: each for each in spec.evaluate.traits()}
    first = traits[spec.gates.rules[0].metric]
    scores = {arm: found for arm in ARMS if (found := _scores(recorded, arm)) is not None}
    best = _best(scores, first)

    def judge(one: str, other: str | None, by: MetricTraits | None = first) -> Judgement | None:
        if other is None or by is None or one not in scores or other not in scores:
            return None
        try:
            return judge_scores(
                scores[one], scores[other], traits=by, confidence=spec.gates.confidence, against=other, items=items,
                cluster_by=spec.gates.cluster_by,
            )  # fmt: skip
        except TunegateError:
            return None

    return {
        "metric": first.name,
        "means": {arm: found.means[first.name] for arm, found in scores.items() if first.name in found.means},
        "n_items": items.n_items if items else None,
        "verdict": decision.verdict if decision else None,
        "best_prompting": best,
        "prompting_meets": None if best is None else _meets(spec, scores[best], traits),
        "tuned": judge("tuned", best),
        "retrieval": judge("retrieval", "few_shot"),
        "classifier": judge("tuned", "tfidf", traits.get(f"field_{spec.evaluate.routing_field}")),
    }


def _scores(recorded: Recorded, arm: str) -> Scores | None:
    found = (recorded.result(f"scores_{arm}", Scores, folder=folder) for folder in ("scores", "classifier"))
    return next((scores for scores in found if scores is not None), None)


def _best(scores: Mapping[str, Scores], traits: MetricTraits) -> str | None:
    arms = {arm: ArmScores(found, {traits.name: traits}) for arm, found in scores.items() if arm in PROMPTING_ARMS}
    if not arms:
        return None
    try:
        return best_prompting_arm(arms, next(iter(arms.values())), metric=traits.name, items=None).arm
    except TunegateError:
        return None


def _meets(
    spec: PipelineSpec, scores: Scores, traits: Mapping[str, MetricTraits]
) -> Literal["yes", "no", "not shown"] | None:
    """Every absolute limit of the gate, by bound; a metric that the arm lacks is not shown."""
    import numpy as np

    arm, verdicts = ArmScores(scores, traits), []
    for rule in spec.gates.rules:
        if rule.value_threshold is None or rule.slice is not None:
            continue
        try:
            values = np.array(list(arm.values(rule.metric).values()), np.float64)
        except TunegateError:
            verdicts.append("HOLD")
            continue
        judged = judge_value(
            values, metric=rule.metric, limit=rule.value_threshold, confidence=spec.gates.confidence,
            traits=traits[rule.metric], hard_limit=rule.hard_limit,
        )  # fmt: skip
        verdicts.append(judged.verdict)
    if not verdicts:
        return None
    return "no" if "BLOCK" in verdicts else "yes" if set(verdicts) == {"PROMOTE"} else "not shown"


def _fits(spec: PipelineSpec, recorded: Recorded | None, root: Path) -> dict[str, Fit]:
    """By the base model's own files where a run has it, else by the shapes that are shipped."""
    train = spec.train.first()
    model = None if recorded is None else recorded.result("base_model", ModelRef)
    work = None if model is None else workload_of(model, max_tokens=train.max_length)
    try:
        dims = work.dims if work is not None else dims_of(train, root)
    except ConfigError:
        return {}
    here = {}
    if work is not None:
        for method in ("full", "lora", "qlora"):
            # model_copy checks nothing: the learning rate of another method would be refused.
            here[method] = forecast(work, train.model_copy(update={"method": method})).fits
    fits = fit_methods(dims, train, max_tokens=train.max_length)
    return {fit.method: Fit(here.get(fit.method), fit.smallest_card) for fit in fits}


def _ablation(settings: Settings, pipeline: str) -> AblationTable | None:
    """The newest one that can be read."""
    files = sorted((settings.home / "ablations" / pipeline).glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(files):
        try:
            return AblationTable.model_validate(orjson.loads(path.read_bytes()))
        except (OSError, ValueError):  # pydantic's errors are ValueErrors
            continue
    return None
