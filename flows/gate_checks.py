"""The steps that measure what the gate checks besides its rules; `flows/assess.py` adds them before the gate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import tasks.assess.checks  # noqa: F401  registers them
from flows.context.graph_context import GraphContext
from flows.finetune import Tuned
from flows.graph.graph import Graph
from flows.model_steps import Arms, ModelSteps
from schemas.artifacts import EvalSet, Scores, Splits
from schemas.canaries import ExposureSpec
from schemas.checks import ContaminationSpec, ForgettingSpec, LatencySpec, RoundTripSpec
from schemas.evidence import CheckEvidence
from schemas.judge import JudgeSpec
from schemas.pipeline import PipelineSpec
from schemas.spec import Spec
from tasks.assess.check import declared_checks
from tasks.assess.contamination import check_contamination
from tasks.assess.economics import find_gpu
from tasks.assess.llm_judge import judge_answers, labels_digest
from tasks.assess.suite import build_suite, score_suite
from tasks.model.canaries import planted_ids
from tasks.model.divergence import measure_divergence
from tasks.model.exposure import measure_exposure
from tasks.model.latency import measure_latency
from tasks.model.round_trip import check_round_trip

SUITE_ARMS: dict[str, Literal["tuned", "zero_shot"]] = {"candidate": "tuned", "base": "zero_shot"}
"""Who answers the suite, and the arm it is."""
PROMPTING = ("zero_shot", "few_shot", "retrieval", "endpoint")
"""Whom a judge compares with before there is a champion: the first that is declared."""


@dataclass
class Checked:
    """What the checks give the gate; handles while they have not run."""

    evidence: list[CheckEvidence] = field(default_factory=list)
    contamination: CheckEvidence | None = None
    latency: CheckEvidence | None = None
    suite: tuple[Scores, ...] = ()
    """Of the candidate, and of its base."""


def add_checks(
    graph: Graph, spec: PipelineSpec, context: GraphContext, *, splits: Splits, items: EvalSet, tuned: Tuned, arms: Arms
) -> Checked:
    """Add a step for each declared check."""
    adder = _CheckAdder(graph, spec, context, splits, items, tuned, arms)
    special: dict[str, Callable[[Any], None]] = {
        "contamination": adder.contamination,
        "round_trip": adder.round_trip,
        "canaries": adder.canaries,
        "latency": adder.latency,
        "judge": adder.judge,
        "forgetting": adder.forgetting,
    }
    for name, add in special.items():
        if (declared := getattr(spec.gates, name)) is not None:
            add(declared)
    for check in declared_checks(spec.gates):
        if check.measure is not None:
            adder.measure(check.measure, check.declared(spec.gates))
    return adder.found


@dataclass(frozen=True)
class _CheckAdder:
    """Adds the steps of each kind of check."""

    graph: Graph
    spec: PipelineSpec
    context: GraphContext
    splits: Splits
    items: EvalSet
    tuned: Tuned
    arms: Arms
    found: Checked = field(default_factory=Checked)

    def measure(self, measure: Callable[..., CheckEvidence], declared: Spec) -> None:
        """One step, which takes what it has parameters for."""
        offered: dict[str, Any] = {
            **dict(declared),
            "spec": declared,
            "items": self.items,
            "splits": self.splits,
            "dataset": self.tuned.dataset,
            "model": self.tuned.model,
            "trained": self.tuned.trained,
            "prompts": self.arms.prompts["tuned"],
            "predictions": self.arms.answers["tuned"],
            "decoding": self.spec.evaluate.decoding(),
        }
        taken = inspect.signature(measure).parameters
        arguments = {name: value for name, value in offered.items() if name in taken}
        self.found.evidence.append(self.graph.add(measure, **arguments))

    def contamination(self, declared: ContaminationSpec) -> None:
        """Does a trained ticket give a held-out item away?"""
        self.found.contamination = self.graph.add(
            check_contamination,
            dataset=self.tuned.dataset,
            splits=self.splits,
            items=self.items,
            spec=declared,
            decontaminate=self.spec.curate.decontaminate,
            planted=planted_ids(self.spec.train.canaries),
        )
        self.found.evidence.append(self.found.contamination)

    def round_trip(self, declared: RoundTripSpec) -> None:
        """Does the merged model answer as the adapter does?"""
        evidence = self.graph.add(
            check_round_trip,
            prompts=self.arms.prompts["tuned"],
            predictions=self.arms.answers["tuned"],
            model=self.tuned.model,
            trained=self.tuned.trained,
            decoding=self.spec.evaluate.decoding(),
            n_prompts=declared.n_prompts,
        )
        self.found.evidence.append(evidence)

    def canaries(self, declared: ExposureSpec) -> None:
        """Has the candidate kept made-up secrets?"""
        planted = self.spec.train.canaries
        if planted is None:
            return
        evidence = self.graph.add(
            measure_exposure,
            model=self.tuned.model,
            trained=self.tuned.trained,
            decoding=self.spec.evaluate.decoding(),
            planted=planted,
            alternatives=declared.alternatives,
        )
        self.found.evidence.append(evidence)

    def latency(self, declared: LatencySpec) -> None:
        """Candidate and champion in turn; without a champion, candidate and base."""
        cost, champion = self.spec.gates.cost, self.context.standing.champion
        prompts = self.arms.prompts
        self.found.latency = self.graph.add(
            measure_latency,
            prompts=prompts["tuned"],
            model=self.tuned.model,
            trained=self.tuned.trained,
            reference_prompts=prompts["champion"] if champion is not None else prompts["tuned"],
            reference_model=champion.model if champion is not None else self.tuned.model,
            reference_trained=champion.trained if champion is not None else None,
            decoding=self.spec.evaluate.decoding(),
            spec=declared,
            usd_per_hour=find_gpu(cost.machine).usd_per_hour if cost is not None else None,
            usd_per_1k_max=cost.usd_per_1k_max if cost is not None else None,
        )
        self.found.evidence.append(self.found.latency)

    def judge(self, declared: JudgeSpec) -> None:
        """Which of two answers is better? Against the champion, or the first prompting arm before there is one."""
        has_champion = self.context.standing.champion is not None
        before = "champion" if has_champion else next(arm for arm in PROMPTING if arm in self.arms.answers)
        reads = {"labels": labels_digest(declared, root=self.context.root)}
        evidence = self.graph.named("judge", reads=reads).add(
            judge_answers,
            items=self.items,
            candidate=self.arms.answers["tuned"],
            reference=self.arms.answers[before],
            spec=declared,
            root=self.context.root,
        )
        self.found.evidence.append(evidence)

    def forgetting(self, declared: ForgettingSpec) -> None:
        """Base and candidate answer the suite; answers are keyed as all answers, so a base does it once."""
        suite = self.graph.add(
            build_suite,
            suite=declared.suite,
            max_items=declared.max_items,
            seed=declared.seed,
            format=self.spec.train.format,
        )
        update = {"max_new_tokens": declared.max_new_tokens}
        decoding = self.spec.evaluate.decoding().model_copy(update=update)
        steps, scores = ModelSteps(self.graph, self.context), dict[str, Scores]()
        for arm, scored_as in SUITE_ARMS.items():
            trained = self.tuned.trained if arm == "candidate" else None
            answers = steps.answers(f"suite_{arm}", suite, self.tuned.model, decoding, trained=trained)
            scores[arm] = self.graph.named("scores", f"suite_{arm}").add(
                score_suite, suite=suite, predictions=answers, arm=scored_as
            )
        self.found.suite = scores["candidate"], scores["base"]
        evidence = self.graph.add(
            measure_divergence,
            suite=suite,
            model=self.tuned.model,
            trained=self.tuned.trained,
            decoding=decoding,
        )
        self.found.evidence.append(evidence)
