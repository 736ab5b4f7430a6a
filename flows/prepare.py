"""What needs no trained weights: held-out items, the prompts of every arm, classifiers, and whether all of it fits.

Part of the stage `finetune`, in front of its training, so that a run that cannot be judged ends before it trains.
Where that stage runs on a work pool, these nodes stay on the machine of the run. `flows/assess.py` adds the answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.model_steps import earlier_models, metric_inputs
from flows.registry.state import RegistryState
from schemas.artifacts import (
    Artifact,
    ChampionRef,
    CheckEvidence,
    EvalSet,
    LabelSources,
    ModelArm,
    ModelRef,
    Predictions,
    PromptSet,
    Scores,
    Splits,
)
from schemas.choice import LOSS
from schemas.comparison import compares_with_endpoint, declared_comparison
from schemas.evaluation import AnsweringEndpoint, Arm, EvaluateSpec
from schemas.metrics import ReplyMetric, traits_by_name
from schemas.pipeline import PipelineSpec
from schemas.template import template_columns
from schemas.training import Format, PromptSpec, TrainSpec
from schemas.verdicts import NOTHING_SEEN
from tasks.assess.baselines import ClassifierSpec, score_classifier
from tasks.assess.clusters import check_clusters
from tasks.assess.endpoint_arm import answer_by_endpoint
from tasks.assess.items import select_items
from tasks.assess.metric_check import METRIC_CHECK, check_metrics, own_metrics, try_metrics
from tasks.assess.prompts import build_prompts
from tasks.assess.reply import set_reply_floor
from tasks.assess.suite import build_suite
from tasks.corpus.build import cite_as_served
from tasks.model.base_model import check_same_tokenizer
from tasks.monitor.label_sources import compare_label_sources
from tasks.tickets.prompts import insert_labels
from tasks.train.base_fit import check_prompts

PromptingArm = Literal["zero_shot", "few_shot", "retrieval", "rag"]
PROMPTING_ARMS: tuple[PromptingArm, ...] = ("zero_shot", "few_shot", "retrieval", "rag")
CLASSIFIER_ARMS: tuple[Literal["majority", "tfidf"], ...] = ("majority", "tfidf")


@dataclass(frozen=True)
class Prepared:
    """The results; handles while they do not exist."""

    earlier: Mapping[ModelArm, ChampionRef]
    """The champion and the anchor, as far as the gate compares with them."""
    items: EvalSet
    prompts: Mapping[str, PromptSet]
    """Arm -> its prompts."""
    classifiers: Mapping[str, Scores]
    suite: PromptSet | None
    """General questions; only if `gates.forgetting` is declared."""
    checks: tuple[Artifact, ...]
    """Of what needs neither base model nor weights, and of earlier models."""
    metric_check: CheckEvidence | None
    """Of the metrics of the user's own that alone make the comparison; None if there are none."""
    labels: LabelSources
    """Labels by file and week; left out until there is a champion."""
    endpoint: Predictions | None
    """Answers of `evaluate.endpoint`, which are there before anything is trained; None if it is not declared."""
    reply_floor: CheckEvidence | None
    """Of a metric `reply` without a floor of its own; None without such a metric."""

    @property
    def ends(self) -> tuple[Artifact, ...]:
        """What a training waits for."""
        asked = () if self.endpoint is None else (self.endpoint,)
        return (*self.classifiers.values(), *self.checks, *asked)

    def fit(
        self,
        graph: Graph,
        spec: PipelineSpec,
        model: ModelRef,
        *,
        trains: tuple[TrainSpec, ...],
        more: tuple[PromptSet, ...] = (),
        label: str = "",
    ) -> tuple[Artifact, ...]:
        """Add the checks that a base model can be trained as declared, and has room for its prompts and answers.

        Args:
            trains: The trainings on it.
            more: Prompts besides those of the held-out items, with the same longest answer.
            label: Name of the model, of several.
        """
        of_base = (self.prompts[arm] for arm in ("tuned", *PROMPTING_ARMS) if arm in self.prompts)
        prompts = (*of_base, *more)
        with graph.staying():
            longest, named = spec.evaluate.max_new_tokens, graph.named("fits", label)
            checks = [named.add(check_prompts, model=model, prompts=prompts, max_new_tokens=longest, trains=trains)]
            if self.suite is not None and spec.gates.forgetting is not None:
                longest = spec.gates.forgetting.max_new_tokens
                named = graph.named("fits", "suite", label)
                checks.append(named.add(check_prompts, model=model, prompts=(self.suite,), max_new_tokens=longest))
        return tuple(checks)

    def same_tokenizers(self, graph: Graph, spec: PipelineSpec, model: ModelRef) -> tuple[Artifact, ...]:
        """Add the check that losses per token can be compared with those of the champion and the anchor."""
        if LOSS not in spec.judged_gates.judged_metrics():
            return ()
        checks = []
        for arm, ref in self.earlier.items():
            with graph.unless(_same_base, model, ref.model), graph.staying():
                checks.append(graph.named("tokenizer", arm).add(check_same_tokenizer, model=model, first=ref.model))
        return tuple(checks)


