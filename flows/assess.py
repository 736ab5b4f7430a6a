"""Stage three: candidate, champion and baselines answer the same held-out items; the gate gives a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flows.context.graph_context import GraphContext
from flows.context.registry_state import RegistryState
from flows.finetune import Tuned
from flows.gate_checks import PROMPTING, CheckAdder, Checked
from flows.graph.graph import Graph
from flows.model_steps import Arms, ModelSteps, earlier_models, metric_code, metric_libraries
from flows.workspace.ray_cluster import answering_of
from schemas.artifacts import (
    ChampionRef,
    EvalSet,
    GateDecision,
    InterimAnswers,
    LabelSources,
    ModelArm,
    ModelRef,
    Predictions,
    PromptSet,
    Scores,
    Splits,
    TrainedRef,
)
from schemas.comparison import declared_comparison
from schemas.endpoint import EndpointSpec
from schemas.evaluation import Arm, DecodingSpec, EvaluateSpec
from schemas.evidence import CheckEvidence
from schemas.gates import GatesSpec
from schemas.metrics import RIGHT
from schemas.pipeline import PipelineSpec
from schemas.training import Format, PromptSpec
from schemas.verdicts import SeenItems
from tasks.assess.baselines import score_classifier
from tasks.assess.diagnosis import PastFacts
from tasks.assess.endpoint_arm import answer_by_endpoint
from tasks.assess.evidence import BASELINE_ARMS
from tasks.assess.gate import GateContext, decide
from tasks.assess.items import select_items
from tasks.assess.labels import LABELLED, add_right, slices_count
from tasks.assess.prompts import build_prompts
from tasks.corpus.build import cite_as_served
from tasks.model.generate import AnsweredBefore, generate_answers
from tasks.model.interim_answers import answer_until_futile, take_answers
from tasks.monitor.label_sources import compare_label_sources
from tasks.prompts import insert_labels

PromptingArm = Literal["zero_shot", "few_shot", "retrieval", "rag"]
PROMPTING_ARMS: tuple[PromptingArm, ...] = ("zero_shot", "few_shot", "retrieval", "rag")
CLASSIFIER_ARMS: tuple[Literal["majority", "tfidf"], ...] = ("majority", "tfidf")


@dataclass(frozen=True)
class Assessed:
    """The stage's results; handles while it has not run."""

    items: EvalSet
    arms: Arms
    checks: Checked
    decision: GateDecision


def assess(graph: Graph, spec: PipelineSpec, context: GraphContext, *, splits: Splits, tuned: Tuned) -> Assessed:
    """Add the stage. Answers are keyed by model, prompts and decoding: base and champion answer each set once."""
    registry_state = context.registry_state
    earlier = earlier_models(spec, registry_state)
    with graph.stage("assess"):
        items = _items(graph, spec, splits, earlier, registry_state.seen)
        arms = Arms()
        adder = _ArmAdder(graph, spec, context, splits, items, arms)
        for arm in _prompting_arms(spec, registry_state):
            adder.prompting(arm, tuned.model)
        if spec.evaluate.endpoint is not None:
            adder.endpoint(spec.evaluate.endpoint)
        for name in CLASSIFIER_ARMS:
            if name in spec.evaluate.arms and spec.evaluate.routing_field:
                adder.classifier(name, spec.evaluate.routing_field)
        if spec.gates.interim is None:
            adder.tuned("tuned", spec.train.prompt, spec.train.format, tuned.model, tuned.trained)
        for earlier_arm, ref in earlier.items():
            # It answers as it is served: with the prompt, format and longest answer that it was judged with.
            shown = items
            if ref.prompt.shows_passages:
                shown = graph.named("passages", earlier_arm).add(cite_as_served, items=items, bundle=ref.bundle)
            adder.tuned(
                earlier_arm, ref.prompt, ref.trained.format, ref.model, ref.trained, items=shown,
                max_new_tokens=ref.max_new_tokens,
            )  # fmt: skip
        seen = None
        if spec.gates.interim is not None:  # after the arms that it is compared with, which all candidates share
            seen = adder.candidate(tuned)
        if spec.evaluate.labels is not None:
            adder.labelled(_labelled_arms(spec, arms))
        checks = CheckAdder(graph, spec, context, splits, items, tuned, arms).add_all()
        decision = graph.named("gate").grow(
            add_gate,
            spec=spec,
            registry_state=registry_state,
            items=items,
            model=tuned.model,
            trained=tuned.trained,
            candidate=arms.scores["tuned"],
            baselines=tuple(arms.scores[arm] for arm in BASELINE_ARMS if arm in arms.scores),
            champion=arms.scores.get("champion"),
            anchor=arms.scores.get("anchor"),
            checks=tuple(checks.evidence.values()),
            suite=checks.suite,
            interim=seen,
            labels=_label_sources(graph, spec, splits, registry_state),
        )
    return Assessed(items, arms, checks, decision)


