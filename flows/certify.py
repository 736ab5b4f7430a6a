"""Part of stage three if `evaluate.abstain` is declared: every arm that labels tickets gets a certified threshold.

Its calibration tickets are no held-out items of the gate. If a rule judges what is routed, each arm routes those items
by its threshold.
"""

from dataclasses import dataclass

from flows.context.graph_context import GraphContext
from flows.finetune import Tuned
from flows.graph.graph import Graph
from flows.model_steps import ArmHandles
from flows.prepare import Prepared, classifier_of
from flows.workspace.ray_cluster import answering_of
from schemas.artifacts import (
    BundleRef,
    CertifiedRef,
    ChampionRef,
    EvalSet,
    LabelSet,
    ModelArm,
    ModelRef,
    Predictions,
    ScoredArm,
    Splits,
    TrainedRef,
)
from schemas.metrics import ROUTING_METRICS
from schemas.pipeline import PipelineSpec
from schemas.training import Format, PromptSpec
from tasks.assess.abstain import (
    ROUTED,
    certify_answers,
    certify_classifier,
    collect_labels,
    route_answers,
    route_classifier,
)
from tasks.assess.items import select_calibration_items, select_validation_items
from tasks.assess.prompts import build_prompts
from tasks.corpus.build import cite_as_served
from tasks.model.generate import generate_answers


@dataclass(frozen=True)
class Certificates:
    """The certificates of a run; handles while it has not run."""

    calibration: EvalSet
    """The tickets that calibrate."""
    labels: LabelSet
    of_arms: dict[ScoredArm, CertifiedRef]


@dataclass(frozen=True)
class _Model:
    """A model as it is served."""

    model: ModelRef
    trained: TrainedRef
    prompt: PromptSpec
    format: Format
    max_new_tokens: int
    bundle: BundleRef | None = None
    """With the passages that its prompts show; None if they are among the items' columns, or none are shown."""
    is_unknown: bool = False
    """It was trained elsewhere, and nobody says with what."""


def add_labels(graph: Graph, spec: PipelineSpec, splits: Splits) -> LabelSet | None:
    """Add the closed set of labels; None without `evaluate.abstain`."""
    evaluate = spec.evaluate
    if evaluate.abstain is None or evaluate.fields is None:
        return None
    return graph.add(collect_labels, splits=splits, field=evaluate.abstain.field, pattern=evaluate.fields)


def routes_items(spec: PipelineSpec) -> bool:
    """Whether a rule judges what is routed of the gate's items: else nothing pays for the likelihoods there."""
    judged = spec.judged_gates.judged_metrics()
    return spec.evaluate.abstain is not None and not set(ROUTING_METRICS).isdisjoint(judged)


def add_routing(
    graph: Graph, spec: PipelineSpec, *, splits: Splits, prepared: Prepared, arms: ArmHandles,
    certificates: Certificates,
) -> None:  # fmt: skip
    """Give the scores of every certified arm the metrics of what it routes of the gate's items."""
    minutes = None if spec.evaluate.abstain is None else spec.evaluate.abstain.review_minutes
    for arm, certificate in certificates.of_arms.items():
        named, scores = graph.named(ROUTED, arm), arms.scores[arm]
        if arm == "tfidf":
            arms.scores[arm] = named.add(
                route_classifier,
                scores=scores,
                items=prepared.items,
                splits=splits,
                classifier=classifier_of(spec, "tfidf"),
                certificate=certificate,
                review_minutes=minutes,
            )
        else:
            arms.scores[arm] = named.add(
                route_answers,
                scores=scores,
                items=prepared.items,
                predictions=arms.answers[arm],
                labels=certificates.labels,
                certificate=certificate,
                review_minutes=minutes,
            )