def prepare(graph: Graph, spec: PipelineSpec, context: GraphContext, *, splits: Splits) -> Prepared:
    """Add the nodes. A training waits for all of them, and its examples for `Prepared.fit`."""
    earlier, held = earlier_models(spec, context.registry_state), context.held
    # Whether there are enough for the next look at a held candidate is decided by the curated tickets.
    with graph.stage("finetune" if held is None else "curate"), graph.staying():
        items = _items(graph, spec, splits, context, earlier)
    with graph.stage("finetune"), graph.staying():
        prompts: dict[str, PromptSet] = {}
        prompts["tuned"] = _prompts(graph, "tuned", items, spec.train.prompt, spec.train.format)
        for arm in prompting_arms(spec, context.registry_state):
            prompts[arm] = _baseline_prompts(graph, spec, items, splits, name=arm, arm=arm)
        if spec.evaluate.endpoint is not None:
            prompts["endpoint"] = _endpoint_prompts(graph, spec, items, splits, spec.evaluate.endpoint)
        checks: list[Artifact] = []
        for name, ref in earlier.items():
            shown = items  # it answers as it is served: with its own prompt, passages and format
            if ref.prompt.shows_passages:
                shown = graph.named("passages", name).add(cite_as_served, items=items, bundle=ref.bundle)
            prompts[name] = _prompts(graph, name, shown, ref.prompt, ref.trained.format)
            checks.append(
                graph.named("fits", name).add(
                    check_prompts, model=ref.model, prompts=(prompts[name],), max_new_tokens=ref.max_new_tokens
                )
            )
        if spec.gates.cluster_by is not None:
            checks.append(graph.named("clusters").add(check_clusters, items=items, column=spec.gates.cluster_by))
        classifiers: dict[str, Scores] = {}
        for classifier in CLASSIFIER_ARMS if spec.evaluate.routing_field else ():
            if classifier in spec.evaluate.arms:
                classifiers[classifier] = graph.named("scores", classifier).add(
                    score_classifier,
                    items=items,
                    splits=splits,
                    classifier=classifier_of(spec, classifier),
                )
        if own := own_metrics(spec.evaluate):
            named = graph.named("metrics", **metric_inputs(own))
            checks.append(named.add(try_metrics, items=items, evaluate=own))
        suite, forgetting = None, spec.gates.forgetting
        if forgetting is not None:
            suite = graph.add(
                build_suite,
                suite=forgetting.suite,
                max_items=forgetting.max_items,
                seed=forgetting.seed,
                format=spec.train.format,
            )
        return Prepared(
            earlier,
            items,
            prompts,
            classifiers,
            suite,
            tuple(checks),
            _metric_check(graph, spec, items),
            _label_sources(graph, spec, splits, context.registry_state),
            _ask_endpoint(graph, spec, context, prompts.get("endpoint")),
            _reply_floor(graph, spec, splits),
        )


def prompting_arms(spec: PipelineSpec, registry_state: RegistryState) -> tuple[PromptingArm, ...]:
    """Return the declared ones; without any, the one that takes the place of a champion in each comparison with it."""
    declared = tuple(arm for arm in PROMPTING_ARMS if arm in spec.evaluate.arms)
    gates = spec.judged_gates
    replaces = gates.compare.off is None and gates.if_missing == "baseline" and registry_state.champion is None
    if spec.evaluate.endpoint is not None:
        replaces = replaces and gates.has_incumbent and not _incumbent_is_enough(spec)
    return declared or (("zero_shot",) if replaces else ())


def _incumbent_is_enough(spec: PipelineSpec) -> bool:
    """Whether without a champion no rule needs a baseline: the comparison that is added gives way to the incumbent."""
    gates = spec.judged_gates
    changes = (rule.change_threshold for rule in gates.rules)
    by_rule = any(change is not None and change.against != "endpoint" for change in changes)
    return not by_rule and compares_with_endpoint(gates, traits_by_name(spec.evaluate.traits()))


def classifier_of(spec: PipelineSpec, arm: Literal["majority", "tfidf", "tfidf_examples"]) -> ClassifierSpec:
    """Return what a classifier predicts; where answers have the routing field, it also answers."""
    evaluate, answer = spec.evaluate, spec.train.prompt.answer
    field = evaluate.routing_field or ""
    return ClassifierSpec(
        arm=arm,
        field=field,
        seed=evaluate.seed,
        answer=answer if field in template_columns(answer) else "",
        pattern=evaluate.fields,
    )


