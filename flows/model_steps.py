"""Steps that several stages add: base model, encoded examples, a training, answers and their scores."""

from dataclasses import dataclass, field, replace
from typing import Any

from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.registry.state import RegistryState
from flows.workspace.ray_cluster import answering_of, training_place
from schemas.artifacts import (
    Artifact,
    ChampionRef,
    CheckEvidence,
    DatasetRef,
    EvalSet,
    LabelSet,
    ModelArm,
    ModelRef,
    Predictions,
    PromptSet,
    Scores,
    Splits,
    TrainedRef,
)
from schemas.chat_template import resolve_template
from schemas.choice import TrainSection
from schemas.evaluation import Arm, DecodingSpec, EvaluateSpec
from schemas.pipeline import PipelineSpec
from schemas.training import DrawSpec, EncodeSpec, PromptSpec, TrainSpec
from tasks.assess.metric import kind_of
from tasks.assess.score import score_answers
from tasks.model.base_model import fetch_base_model, fingerprint_base_model
from tasks.model.chat_format import encode_examples
from tasks.model.continue_examples import continue_examples
from tasks.model.generate import generate_answers
from tasks.release.registered import fetch_registered
from tasks.train.base_fit import check_validation
from tasks.train.external import fingerprint_candidate, take_external
from tasks.train.launch import train_model


@dataclass
class ArmHandles:
    """Prompts, answers and scores of each arm, by its name."""

    prompts: dict[str, PromptSet] = field(default_factory=dict)
    answers: dict[str, Predictions] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSteps:
    graph: Graph
    context: GraphContext

    def base_model(self, uri: str, *, allow_download: bool, prompt: PromptSpec, name: str = "base_model") -> ModelRef:
        """Add the base model, with the chat template that the prompt declares."""
        chat = resolve_template(
            prompt.chat_template, prompt.added_tokens, root=self.context.root, options=prompt.template_options
        )
        reads = {"files": fingerprint_base_model(uri, root=self.context.root)}
        with self.graph.staying():
            return self.graph.named(name, reads=reads).add(
                fetch_base_model,
                uri=uri,
                allow_download=allow_download,
                root=self.context.root,
                cache=self.context.cache,
                chat=chat,
            )

    def external(self, train: TrainSection, model: ModelRef) -> TrainedRef:
        """Add the candidate that was trained elsewhere, in the place of a training."""
        address, root = str(train.model), self.context.root
        registered, reads = None, {}
        with self.graph.staying():  # a folder of this machine, or its login for MLflow
            if self.context.registered is None:
                reads = {"candidate": fingerprint_candidate(address, root=root)}
            else:
                found = self.context.registered
                registered = self.graph.add(fetch_registered, source=found.source, uri=found.uri)
            return self.graph.named("train", reads=reads).add(
                take_external,
                model=model,
                address=address,
                form=train.format,
                allow_download=train.allow_download,
                root=root,
                cache=self.context.cache,
                registered=registered,
            )

    def examples(self, splits: Splits, model: ModelRef, encoding: EncodeSpec, *, label: str = "") -> DatasetRef:
        """Add the token ids of the train and validation splits."""
        return self.graph.named("encode", label).add(encode_examples, splits=splits, model=model, encoding=encoding)

    def new_examples(self, splits: Splits, model: ModelRef, spec: TrainSpec, learned: DatasetRef) -> DatasetRef:
        """Add the examples of a training that continues: new tickets, and a share of those that were learned."""
        everything = spec.encoding().model_copy(update={"max_examples": None})
        pool = self.examples(splits, model, everything, label="pool")
        return self.graph.named("encode").add(
            continue_examples, pool=pool, learned=learned, splits=splits, replay=spec.replaying()
        )

    def answers(
        self,
        arm: str,
        prompts: PromptSet,
        model: ModelRef,
        decoding: DecodingSpec,
        *,
        trained: TrainedRef | None = None,
        labels: LabelSet | None = None,
        tolerates: tuple[str, ...] = (),
    ) -> Predictions:
        """Add a model's answers. Keyed by model, prompts and decoding: whatever the arm, it answers them once.

        Args:
            labels: Whose likelihoods are wanted too.
        """
        wanted: dict[str, Any] = {} if labels is None else {"labels": labels}  # the key of answers alone has none
        named = self.graph.named("answers", arm, tolerates=tolerates)
        answering, held = answering_of(self.context.place), self.context.held
        if held is not None and arm in held.answered:
            known_prompts, known = held.answered[arm]
            return named.add(
                generate_answers, prompts=prompts, model=model, decoding=decoding, trained=trained,
                known_prompts=known_prompts, known=known, answering=answering, **wanted,
            )  # fmt: skip
        if trained is None:
            return named.add(generate_answers, prompts=prompts, model=model, decoding=decoding, answering=answering)
        return named.add(
            generate_answers, prompts=prompts, model=model, decoding=decoding, trained=trained, answering=answering,
            **wanted,
        )  # fmt: skip

    def scores(
        self,
        name: str,
        items: EvalSet,
        answers: Predictions,
        evaluate: EvaluateSpec,
        *,
        arm: ModelArm | Arm,
        floor: CheckEvidence | None = None,
    ) -> Scores:
        """Add the declared metrics of each answer."""
        named = self.graph.named("scores", name, **metric_inputs(evaluate))
        return named.add(score_answers, items=items, predictions=answers, evaluate=evaluate, arm=arm, floor=floor)

    def training(
        self,
        dataset: DatasetRef,
        model: ModelRef,
        spec: TrainSpec,
        *,
        label: str = "",
        start: TrainedRef | None = None,
        shares_trunk: bool = False,
        tolerates: tuple[str, ...] = (),
    ) -> TrainedRef:
        """Add a training, which runs in its own process.

        Args:
            start: The champion's adapter to continue from.
            shares_trunk: Share the outputs of frozen layers with the other trainings of this pipeline.
        """
        # Neither limit is part of the key: a stopped training continues when they are raised.
        limits = replace(self.context.limits, timeout_minutes=spec.timeout_minutes)
        default = TrainSpec.model_fields["timeout_minutes"].default
        with self.graph.after(*self._validation(dataset, model, spec, label)):
            return self.graph.named("train", label, tolerates=tolerates).add(
                train_model,
                dataset=dataset,
                model=model,
                spec=spec.model_copy(update={"timeout_minutes": default}),
                limits=limits,
                start=start,
                trunks=self.context.trunks if shares_trunk else None,
                place=training_place(self.context.place),
            )

    def _validation(self, dataset: DatasetRef, model: ModelRef, spec: TrainSpec, label: str) -> tuple[Artifact, ...]:
        """Add the check that a training which needs validation examples has some."""
        if spec.early_stopping is None and not spec.validation_items:
            return ()
        check = self.graph.named("validation_fits", label).add(
            check_validation,
            dataset=dataset,
            model=model,
            validation_items=spec.validation_items,
            max_new_tokens=spec.validation_max_new_tokens,
        )
        return (check,)


