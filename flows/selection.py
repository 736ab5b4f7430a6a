"""Add several trainings to the graph, score each on the validation items, and choose the one that the gate judges.

For each training: its base model and token ids if they differ, `train · X`, `answers · X`, `scores · X`, and `X`, which
sums it up. Then `choice`. A rung of a ladder is left out once an earlier one has met the target; a trial of Optuna is
suggested from the results before it, so its nodes are added once those exist. Each training has the key that it would
have alone, so that nothing is trained twice.
"""

from dataclasses import dataclass, field

from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.graph.keys import code_digests, digest_of
from flows.model_steps import ModelSteps, encoding_of
from flows.prepare import Prepared
from schemas.artifacts import Artifact, DatasetRef, EvalSet, ModelRef, PromptSet, Splits, TrainedRef
from schemas.choice import (
    LOSS,
    Candidate,
    Changes,
    GridSweep,
    LadderSpec,
    OptunaSweep,
    TargetSpec,
    base_models,
    base_of,
    candidates,
    changes_of,
    tokens_vary,
)
from schemas.evaluation import DecodingSpec, EvaluateSpec
from schemas.metrics import MetricTraits
from schemas.pipeline import PipelineSpec
from schemas.training import TrainSpec
from schemas.trials import ChoiceRef, TrialRef
from tasks.assess.choose import choose_training
from tasks.assess.items import select_validation_items
from tasks.assess.prompts import build_prompts
from tasks.assess.trial import weigh_training
from tasks.model.base_model import check_same_tokenizer
from tasks.train.sweep import suggest

FIRST = "base_model"
"""Step of the base model of `train` itself."""
DIVERGED, NO_LIKELIHOOD = "TG0401", "TG0420"
"""Deterministic failures of a training: it drops out, the others continue."""


@dataclass(frozen=True)
class Training:
    """One training of the graph; `result` is its score."""

    name: str
    model: ModelRef
    dataset: DatasetRef
    trained: TrainedRef
    result: TrialRef


@dataclass
class Selection:
    """Adds trainings to a graph and keeps track of them; Optuna's trials are added one by one."""

    spec: PipelineSpec
    context: GraphContext
    splits: Splits
    prepared: Prepared
    items: EvalSet
    prompts: PromptSet
    fits: dict[tuple[str, bool], tuple[Artifact, ...]] = field(default_factory=dict)
    """Base model -> checks that its prompts fit."""
    models: dict[tuple[str, bool], ModelRef] = field(default_factory=dict)
    dataset: DatasetRef | None = None
    """The examples of all trainings, if no setting changes them."""
    trainings: list[Training] = field(default_factory=list)

    @property
    def choice(self) -> LadderSpec | GridSweep | OptunaSweep:
        choice = self.spec.train.choice
        if choice is None:
            raise TypeError("there is only one training")
        return choice

    @property
    def target(self) -> TargetSpec | None:
        """The target of each rung; None for sweeps."""
        return self.choice.target if isinstance(self.choice, LadderSpec) else None

    @property
    def traits(self) -> MetricTraits:
        """The metric that trainings are compared by."""
        metric = self.choice.target.metric if isinstance(self.choice, LadderSpec) else self.choice.metric
        return next(traits for traits in self.spec.evaluate.traits() if traits.name == metric)

    @property
    def results(self) -> tuple[TrialRef, ...]:
        return tuple(training.result for training in self.trainings)

    def model(self, graph: Graph, key: tuple[str, bool]) -> ModelRef:
        """Return the base model, which is added when it is first needed."""
        if key not in self.models:
            uri, allow_download = key
            name = base_models(self.spec.train)[key]
            steps = ModelSteps(graph, self.context)
            self.models[key] = steps.base_model(
                uri, allow_download=allow_download, prompt=self.spec.train.prompt, name=name
            )
        if key not in self.fits:
            names, model = base_models(self.spec.train), self.models[key]
            label = "" if names[key] == FIRST else names[key]
            # Of several base models the one that is chosen counts.
            same = self.prepared.same_tokenizers(graph, self.spec, model) if len(names) == 1 else ()
            every = changes_of(self.spec.train) or [{}]
            trains = tuple(self.spec.train.training(each) for each in every if base_of(self.spec.train, each) == key)
            fits = self.prepared.fit(graph, self.spec, model, trains=trains, more=(self.prompts,), label=label)
            self.fits[key] = (*fits, *same)
        return self.models[key]

    def examples(self, graph: Graph, base: tuple[str, bool], train: TrainSpec, *, label: str = "") -> DatasetRef:
        """Add the examples of one training, or of all."""
        model = self.model(graph, base)
        with graph.after(*self.fits[base]):
            return ModelSteps(graph, self.context).examples(
                self.splits, model, encoding_of(self.spec, train), label=label
            )

    def add(self, graph: Graph, candidate: Candidate, changes: Changes) -> TrialRef:
        """Add the nodes of one training; return the handle of its score."""
        train, name, steps = self.spec.train, candidate.name, ModelSteps(graph, self.context)
        model = self.model(graph, base_of(train, changes))
        first = self.model(graph, base_of(train, candidates(train)[0].changes or {}))
        same = []
        if isinstance(self.choice, LadderSpec) and self.traits.name == LOSS and model is not first:
            with graph.staying():
                same.append(graph.named("tokenizer", name).add(check_same_tokenizer, model=model, first=first))
        own = train.training(changes)
        dataset = self.dataset or self.examples(graph, base_of(train, changes), own, label=name)
        with graph.after(*self.fits[base_of(train, changes)], *self.prepared.ends, *same):
            trained = steps.training(dataset, model, own, label=name, shares_trunk=True, tolerates=(DIVERGED,))
        evaluate, decoding = _judged_by(self.spec.evaluate, self.traits.name)
        answers = steps.answers(name, self.prompts, model, decoding, trained=trained, tolerates=(NO_LIKELIHOOD,))
        scores = steps.scores(name, self.items, answers, evaluate, arm="tuned")
        weigh, rung = graph.named(name), self.target is not None
        result = weigh.add(
            weigh_training,
            trained=trained,
            dataset=dataset,
            scores=scores,
            earlier=self.results if rung else (),
            name=name,
            number=candidate.number,
            changes=changes,
            traits=self.traits,
            target=self.target,
            n_rungs=len(candidates(train)) if rung else 1,
        )
        self.trainings.append(Training(name, model, dataset, trained, result))
        return result