def _items(
    graph: Graph,
    spec: PipelineSpec,
    splits: Splits,
    context: GraphContext,
    earlier: Mapping[ModelArm, ChampionRef],
) -> EvalSet:
    """Add the held-out items. An item without a prompt in some arm is left out of all arms."""
    evaluate, prompt, guard = spec.evaluate, spec.train.prompt, spec.gates.slices
    registry_state, held = context.registry_state, context.held
    system = insert_labels(evaluate.baseline_system, ()) or prompt.system
    baseline = prompt.model_copy(update={"system": system})
    asked = () if evaluate.endpoint is None or evaluate.endpoint.system is None else (
        prompt.model_copy(update={"system": evaluate.endpoint.system}),
    )  # fmt: skip
    prompts = dict.fromkeys((prompt, baseline, *asked, *(ref.prompt for ref in earlier.values())))
    return graph.add(
        select_items,
        splits=splits,
        max_items=evaluate.max_items,
        seed=evaluate.seed,
        answer=prompt.answer,
        choose=evaluate.choose,
        stratify=evaluate.routing_field,
        prompts=tuple(prompts),
        seen=registry_state.seen,
        judged=registry_state.worn,
        slices=() if guard is None else guard.by,
        top_up=0 if guard is None else guard.top_up,
        one_per=evaluate.one_per,
        at=spec.gates.looks.at if held is None else held.sizes,
        again=NOTHING_SEEN if held is None else held.before,
        without_share=evaluate.calibration_share,
    )


def _prompts(graph: Graph, arm: ModelArm, items: EvalSet, prompt: PromptSpec, form: Format) -> PromptSet:
    return graph.named("prompts", arm).add(build_prompts, items=items, arm="tuned", prompt=prompt, format=form)


def _endpoint_prompts(
    graph: Graph, spec: PipelineSpec, items: EvalSet, splits: Splits, endpoint: AnsweringEndpoint
) -> PromptSet:
    """Add what the endpoint is asked: as zero_shot, with its own system message if it has one."""
    if endpoint.system is None:
        return _baseline_prompts(graph, spec, items, splits, name="endpoint", arm="zero_shot")
    train = spec.train
    return graph.named("prompts", "endpoint").add(
        build_prompts, items=items, arm="zero_shot", prompt=train.prompt, format=train.format,
        baseline_system=endpoint.system,
    )  # fmt: skip


def _ask_endpoint(
    graph: Graph, spec: PipelineSpec, context: GraphContext, prompts: PromptSet | None
) -> Predictions | None:
    """Let the endpoint answer. The same address and model answer the same question once, in whichever run."""
    endpoint = spec.evaluate.endpoint
    if endpoint is None or prompts is None:
        return None
    return graph.named("answers", "endpoint").add(
        answer_by_endpoint,
        prompts=prompts,
        base_url=endpoint.base_url,
        model=endpoint.model,
        endpoint=endpoint,
        max_new_tokens=spec.evaluate.max_new_tokens,
        kept=context.replies or context.cache / "replies",
    )


def _baseline_prompts(
    graph: Graph, spec: PipelineSpec, items: EvalSet, splits: Splits, *, name: Arm, arm: PromptingArm
) -> PromptSet:
    """Add those of the base model, with only the instruction or with examples."""
    evaluate, train = spec.evaluate, spec.train
    shows = arm in ("few_shot", "retrieval")
    label = evaluate.routing_field if evaluate.lists_labels else None
    libraries = ("scikit-learn", "numpy") if arm == "retrieval" else ()
    return graph.named("prompts", name, libraries=libraries).add(
        build_prompts,
        items=items,
        arm=arm,
        prompt=train.prompt,
        format=train.format,
        baseline_system=evaluate.baseline_system,
        splits=splits if shows or label else None,
        n_examples=evaluate.few_shot_examples if shows else 0,
        seed=evaluate.seed if arm == "few_shot" else 0,
        label=label,
    )


def _metric_check(graph: Graph, spec: PipelineSpec, items: EvalSet) -> CheckEvidence | None:
    """Let metrics of the user's own that make the comparison score answers of known worth."""
    evaluate, compared = spec.evaluate, declared_comparison(spec.judged_gates, spec.evaluate)
    if not compared:
        return None
    metrics = tuple(metric for metric in evaluate.metrics if metric.traits().name in compared)
    checked = EvaluateSpec(fields=evaluate.fields, metrics=metrics)
    named = graph.named(METRIC_CHECK, **metric_inputs(checked))
    return named.add(check_metrics, items=items, evaluate=checked)


def _reply_floor(graph: Graph, spec: PipelineSpec, splits: Splits) -> CheckEvidence | None:
    """Measure how near to a reference an answer must be to be a reply, where that is not declared."""
    if not any(isinstance(metric, ReplyMetric) and metric.floor is None for metric in spec.evaluate.metrics):
        return None
    return graph.add(set_reply_floor, splits=splits, answer=spec.train.prompt.answer, fields=spec.evaluate.fields)


def _label_sources(graph: Graph, spec: PipelineSpec, splits: Splits, registry_state: RegistryState) -> LabelSources:
    """Add the check of labels by file and week: a bad week is no bad candidate."""
    # Part of each graph: its code must not make the first run after a promotion a new one.
    with graph.unless(_without_champion, registry_state.champion):
        field = spec.evaluate.routing_field or "category"
        return graph.add(compare_label_sources, splits=splits, known=registry_state.past.splits, field=field)


def _without_champion(champion: ChampionRef | None) -> str | None:
    return "there is no champion yet" if champion is None else None


def _same_base(model: ModelRef, earlier: ModelRef) -> str | None:
    return "the base model is the same" if model.digest == earlier.digest else None
