"""Stage three: candidate, champion and baselines answer the same held-out items; the gate gives a verdict.

Items and prompts exist before the training (`flows/prepare.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flows.certify import Certificates, add_certificates, add_labels, add_routing, routes_items
from flows.context.graph_context import GraphContext
from flows.curate import Curated
from flows.effects.pages import show_verdict
from flows.finetune import Tuned
from flows.gate_checks import PROMPTING, CheckAdder, Checked
from flows.graph.graph import Graph
from flows.model_steps import ArmHandles, ModelSteps, metric_inputs
from flows.prepare import PROMPTING_ARMS, Prepared, PromptingArm, classifier_of
from flows.registry.state import RegistryState
from flows.workspace.ray_cluster import answering_of
from schemas.artifacts import (
    CheckEvidence,
    DatasetRef,
    EvalSet,
    GateDecision,
    InterimAnswers,
    LabelSet,
    ModelArm,
    ModelRef,
    Predictions,
    PromptSet,
    Splits,
    TicketTable,
    TrainedRef,
)
from schemas.comparison import declared_comparison
from schemas.evaluation import Arm, DecodingSpec, EvaluateSpec
from schemas.gates import GatesSpec
from schemas.metrics import RIGHT
from schemas.pipeline import PipelineSpec
from tasks.assess.baselines import score_classifier
from tasks.assess.diagnosis import PastFacts
from tasks.assess.evidence import BASELINE_ARMS
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.labels import LABELLED, add_right, label_terms, slices_count
from tasks.curate.corrections import count_corrected
from tasks.model.generate import AnsweredBefore, generate_answers
from tasks.model.interim_answers import answer_until_futile, take_answers


@dataclass(frozen=True)
class Assessed:
    """The stage's results; handles while it has not run."""

    items: EvalSet
    arms: ArmHandles
    checks: Checked
    decision: GateDecision
    certificates: Certificates | None = None
    """None without `evaluate.abstain`."""


def assess(
    graph: Graph, spec: PipelineSpec, context: GraphContext, *, curated: Curated, prepared: Prepared, tuned: Tuned
) -> Assessed:
    """Add the stage. Answers are keyed by model, prompts and decoding: base and champion answer each set once."""
    registry_state, splits = context.registry_state, curated.shown
    with graph.stage("assess"):
        items = prepared.items
        arms = ArmHandles(prompts=dict(prepared.prompts), scores=dict(prepared.classifiers))
        labels = add_labels(graph, spec, splits)
        adder = _ArmAdder(
            graph, spec, context, items, arms, prepared.reply_floor, labels if routes_items(spec) else None
        )
        for arm in PROMPTING_ARMS:
            if arm in prepared.prompts:
                adder.answers(arm, tuned.model)
        if prepared.endpoint is not None:
            adder.score("endpoint", prepared.endpoint)
        if spec.gates.interim is None:
            adder.answers("tuned", tuned.model, tuned.trained)
        for name, ref in prepared.earlier.items():
            adder.answers(name, ref.model, ref.trained, max_new_tokens=ref.max_new_tokens)
        seen = None
        if spec.gates.interim is not None:  # after the arms that it is compared with, which all candidates share
            seen = adder.candidate(tuned)
        certificates = None
        if labels is not None:
            certificates = add_certificates(
                graph, spec, context, splits=splits, prepared=prepared, tuned=tuned, labels=labels
            )
        if labels is not None and certificates is not None and routes_items(spec):
            add_routing(graph, spec, splits=splits, prepared=prepared, arms=arms, certificates=certificates)
        if spec.evaluate.labels is not None:
            adder.labelled(_labelled_arms(spec, arms))
        if "tfidf" in prepared.classifiers and tuned.dataset is not None:
            _classifier_of_examples(graph, spec, splits=splits, items=items, dataset=tuned.dataset)
        calibration = None if certificates is None else certificates.calibration
        checks = CheckAdder(graph, spec, context, splits, prepared, tuned, arms, calibration).add_all()
        with graph.staying():  # it reads the ledger
            decision = graph.named("gate").expand(
                add_gate,
                spec=spec,
                registry_state=registry_state,
                rater_pairs=context.rater_pairs,
                corrected=curated.corrected,
                model=tuned.model,
                trained=tuned.trained,
                judged=JudgedArms(
                    candidate=arms.scores["tuned"],
                    champion=arms.scores.get("champion"),
                    baselines=tuple(arms.scores[arm] for arm in BASELINE_ARMS if arm in arms.scores),
                    anchor=arms.scores.get("anchor"),
                    items=items,
                    checks=tuple(checks.evidence.values()),
                    suite=checks.suite,
                    interim=seen,
                    labels=prepared.labels,
                ),
            )
            graph.effect(show_verdict, decision=decision)
    return Assessed(items, arms, checks, decision, certificates)


def _classifier_of_examples(
    graph: Graph, spec: PipelineSpec, *, splits: Splits, items: EvalSet, dataset: DatasetRef
) -> None:
    """Add the classifier that learns from the candidate's examples alone, for a comparison at equal examples.

    It is shown and no rule compares with it: a classifier in service would learn from all tickets.
    """
    with graph.unless(_learned_all, splits, dataset):
        graph.named("scores", "tfidf_examples").add(
            score_classifier,
            items=items,
            splits=splits,
            classifier=classifier_of(spec, "tfidf_examples"),
            dataset=dataset,
        )