def add_base_model(graph: Graph, spec: PipelineSpec, context: GraphContext) -> ModelRef:
    """Add the declared base model; curation also uses it if it measures perplexity."""
    train = spec.train
    return ModelSteps(graph, context).base_model(
        train.base_model, allow_download=train.allow_download, prompt=train.prompt
    )


def earlier_models(spec: PipelineSpec, registry_state: RegistryState) -> dict[ModelArm, ChampionRef]:
    """Return the champion, and the anchor if a rule needs it and it is another model."""
    champion, anchor = registry_state.champion, registry_state.anchor
    if champion is None:
        return {}
    found: dict[ModelArm, ChampionRef] = {"champion": champion}
    if anchor is not None and spec.judged_gates.needs_anchor and anchor.version != champion.version:
        found["anchor"] = anchor
    return found


def encoding_of(spec: PipelineSpec, train: TrainSpec) -> EncodeSpec:
    """Return what the token ids depend on. Which tickets are drawn matters only if there is a `max_examples`."""
    encoding = train.encoding()
    return encoding if encoding.max_examples is None else encoding.model_copy(update={"draw": draw_of(spec.evaluate)})


def draw_of(evaluate: EvaluateSpec) -> DrawSpec:
    """Return which train tickets a `max_examples` takes."""
    return DrawSpec(label=evaluate.routing_field, seed=evaluate.seed)


def metric_inputs(evaluate: EvaluateSpec) -> dict[str, Any]:
    """Return what decides the values of declared metrics besides a step's code, as `Graph.named` takes it.

    That is the code of the user's own metrics in Python, and the libraries of all.
    """
    kinds = [(metric, kind_of(metric)) for metric in evaluate.metrics]
    return {
        "reads": {name: digest for metric, kind in kinds for name, digest in kind.code(metric).items()},
        "libraries": tuple(name for _, kind in kinds for name in kind.libraries),
    }