def _label_sources(
    graph: Graph, spec: PipelineSpec, splits: Splits, registry_state: RegistryState
) -> LabelSources | None:
    """Add the check of labels by file and week, once there is a champion to tell a bad week from a bad candidate."""
    if registry_state.champion is None:
        return None
    field = spec.evaluate.routing_field or "category"
    return graph.add(compare_label_sources, splits=splits, known=registry_state.past.splits, field=field)


def _prompting_arms(spec: PipelineSpec, registry_state: RegistryState) -> tuple[PromptingArm, ...]:
    """Return the declared ones; without any, the one that takes the place of a champion in each comparison with it."""
    declared = tuple(arm for arm in PROMPTING_ARMS if arm in spec.evaluate.arms)
    gates = spec.gates
    replaces = gates.compare.off is None and gates.if_missing == "baseline" and registry_state.champion is None
    return declared or (("zero_shot",) if replaces and spec.evaluate.endpoint is None else ())


def _items(
    graph: Graph, spec: PipelineSpec, splits: Splits, earlier: dict[ModelArm, ChampionRef], seen: SeenItems
) -> EvalSet:
    """Add the held-out items. An item without a prompt in some arm is left out of all arms."""
    evaluate, prompt, guard = spec.evaluate, spec.train.prompt, spec.gates.slices
    system = insert_labels(evaluate.baseline_system, ()) or prompt.system
    baseline = prompt.model_copy(update={"system": system})
    prompts = dict.fromkeys((prompt, baseline, *(ref.prompt for ref in earlier.values())))
    return graph.add(
        select_items,
        splits=splits,
        max_items=evaluate.max_items,
        seed=evaluate.seed,
        answer=prompt.answer,
        choose=evaluate.choose,
        stratify=evaluate.routing_field,
        prompts=tuple(prompts),
        seen=seen,
        slices=() if guard is None else guard.by,
        top_up=0 if guard is None else guard.top_up,
    )


def _labelled_arms(spec: PipelineSpec, arms: Arms) -> tuple[str, ...]:
    """Return the candidate and what rules on `right` compare it with: fewer arms differ on fewer items."""
    gates = spec.judged_gates
    changes = [rule.change_threshold for rule in gates.judged_rules if rule.metric == RIGHT and rule.change_threshold]
    wanted: list[str] = ["champion", "anchor"]
    if "champion" not in arms.scores or any(change.against == "best_baseline" for change in changes):
        wanted += PROMPTING
    return ("tuned", *(arm for arm in wanted if arm in arms.answers))


