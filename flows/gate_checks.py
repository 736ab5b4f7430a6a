"""Add the steps that measure the gate's checks.

A check is one step whose parameters are filled by name; only `forgetting` needs several steps. `flows/prepare.py` adds
the check of the comparison's metric, which is not declared.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import tasks.assess.checks  # noqa: F401  registers them
from flows.context.graph_context import GraphContext
from flows.finetune import Tuned
from flows.graph.graph import Graph
from flows.model_steps import ArmHandles, ModelSteps
from flows.prepare import Prepared
from schemas.artifacts import CheckEvidence, EvalSet, Scores, Splits
from schemas.checks import ForgettingSpec, JudgeSpec
from schemas.pipeline import PipelineSpec
from schemas.source import FilesSource
from schemas.spec import Spec
from schemas.verdicts import INCUMBENT
from tasks.assess.check import declared_checks
from tasks.assess.contamination import check_contamination, check_declared_examples
from tasks.assess.economics import find_gpu
from tasks.assess.endpoint_arm import inspect_answers
from tasks.assess.few_examples import FEW_EXAMPLES, count_few
from tasks.assess.llm_judge import judge_answers, labels_digest
from tasks.assess.metric_check import METRIC_CHECK
from tasks.assess.suite import score_suite
from tasks.model.canaries import planted_ids
from tasks.model.divergence import measure_divergence
from tasks.model.exposure import measure_exposure
from tasks.model.latency import measure_latency
from tasks.model.round_trip import check_round_trip
from tasks.sources.registry import fingerprint_source
from tasks.step import info_of

MEASURES: Mapping[str, Callable[..., CheckEvidence]] = {
    "contamination": check_contamination,
    "round_trip": check_round_trip,
    "canaries": measure_exposure,
    "latency": measure_latency,
    "judge": judge_answers,
}
"""Key under `gates` -> the step that measures it; `tasks/assess/checks.py` registers further checks with their step."""
SUITE_ARMS: dict[str, Literal["tuned", "zero_shot"]] = {"candidate": "tuned", "base": "zero_shot"}
"""Model that answers the suite -> arm of its scores."""
PROMPTING = ("zero_shot", "few_shot", "retrieval", "rag", "endpoint")
"""Arms that the judge compares with before there is a champion: the first that is declared."""


@dataclass
class Checked:
    """What the checks measured; handles until they run."""

    evidence: dict[str, CheckEvidence] = field(default_factory=dict)
    """Name of the check -> its evidence."""
    suite: tuple[Scores, ...] = ()
    """Of the candidate, and of its base."""


@dataclass(frozen=True)
class CheckAdder:
    """Adds the steps of the declared checks."""

    graph: Graph
    spec: PipelineSpec
    context: GraphContext
    splits: Splits
    prepared: Prepared
    tuned: Tuned
    arms: ArmHandles
    calibration: EvalSet | None = None
    """Tickets of `evaluate.abstain`, which no model may have learned."""
    found: Checked = field(default_factory=Checked)

    def add_all(self) -> Checked:
        gates = self.spec.gates
        for name, measure in MEASURES.items():
            declared = gates.timed if name == "latency" else getattr(gates, name)
            if declared is not None:
                external = name == "contamination" and self.spec.train.is_external
                self._measure(name, check_declared_examples if external else measure, declared)
        endpoint = self.spec.evaluate.endpoint
        if endpoint is not None and self.prepared.endpoint is not None:
            self.found.evidence[INCUMBENT] = self.graph.add(
                inspect_answers,
                answers=self.prepared.endpoint,
                prices=endpoint.prices,
                max_incomplete=endpoint.max_incomplete,
            )
        if gates.forgetting is not None:
            self._forgetting(gates.forgetting)
        if self.prepared.metric_check is not None:
            self.found.evidence[METRIC_CHECK] = self.prepared.metric_check
        dataset = self.tuned.dataset
        if self.context.limits_examples and self.spec.evaluate.routing_field is not None and dataset is not None:
            self.found.evidence[FEW_EXAMPLES] = self.graph.named(FEW_EXAMPLES).add(
                count_few,
                splits=self.splits,
                dataset=dataset,
                field=self.spec.evaluate.routing_field,
            )
        for check in declared_checks(gates):
            if check.measure is not None:
                self._measure(check.name, check.measure, check.declared(gates))
        return self.found

    def _measure(self, name: str, measure: Callable[..., CheckEvidence], declared: Spec) -> None:
        """Add one step, with the arguments that it has parameters for."""
        offered = {**dict(declared), "spec": declared, **self._offered}
        taken = inspect.signature(measure).parameters
        arguments = {argument: value for argument, value in offered.items() if argument in taken}
        reads = {"labels": labels_digest(declared, root=self.context.root)} if isinstance(declared, JudgeSpec) else {}
        if measure is check_declared_examples and (paths := self.spec.train.trained_on):
            files = FilesSource(kind="files", paths=paths)
            reads = {"trained_on": fingerprint_source(files, root=self.context.root)}
        self.found.evidence[name] = self.graph.named(info_of(measure).name, reads=reads).add(measure, **arguments)

    @cached_property
    def _offered(self) -> dict[str, Any]:
        """Arguments for the steps, besides their settings."""
        spec, tuned, prompts, answers = self.spec, self.tuned, self.arms.prompts, self.arms.answers
        champion, cost = self.context.registry_state.champion, spec.gates.cost
        before = "champion" if champion is not None else next((arm for arm in PROMPTING if arm in answers), None)
        return {
            "items": self.prepared.items,
            "calibration": self.calibration,
            "splits": self.splits,
            "dataset": tuned.dataset,
            "model": tuned.model,
            "trained": tuned.trained,
            "prompts": prompts["tuned"],
            "predictions": answers["tuned"],
            "decoding": spec.evaluate.decoding(),
            "root": self.context.root,
            # contamination and canaries
            "decontaminate": spec.curate.decontaminate,
            "trained_on": spec.train.trained_on,
            "prompt": spec.train.prompt,
            "planted": spec.train.canaries,
            "planted_ids": planted_ids(spec.train.canaries),
            # latency: the champion; before there is one, the base model
            "reference_prompts": prompts["tuned" if champion is None else "champion"],
            "reference_model": tuned.model if champion is None else champion.model,
            "reference_trained": None if champion is None else champion.trained,
            "usd_per_hour": None if cost is None else find_gpu(cost.machine).usd_per_hour,
            "usd_per_1k_max": None if cost is None else cost.usd_per_1k_max,
            "confidence": spec.gates.confidence,
            # judge
            "candidate": answers["tuned"],
            "reference": None if before is None else answers[before],
        }

    def _forgetting(self, declared: ForgettingSpec) -> None:
        """Let base and candidate answer the suite. Answers are keyed like all others, so a base answers it once."""
        suite = self.prepared.suite
        if suite is None:
            raise TypeError("the suite is not prepared")
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
        self.found.evidence["divergence"] = self.graph.add(
            measure_divergence, suite=suite, model=self.tuned.model, trained=self.tuned.trained, decoding=decoding
        )
