"""How large a run will be and how long it takes, before it: for `tunegate plan`.

Sizes come from stored results, else from the source as it is; seconds from the last steps that this home has recorded,
scaled to the new sizes, else from a probe of the processor. Trains nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.context.previous_run import PreviousRun
from flows.graph.graph import Node
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.rows import StepRow
from flows.registry.state import StartingPoint, training_size
from flows.views.advice import dims_of
from schemas.artifacts import DatasetRef, ModelRef, Predictions, Splits, TrainedRef
from schemas.errors import ConfigError
from schemas.evaluation import ANSWERING_ARMS
from schemas.pipeline import PipelineSpec
from schemas.training import TrainSpec
from tasks.start.probe import ANSWERING_EFFICIENCY, answering_work, flops_per_second, has_gpu
from tasks.start.source_size import SourceSize
from tasks.train.external import take_external
from tasks.train.model_shapes import ModelDims

TRAINING_EFFICIENCY = 0.5
"""Share of the probe's speed that trainings reach on a CPU: SmolLM2-135M in float32 on two AVX2 cores."""
NODE_S = 1.0
"""Any other step that was never timed."""
ROW_S = 2e-5
"""Of a step of curation, for each row, on top."""
CANDIDATE = "answers_tuned"
"""Step of the candidate's answers."""
FAR = 1.5
"""Factor between the declared and the measured pace of answers from which on a plan says so."""
PAST = 50
"""Steps to look at for one that fits."""


@dataclass(frozen=True)
class Size:
    """What a run will read, train on and answer."""

    n_rows: int | None
    """Of the source; None after curation, where it no longer matters."""
    n_train: int
    n_test: int
    train_tokens: int
    """Of the examples that are trained on, once."""
    prompt_tokens: float
    """Mean of a prompt."""
    estimated: bool
    """By the rows of the source, not by curated tickets."""


def size_of(
    spec: PipelineSpec,
    *,
    source: SourceSize | None,
    splits: Splits | None,
    dataset: DatasetRef | None,
    previous: PreviousRun,
    start: StartingPoint | None,
) -> Size | None:
    """Put together what is known.

    Args:
        source: The source as it is; None if it was not read.
        splits: The curated tickets; None before curation.
        dataset: The encoded examples; None before.
        previous: Of the last run, whose share of kept rows is assumed.
        start: What the training continues from: it has fewer examples than there are train tickets.
    """
    train = spec.train.first()
    if splits is not None:
        n_train, n_test = splits.n_train, splits.n_test
    elif source is None:
        return None
    else:
        card = previous.card
        n_kept = source.n_usable
        if card is not None and card.n_read:
            n_kept = round(source.n_rows * (card.n_train + card.n_validation + card.n_test) / card.n_read)
        n_test = int(spec.split.test_fraction * n_kept)
        n_train = max(0, n_kept - n_test - int(spec.split.validation_fraction * n_kept))
    if dataset is not None:
        n_train, tokens = dataset.n_train, dataset.n_tokens
        prompt = (dataset.n_tokens - dataset.n_supervised) / max(1, dataset.n_train)
    else:
        n_train = training_size(train, n_train, splits=splits, start=start)
        prompt = 0.0 if source is None else source.prompt_tokens
        tokens = 0 if source is None else round(n_train * min(train.max_length, prompt + source.answer_tokens))
    n_rows = source.n_rows if source is not None and splits is None else None
    return Size(n_rows, n_train, spec.n_items(n_test), tokens, prompt, estimated=splits is None)


@dataclass(frozen=True)
class Pace:
    """Seconds of the steps that a run would make."""

    seconds: Mapping[str, float]
    """Node's name -> seconds."""
    origin: str
    """Where they come from, in words."""


def pace_of(
    spec: PipelineSpec,
    nodes: Sequence[Node],
    *,
    size: Size | None,
    model: ModelRef | None,
    ledger: Ledger,
    store: Store,
    root: Path,
) -> Pace | None:
    """Estimate the seconds of these nodes; None if the sizes or this machine's speed are not known.

    Args:
        nodes: Those that will run, without those that only add others.
        model: The base model, if it is there.
        root: Folder of pipelines.yaml.
    """
    dims: ModelDims | None = None
    with suppress(ConfigError):
        dims = dims_of(spec.train.first(), root)
    kinds = {node.name: node.folder for node in nodes if node.function is not take_external}
    heavy = set(kinds.values()) & {"train", "answers"}
    if size is None or (heavy and dims is None):
        return None
    n_parameters = dims.n_active if dims else 0
    layers = dims.layers if dims else 1
    work = {
        "train": training_work(spec.train.first(), size.train_tokens, n_parameters=n_parameters, n_layers=layers),
        "answers": _answering_work(size.n_test, size.n_test * spec.evaluate.max_new_tokens, size, n_parameters),
    }
    speeds: dict[str, float] = {}
    probed: list[str] = []
    for kind in sorted(heavy):
        measured = _measured(kind, spec, size, model=model, ledger=ledger, store=store, dims=dims)
        if measured is None:
            if spec.engine != "local" or has_gpu():
                return None  # a probe of this processor says nothing
            probed.append(kind)
            measured = flops_per_second() * (TRAINING_EFFICIENCY if kind == "train" else ANSWERING_EFFICIENCY)
        speeds[kind] = measured
    seconds = {}
    for node in nodes:
        if kinds.get(node.name) in speeds:
            seconds[node.name] = work[node.folder] / speeds[node.folder]
        else:
            typical = ledger.typical_seconds(node.id)
            rows = ROW_S * (size.n_rows or 0) if node.stage == "curate" else 0.0
            seconds[node.name] = NODE_S + rows if typical is None else typical
    return Pace(seconds, _origin(probed, heavy))