def add_certificates(
    graph: Graph, spec: PipelineSpec, context: GraphContext, *, splits: Splits, prepared: Prepared, tuned: Tuned,
    labels: LabelSet,
) -> Certificates | None:  # fmt: skip
    """Add the certificates of the candidate, the champion and TF-IDF; of the anchor if a rule on routing needs it.

    None without `evaluate.abstain`.
    """
    evaluate, train, abstain = spec.evaluate, spec.train, spec.evaluate.abstain
    if abstain is None:
        return None
    unknown = train.is_external and not train.trained_on
    models: dict[ModelArm, _Model] = {
        "tuned": _Model(tuned.model, tuned.trained, train.prompt, train.format, evaluate.max_new_tokens, None, unknown)
    }
    for name, ref in prepared.earlier.items():
        if name == "champion" or _is_routed_by(spec, name):
            models[name] = _as_served(ref)
    prompts = tuple(dict.fromkeys(each.prompt for each in models.values()))
    planning = graph.named("items", "planning").add(
        select_validation_items,
        splits=splits,
        max_items=abstain.planning_items,
        seed=evaluate.seed,
        answer=train.prompt.answer,
        stratify=evaluate.routing_field,
        prompts=prompts,
    )
    calibration = graph.named("items", "calibration").add(
        select_calibration_items,
        splits=splits,
        share=abstain.share,
        max_items=abstain.max_items,
        seed=evaluate.seed,
        answer=train.prompt.answer,
        prompts=prompts,
    )
    adder = _CertificateArms(graph, spec, context, labels)
    found: dict[ScoredArm, CertifiedRef] = {}
    for arm, model in models.items():
        found[arm] = graph.named("certificate", arm).add(
            certify_answers,
            arm=arm,
            labels=labels,
            planning=planning,
            planned=adder.add(arm, "planning", planning, model),
            calibration=calibration,
            calibrated=adder.add(arm, "calibration", calibration, model),
            abstain=abstain,
            cluster_by=spec.gates.cluster_by,
            is_unknown=model.is_unknown,
        )
    if "tfidf" in evaluate.arms and evaluate.routing_field == abstain.field:
        found["tfidf"] = graph.named("certificate", "tfidf").add(
            certify_classifier,
            classifier=classifier_of(spec, "tfidf"),
            splits=splits,
            planning=planning,
            calibration=calibration,
            abstain=abstain,
            cluster_by=spec.gates.cluster_by,
        )
    return Certificates(calibration, labels, found)


def _as_served(ref: ChampionRef) -> _Model:
    shown = ref.bundle if ref.prompt.shows_passages else None
    unknown = ref.trained.external is not None  # today's `train.trained_on` is about today's candidate
    return _Model(ref.model, ref.trained, ref.prompt, ref.trained.format, ref.max_new_tokens, shown, unknown)


def _is_routed_by(spec: PipelineSpec, arm: ModelArm) -> bool:
    """Whether a rule compares what is routed with the anchor."""
    changes = (rule.change_threshold for rule in spec.judged_gates.judged_rules if rule.metric in ROUTING_METRICS)
    return arm == "anchor" and any(change is not None and change.mode != "improve" for change in changes)


@dataclass(frozen=True)
class _CertificateArms:
    graph: Graph
    spec: PipelineSpec
    context: GraphContext
    labels: LabelSet

    def add(self, arm: ModelArm, name: str, items: EvalSet, served: _Model) -> Predictions:
        """Add a model's prompts, and its answers with the likelihoods of their labels."""
        if served.bundle is not None:
            items = self.graph.named("passages", arm, name).add(cite_as_served, items=items, bundle=served.bundle)
        prompts = self.graph.named("prompts", arm, name).add(
            build_prompts, items=items, arm="tuned", prompt=served.prompt, format=served.format
        )
        decoding = self.spec.evaluate.decoding().model_copy(update={"max_new_tokens": served.max_new_tokens})
        return self.graph.named("answers", arm, name).add(
            generate_answers,
            prompts=prompts,
            model=served.model,
            trained=served.trained,
            decoding=decoding,
            labels=self.labels,
            answering=answering_of(self.context.place),
        )
