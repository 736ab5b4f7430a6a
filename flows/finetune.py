"""Stage two: base model, token ids, training; for a ladder or a sweep also the choice of the training to judge.

What its verdict needs and no training makes comes first (`flows/prepare.py`).
"""

import shutil
from dataclasses import dataclass

from flows.context.graph_context import GraphContext, trunks_of
from flows.context.run_context import RunContext
from flows.effects.personal_data import index_customers
from flows.graph.graph import Graph
from flows.model_steps import ModelSteps, add_base_model, encoding_of, metric_inputs
from flows.prepare import Prepared
from flows.registry.held import HeldCandidate
from flows.selection import select_training, winner_dataset, winner_model, winner_trained
from flows.views.selection_report import report_choice
from schemas.artifacts import DatasetRef, ModelRef, Splits, TrainedRef, ValidationCurves
from schemas.choice import base_models
from schemas.pipeline import PipelineSpec
from schemas.trials import ChoiceRef
from tasks.assess.validation import score_validation
from tasks.model.base_model import fetch_base_model
from tasks.model.chat_format import encode_examples
from tasks.train.external import take_external
from tasks.train.launch import train_model


@dataclass(frozen=True)
class Tuned:
    """The stage's results; handles while it has not run."""

    model: ModelRef
    """The base model of the training that the gate judges."""
    dataset: DatasetRef | None
    """Its examples; None of a model that was trained elsewhere."""
    trained: TrainedRef
    first_model: ModelRef
    """Base model and examples of the first training; of a single training, its own."""
    first_dataset: DatasetRef | None
    curves: ValidationCurves | None
    """Metrics of answers during training; None if none are declared."""
    choice: ChoiceRef | None
    """Which of several trainings it is; None for a single one."""


def finetune(
    graph: Graph,
    spec: PipelineSpec,
    context: GraphContext,
    *,
    splits: Splits,
    prepared: Prepared,
    base_model: ModelRef | None = None,
) -> Tuned:
    """Add the training, which begins once all that is prepared for its verdict is there.

    Args:
        splits: The curated splits.
        prepared: The prompts of the base model and of the trained one.
        base_model: If curation has added it already.
    """
    if spec.train.is_external:
        return _external(graph, spec, context, prepared=prepared, base_model=base_model)
    with graph.stage("finetune"):
        choice: ChoiceRef | None = None
        if spec.train.choice is None:
            steps, train = ModelSteps(graph, context), spec.train.training()
            first_model = model = base_model or add_base_model(graph, spec, context)
            fits = prepared.fit(graph, spec, model, trains=(train,))
            same = prepared.same_tokenizers(graph, spec, model)
            start = context.registry_state.start
            with graph.after(*fits):
                if start is None:
                    dataset = steps.examples(splits, model, encoding_of(spec, train))
                else:
                    dataset = steps.new_examples(splits, model, train, start.learned)
            first_dataset = dataset
            with graph.after(*prepared.ends, *same):
                trained = steps.training(dataset, model, train, start=start.champion.trained if start else None)
        else:
            selection, choice = select_training(
                graph, spec, context, splits=splits, prepared=prepared, base_model=base_model
            )
            trained = graph.named("train").expand(winner_trained, selection=selection, choice=choice)
            first_model = model = next(iter(selection.models.values()))
            if len(base_models(spec.train)) > 1:
                model = graph.named("chosen_model").expand(winner_model, selection=selection, choice=choice)
                prepared.same_tokenizers(graph, spec, model)
            dataset = selection.dataset or graph.named("chosen_dataset").expand(
                winner_dataset, selection=selection, choice=choice
            )
            first_dataset = selection.trainings[0].dataset if selection.trainings else dataset
        curves = _curves(graph, spec, splits, trained)
        if choice is not None:
            graph.effect(report_choice, choice=choice)
        with graph.after(trained):
            graph.named("index_customers", "examples").effect(index_customers)  # while the examples exist
            graph.effect(remove_trunks)
    return Tuned(model, dataset, trained, first_model, first_dataset, curves, choice)


def _external(
    graph: Graph, spec: PipelineSpec, context: GraphContext, *, prepared: Prepared, base_model: ModelRef | None
) -> Tuned:
    """Add the model that was trained elsewhere; there are no examples."""
    with graph.stage("finetune"):
        model = base_model or add_base_model(graph, spec, context)
        prepared.fit(graph, spec, model, trains=())
        prepared.same_tokenizers(graph, spec, model)
        trained = ModelSteps(graph, context).external(spec.train, model)
    return Tuned(model, None, trained, model, None, curves=None, choice=None)


def tuned_before(
    graph: Graph, spec: PipelineSpec, held: HeldCandidate, *, prepared: Prepared, base_model: ModelRef | None
) -> Tuned:
    """Add the results of an earlier run's training in place of one: its candidate is judged again.

    Args:
        base_model: If curation has added one, which need not be the candidate's.
    """
    with graph.stage("finetune"), graph.staying():
        model = graph.named("base_model" if base_model is None else "chosen_model").keep(
            fetch_base_model, held.ref.model
        )
        prepared.fit(graph, spec, model, trains=())
        prepared.same_tokenizers(graph, spec, model)
        dataset = None if held.dataset is None else graph.named("encode").keep(encode_examples, held.dataset)
        made_by = train_model if held.ref.trained.external is None else take_external
        trained = graph.named("train").keep(made_by, held.ref.trained)
    return Tuned(model, dataset, trained, model, dataset, curves=None, choice=None)


def remove_trunks(run: RunContext) -> None:
    """Remove what frozen layers made of the examples, which trainings of one run share."""
    shutil.rmtree(trunks_of(run.settings.home, run.spec.name), ignore_errors=True)


def _curves(graph: Graph, spec: PipelineSpec, splits: Splits, trained: TrainedRef) -> ValidationCurves | None:
    """Add the metrics of answers during training; changing the metrics does not train again."""
    evaluate = spec.evaluate
    if not spec.train.validation_metrics:
        return None
    named = graph.named("validation_curves", **metric_inputs(evaluate))
    return named.add(
        score_validation,
        splits=splits,
        trained=trained,
        evaluate=evaluate,
        metrics=spec.train.validation_metrics,
        answer=spec.train.prompt.answer,
    )