@dataclass(frozen=True)
class _ArmAdder:
    """Adds the arms' prompts, answers and scores."""

    graph: Graph
    spec: PipelineSpec
    context: GraphContext
    splits: Splits
    items: EvalSet
    arms: Arms

    def prompting(self, arm: PromptingArm, model: ModelRef) -> None:
        """Add the base model, with only the instruction or with examples."""
        self.arms.prompts[arm] = self._baseline_prompts(arm, arm)
        self._answer_and_score(arm, model, self.spec.evaluate.decoding())

    def _baseline_prompts(self, name: str, arm: PromptingArm) -> PromptSet:
        evaluate, train = self.spec.evaluate, self.spec.train
        shows = arm in ("few_shot", "retrieval")
        label = evaluate.routing_field if evaluate.lists_labels else None
        libraries = ("scikit-learn", "numpy") if arm == "retrieval" else ()
        return self.graph.named("prompts", name, libraries=libraries).add(
            build_prompts,
            items=self.items,
            arm=arm,
            prompt=train.prompt,
            format=train.format,
            baseline_system=evaluate.baseline_system,
            splits=self.splits if shows or label else None,
            n_examples=evaluate.few_shot_examples if shows else 0,
            seed=evaluate.seed if arm == "few_shot" else 0,
            label=label,
        )

    def tuned(
        self,
        arm: ModelArm,
        prompt: PromptSpec,
        form: Format,
        model: ModelRef,
        trained: TrainedRef,
        *,
        items: EvalSet | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        """Add a trained model: the candidate, the champion or the anchor.

        Args:
            items: The held-out items with the passages that it is served with; the candidate's if not given.
            max_new_tokens: Longest answer that it is served with; the candidate's if not given.
        """
        self.arms.prompts[arm] = self._trained_prompts(arm, prompt, form, items)
        decoding = self.spec.evaluate.decoding()
        if max_new_tokens is not None:
            decoding = decoding.model_copy(update={"max_new_tokens": max_new_tokens})
        self._answer_and_score(arm, model, decoding, trained)

    def _trained_prompts(
        self, arm: ModelArm, prompt: PromptSpec, form: Format, items: EvalSet | None = None
    ) -> PromptSet:
        return self.graph.named("prompts", arm).add(
            build_prompts, items=items or self.items, arm="tuned", prompt=prompt, format=form
        )

    def _answer_and_score(
        self, arm: PromptingArm | ModelArm, model: ModelRef, decoding: DecodingSpec, trained: TrainedRef | None = None
    ) -> None:
        steps = ModelSteps(self.graph, self.context)
        self._score(arm, steps.answers(arm, self.arms.prompts[arm], model, decoding, trained=trained))

    def _score(self, arm: ModelArm | Arm, answers: Predictions) -> None:
        self.arms.answers[arm] = answers
        steps = ModelSteps(self.graph, self.context)
        self.arms.scores[arm] = steps.scores(arm, self.items, answers, self.spec.evaluate, arm=arm)

    def candidate(self, tuned: Tuned) -> InterimAnswers:
        """Add the candidate, which stops answering when it can hardly pass any more (`gates.interim`)."""
        spec, scores = self.spec, self.arms.scores
        decoding, evaluate = spec.evaluate.decoding(), _judged_evaluation(spec)
        prompts = self.arms.prompts["tuned"] = self._trained_prompts("tuned", spec.train.prompt, spec.train.format)
        seen = self.graph.named("interim", reads=metric_code(evaluate), libraries=metric_libraries(evaluate)).add(
            answer_until_futile,
            items=self.items,
            prompts=prompts,
            model=tuned.model,
            trained=tuned.trained,
            decoding=decoding,
            evaluate=evaluate,
            gates=_judged_rules(spec.judged_gates),
            champion=scores.get("champion"),
            baselines=tuple(scores[arm] for arm in BASELINE_ARMS if arm in scores),
            anchor=scores.get("anchor"),
            context=gate_context(spec, self.context.registry_state),
            answering=answering_of(self.context.place),
        )
        answers = self.graph.named("answers", "tuned").grow(
            add_answers,
            seen=seen,
            prompts=prompts,
            model=tuned.model,
            trained=tuned.trained,
            decoding=decoding,
        )
        self._score("tuned", answers)
        return seen

    def labelled(self, names: Sequence[str]) -> None:
        """Add the metric `right` of these arms, which are compared on it."""
        answers = self.arms.answers
        for arm in names:
            self.arms.scores[arm] = self.graph.named(LABELLED, arm).add(
                add_right,
                scores=self.arms.scores[arm],
                items=self.items,
                mine=answers[arm],
                others=tuple(answers[other] for other in names if other != arm),
                evaluate=self.spec.evaluate,
                labels=self.context.labels,
                with_slices=slices_count(self.spec.gates),
            )

    def endpoint(self, endpoint: EndpointSpec) -> None:
        """Add a remote model that answers zero_shot's prompts. The same address and model answer once."""
        evaluate, prompts = self.spec.evaluate, self._baseline_prompts("endpoint", "zero_shot")
        answers = self.graph.named("answers", "endpoint").add(
            answer_by_endpoint, prompts=prompts, endpoint=endpoint, max_new_tokens=evaluate.max_new_tokens
        )
        self.arms.prompts["endpoint"] = prompts
        self._score("endpoint", answers)

    def classifier(self, arm: Literal["majority", "tfidf"], routing_field: str) -> None:
        """Add a classifier that predicts the routing field."""
        self.arms.scores[arm] = self.graph.named("scores", arm).add(
            score_classifier,
            items=self.items,
            splits=self.splits,
            arm=arm,
            field=routing_field,
            seed=self.spec.evaluate.seed,
        )


def add_answers(
    graph: Graph,
    *,
    seen: InterimAnswers,
    prompts: PromptSet,
    model: ModelRef,
    trained: TrainedRef,
    decoding: DecodingSpec,
) -> Predictions:
    """Add the candidate's answers, once it is known how many there are.

    All of them have the key that they have without `gates.interim`: once the candidate is champion, it does not answer
    again.
    """
    found, named = graph.read(seen), graph.named("answers", "tuned")
    if found.use.stopped:
        return named.add(take_answers, seen=seen)
    before = AnsweredBefore(found.root / "predictions.parquet")
    return named.add(
        generate_answers, prompts=prompts, model=model, decoding=decoding, trained=trained, answering=before
    )


def gate_context(spec: PipelineSpec, state: RegistryState) -> GateContext:
    """Return who is compared with whom, by which metrics."""
    judged = spec.judged_gates.judged_metrics()
    anchor = state.anchor if state.champion is not None else None
    return GateContext(
        champion_version=state.champion.version if state.champion else None,
        anchor_version=anchor.version if anchor else None,
        traits=tuple(traits for traits in spec.evaluate.traits() if traits.name in judged),
        declared_comparison=declared_comparison(spec.judged_gates, spec.evaluate),
    )


def _judged_rules(gates: GatesSpec) -> GatesSpec:
    """Return what an interim look depends on, so that a change of anything else answers nothing again."""
    kept = ("rules", "confidence", "compare", "if_missing", "anchor", "cluster_by", "looks", "reuse", "interim")
    return GatesSpec(**{name: getattr(gates, name) for name in (*kept, "power")})


def _judged_evaluation(spec: PipelineSpec) -> EvaluateSpec:
    """Return how the metrics of the rules are measured."""
    evaluate, judged = spec.evaluate, spec.judged_gates.judged_metrics()
    metrics = tuple(metric for metric in evaluate.metrics if metric.traits().name in judged)
    return EvaluateSpec(fields=evaluate.fields, style=evaluate.style, metrics=metrics, slices=())


def add_gate(
    graph: Graph,
    *,
    spec: PipelineSpec,
    registry_state: RegistryState,
    items: EvalSet,
    model: ModelRef,
    trained: TrainedRef,
    candidate: Scores,
    baselines: tuple[Scores, ...],
    champion: Scores | None,
    anchor: Scores | None,
    checks: tuple[CheckEvidence, ...],
    suite: tuple[Scores, ...],
    interim: InterimAnswers | None,
    labels: LabelSources | None,
) -> GateDecision:
    """Add the gate, once items and candidate are known: earlier verdicts on them cost evidence."""
    past = registry_state.past.before(graph.read(items).digest, graph.read(trained).digest).verdicts
    live = None
    if registry_state.live is not None:
        live = registry_state.live_for(
            spec.train.prompt, spec.evaluate.max_new_tokens, graph.read(model), graph.read(trained)
        )
    gates, context = spec.judged_gates, gate_context(spec, registry_state)
    reads = {} if registry_state.live is None else {"feedback": registry_state.feedback_digest}
    return graph.named("gate", reads=reads).add(
        decide,
        candidate=candidate,
        champion=champion,
        baselines=baselines,
        gates=gates,
        anchor=anchor,
        items=items if gates.cluster_by is not None or (gates.slices is not None and gates.slices.top_up) else None,
        checks=checks,
        suite=suite,
        context=context.model_copy(
            update={
                "used_budget": registry_state.used_budget(graph.read(items), graph.read(trained)),
                "live": live,
                "past": PastFacts(
                    has_own=any(each.is_own for each in past if each.scores is not None),
                    n_gone=sum(each.scores is None for each in past),
                ),
            }
        ),
        interim=interim,
        labels=labels,
        past=tuple(each.scores for each in past if each.scores is not None),
    )