def measured_answers(model: ModelRef | None, *, ledger: Ledger, store: Store) -> float | None:
    """Answers per minute of the newest candidate of this base model that answered here; None if none did."""
    if model is None:
        return None
    for step in ledger.newest_made(CANDIDATE, limit=PAST):
        parts, found = store.parts("answers", step.key), store.whole("answers", step.key, Predictions)
        if parts is None or found is None or parts.inputs.get("model") != model.digest or step.seconds <= 0:
            continue
        return 60 * found.n_items / step.seconds
    return None


def answers_advice(spec: PipelineSpec, measured: float | None) -> str | None:
    """Return a sentence if `evaluate.answers_per_minute` is far from what was measured."""
    evaluate = spec.evaluate
    declared, minutes = evaluate.answers_per_minute, evaluate.answer_minutes
    if measured is None or declared is None or minutes is None or 1 / FAR < measured / declared < FAR:
        return None
    needed = ANSWERING_ARMS * evaluate.max_items / measured
    return (
        f"evaluate.answers_per_minute is {declared:g}, and the last candidate answered {measured:.2g} in a minute: "
        f"{evaluate.max_items:,} items take candidate and champion about {needed:.2g} minutes, and answer_minutes is "
        f"{minutes:g}; `answers_per_minute: {measured:.2g}` gives other items from the next run on"
    )


def training_work(train: TrainSpec, n_tokens: int, *, n_parameters: int, n_layers: int) -> float:
    """Floating-point operations of a training on this many tokens of examples.

    Args:
        n_parameters: Those that a token meets: of a mixture of experts, not those of its other experts.

    A token takes two for each parameter forward, as many backward for the activations of layers from the lowest
    trained one on, and as many again for the weights if these are trained. Layers below are computed once, if the
    training keeps their outputs.

    Source: Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, table 1.
    """
    lowest = 0 if train.method == "full" else min(train.adapter.layers_of(n_layers), default=0)
    trained = 1 - max(0, lowest) / n_layers
    passes = 1 if train.epochs > 1 and trained < 1 and train.cache_trunk != "off" else train.epochs
    backward = 3 if train.method == "full" else 2
    share = min(1.0, train.max_steps / _steps(train, n_tokens)) if train.max_steps else 1.0
    return 2 * n_parameters * n_tokens * share * ((1 - trained) * passes + trained * train.epochs * backward)


def _steps(train: TrainSpec, n_tokens: int) -> float:
    each = train.batch_size * train.gradient_accumulation_steps * train.processes
    return max(1.0, train.epochs * n_tokens / (each * train.max_length / 2))


def _answering_work(n_items: int, n_new: int, size: Size, n_parameters: int) -> float:
    return answering_work(n_items, n_new, prompt_tokens=size.prompt_tokens, n_parameters=n_parameters)


def _measured(
    kind: str,
    spec: PipelineSpec,
    size: Size,
    *,
    model: ModelRef | None,
    ledger: Ledger,
    store: Store,
    dims: ModelDims | None,
) -> float | None:
    """Operations per second of the newest step of this kind with the same base model; None without one."""
    if dims is None:
        return None
    train = spec.train.first()
    for step in ledger.newest_made(kind, limit=PAST):
        work = None
        if kind == "train":
            work = _trained(step, store, train, dims)
        elif model is not None:
            parts, found = store.parts("answers", step.key), store.whole("answers", step.key, Predictions)
            if parts is not None and found is not None and parts.inputs.get("model") == model.digest:
                work = _answering_work(found.n_items, found.n_new_tokens, size, dims.n_active)
        if work and step.seconds > 0:
            return work / step.seconds
    return None


def _trained(step: StepRow, store: Store, train: TrainSpec, dims: ModelDims) -> float | None:
    parts, found = store.parts("train", step.key), store.whole("train", step.key, TrainedRef)
    if parts is None or found is None:
        return None
    try:
        past = TrainSpec.model_validate(parts.params["spec"])
    except (KeyError, ValueError):
        return None
    if (past.base_model, past.method, past.processes) != (train.base_model, train.method, train.processes):
        return None
    once = past.model_copy(update={"max_steps": None})  # its tokens are those that it processed
    return training_work(once, round(found.n_tokens / past.epochs), n_parameters=dims.n_active, n_layers=dims.layers)


def _origin(probed: Sequence[str], heavy: set[str]) -> str:
    if not heavy:
        return "what these steps usually take here"
    if not probed:
        return "the last measured training and answers of this base model here, scaled to the size"
    what = " and ".join("training" if kind == "train" else "answers" for kind in probed)
    return f"a probe of this processor for {what}, good to a factor of two; a first run measures it"
