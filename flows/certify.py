"""Part of stage three if `evaluate.abstain` is declared: every arm that labels tickets gets a certified threshold.

Its calibration tickets are no held-out items of the gate, and no verdict depends on a certificate.
"""

from dataclasses import dataclass

from flows.context.graph_context import GraphContext
from flows.finetune import Tuned
from flows.graph.graph import Graph
from flows.prepare import Prepared, classifier_of
from flows.workspace.ray_cluster import answering_of
from schemas.artifacts import (
    BundleRef,
    CertifiedRef,
    EvalSet,
    LabelSet,
    ModelArm,
    ModelRef,
    Predictions,
    ScoredArm,
    Splits,
    TrainedRef,
)
from schemas.pipeline import PipelineSpec
from schemas.training import Format, PromptSpec
from tasks.assess.abstain import certify_answers, certify_classifier, collect_labels
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


def add_certificates(
    graph: Graph, spec: PipelineSpec, context: GraphContext, *, splits: Splits, prepared: Prepared, tuned: Tuned
) -> Certificates | None:
    """Add the certificates of the candidate, the champion and TF-IDF; None without `evaluate.abstain`."""
    evaluate, train, abstain = spec.evaluate, spec.train, spec.evaluate.abstain
    if abstain is None or evaluate.fields is None:
        return None
    models: dict[ModelArm, _Model] = {
        "tuned": _Model(tuned.model, tuned.trained, train.prompt, train.format, evaluate.max_new_tokens)
    }
    champion = prepared.earlier.get("champion")
    if champion is not None:
        shown = champion.bundle if champion.prompt.shows_passages else None
        models["champion"] = _Model(
            champion.model, champion.trained, champion.prompt, champion.trained.format, champion.max_new_tokens, shown
        )
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
    labels = graph.add(collect_labels, splits=splits, field=abstain.field, pattern=evaluate.fields)
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