def select_training(
    graph: Graph,
    spec: PipelineSpec,
    context: GraphContext,
    *,
    splits: Splits,
    prepared: Prepared,
    base_model: ModelRef | None,
) -> tuple[Selection, ChoiceRef]:
    """Add all trainings and the choice between them."""
    with graph.staying():
        selection = _questions(graph, spec, context, splits, prepared)
    train = spec.train
    if base_model is not None:
        selection.models[train.base_model, train.allow_download] = base_model
    if not tokens_vary(train):
        selection.dataset = selection.examples(graph, (train.base_model, train.allow_download), train.first())
    declared, is_optuna = candidates(train), isinstance(train.choice, OptunaSweep)
    if is_optuna:
        for key in base_models(train):  # any trial may take any of them
            selection.model(graph, key)
        results: tuple[TrialRef, ...] = ()
        for candidate in declared:
            trial = graph.named(candidate.name).expand(
                _next_trial, selection=selection, candidate=candidate, earlier=results
            )
            results = (*results, trial)
    else:
        for candidate in declared:
            rungs = selection.results if selection.target is not None else ()
            with graph.unless(_target_met, *rungs):
                selection.add(graph, candidate, candidate.changes or {})
        results = selection.results
    # Optuna's suggestions decide the run as well, although no step calls it.
    reads = {"suggest": digest_of(code_digests(suggest))} if is_optuna else {}
    choice = graph.named("choice", reads=reads, libraries=("optuna",) if is_optuna else ()).add(
        choose_training,
        trials=results,
        names=tuple(candidate.name for candidate in declared),
        declared=() if is_optuna else tuple(dict(candidate.changes or {}) for candidate in declared),
        kind="ladder" if isinstance(selection.choice, LadderSpec) else selection.choice.kind,
        traits=selection.traits,
    )
    return selection, choice


def _questions(
    graph: Graph, spec: PipelineSpec, context: GraphContext, splits: Splits, prepared: Prepared
) -> Selection:
    """Add the validation items and their prompts, before anything is trained."""
    evaluate, train = spec.evaluate, spec.train
    if train.choice is None:
        raise TypeError("there is only one training")
    items = graph.add(
        select_validation_items,
        splits=splits,
        max_items=train.choice.max_items,
        seed=evaluate.seed,
        answer=train.prompt.answer,
        stratify=evaluate.routing_field,
        prompts=(train.prompt,),
    )
    prompts = graph.named("prompts", "validation").add(
        build_prompts, items=items, arm="tuned", prompt=train.prompt, format=train.format
    )
    return Selection(spec, context, splits, prepared, items, prompts)


def _next_trial(graph: Graph, *, selection: Selection, candidate: Candidate, earlier: tuple[TrialRef, ...]) -> TrialRef:
    """Add the trial that Optuna suggests after these; a failed trial counts as one without a value."""
    sweep, results = selection.choice, [graph.find(trial) for trial in earlier]
    if not isinstance(sweep, OptunaSweep):
        raise TypeError("no sweep by Optuna is declared")
    values = [None if result is None else result.row.value for result in results]
    return selection.add(graph, candidate, suggest(sweep, values, higher_is_better=selection.traits.higher_is_better))


def _target_met(*rungs: TrialRef | None) -> str | None:
    met = next((rung.row.name for rung in rungs if rung is not None and rung.row.met), None)
    return None if met is None else f"{met} meets its target"


def winner_model(graph: Graph, *, selection: Selection, choice: ChoiceRef) -> ModelRef:
    return _winner(graph, selection, choice).model


def winner_dataset(graph: Graph, *, selection: Selection, choice: ChoiceRef) -> DatasetRef:
    return _winner(graph, selection, choice).dataset


def winner_trained(graph: Graph, *, selection: Selection, choice: ChoiceRef) -> TrainedRef:
    return _winner(graph, selection, choice).trained


def _winner(graph: Graph, selection: Selection, choice: ChoiceRef) -> Training:
    name = graph.read(choice).winner
    return next(training for training in selection.trainings if training.name == name)


def _judged_by(evaluate: EvaluateSpec, metric: str) -> tuple[EvaluateSpec, DecodingSpec]:
    """Limit scoring to what the choice needs: its own metric, and one answer token if only the loss counts."""
    metrics = tuple(each for each in evaluate.metrics if each.traits().name == metric)
    decoding = evaluate.decoding()
    if metric == LOSS:
        decoding = decoding.model_copy(update={"max_new_tokens": 1})
    return evaluate.model_copy(update={"metrics": metrics}), decoding