def _learned_all(splits: Splits, dataset: DatasetRef) -> str | None:
    same = dataset.n_train >= splits.n_train
    return "the candidate learned from all train tickets, as tfidf did" if same else None


def _labelled_arms(spec: PipelineSpec, arms: ArmHandles) -> tuple[str, ...]:
    """Return the candidate and what rules on `right` compare it with: fewer arms differ on fewer items."""
    gates = spec.judged_gates
    changes = [rule.change_threshold for rule in gates.judged_rules if rule.metric == RIGHT and rule.change_threshold]
    wanted: list[str] = ["champion", "anchor"]
    if "champion" not in arms.scores or any(change.against == "best_baseline" for change in changes):
        wanted += PROMPTING
    elif any(change.against == "endpoint" for change in changes):
        wanted.append("endpoint")
    return ("tuned", *(arm for arm in wanted if arm in arms.answers))


@dataclass(frozen=True)
class _ArmAdder:
    """Adds the arms' prompts, answers and scores."""

    graph: Graph
    spec: PipelineSpec
    context: GraphContext
    items: EvalSet
    arms: ArmHandles
    reply_floor: CheckEvidence | None
    labels: LabelSet | None
    """Whose likelihoods the answers of trained models come with; None for answers alone."""

    def answers(
        self,
        arm: PromptingArm | ModelArm,
        model: ModelRef,
        trained: TrainedRef | None = None,
        *,
        max_new_tokens: int | None = None,
    ) -> None:
        """Add the answers of a model and their scores: of the base model alone, the candidate, champion or anchor.

        Args:
            max_new_tokens: Longest answer that it is served with; the candidate's if not given.
        """
        decoding = self.spec.evaluate.decoding()
        if max_new_tokens is not None:
            decoding = decoding.model_copy(update={"max_new_tokens": max_new_tokens})
        steps = ModelSteps(self.graph, self.context)
        labels = None if trained is None else self.labels
        self.score(arm, steps.answers(arm, self.arms.prompts[arm], model, decoding, trained=trained, labels=labels))

    def score(self, arm: ModelArm | Arm, answers: Predictions) -> None:
        """Add the scores of answers."""
        self.arms.answers[arm] = answers
        steps = ModelSteps(self.graph, self.context)
        self.arms.scores[arm] = steps.scores(
            arm, self.items, answers, self.spec.evaluate, arm=arm, floor=self.reply_floor
        )

    def candidate(self, tuned: Tuned) -> InterimAnswers:
        """Add the candidate, which stops answering when it can hardly pass any more (`gates.interim`)."""
        spec, scores = self.spec, self.arms.scores
        decoding, evaluate = spec.evaluate.decoding(), _judged_evaluation(spec)
        prompts = self.arms.prompts["tuned"]
        seen = self.graph.named("interim", **metric_inputs(evaluate)).add(
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
            floor=self.reply_floor,
            answering=answering_of(self.context.place),
        )
        answers = self.graph.named("answers", "tuned").expand(
            add_answers,
            seen=seen,
            prompts=prompts,
            model=tuned.model,
            trained=tuned.trained,
            decoding=decoding,
        )
        self.score("tuned", answers)
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
                evaluate=label_terms(self.spec.evaluate, self.spec.train.prompt.answer),
                labels=self.context.labels,
                with_slices=slices_count(self.spec.gates),
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
        endpoint=spec.evaluate.endpoint.model if spec.evaluate.endpoint is not None else "",
        endpoint_asked=spec.evaluate.endpoint is not None,
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
    rater_pairs: tuple[int, int],
    corrected: TicketTable | None,
    model: ModelRef,
    trained: TrainedRef,
    judged: JudgedArms,
) -> GateDecision:
    """Add the gate, once items and candidate are known: earlier verdicts on them cost evidence."""
    if judged.items is None:
        raise TypeError("no items to judge on")
    items = graph.read(judged.items)
    past = registry_state.past.before(items.digest, graph.read(trained).digest).verdicts
    live = None
    if registry_state.live is not None:
        live = registry_state.live_for(
            spec.train.prompt, spec.evaluate.max_new_tokens, graph.read(model), graph.read(trained)
        )
    gates, context = spec.judged_gates, gate_context(spec, registry_state)
    needs_items = gates.cluster_by is not None or (gates.slices is not None and gates.slices.top_up)
    reads = {} if registry_state.live is None else {"feedback": registry_state.feedback_digest}
    return graph.named("gate", reads=reads).add(
        decide,
        judged=replace(
            judged,
            items=judged.items if needs_items else None,
            past=tuple(each.scores for each in past if each.scores is not None),
        ),
        gates=gates,
        context=context.model_copy(
            update={
                "used_budget": registry_state.used_budget(items, graph.read(trained)),
                "live": live,
                "rater_pairs": rater_pairs,
                "n_corrected": 0 if corrected is None else count_corrected(graph.read(corrected), items),
                "past": PastFacts(
                    has_own=any(each.is_own for each in past if each.scores is not None),
                    n_gone=sum(each.scores is None for each in past),
                ),
            }
        ),
    )
