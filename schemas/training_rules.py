"""Settings of `train` that do not fit together, and those that fit but are worth a word.

Faults end `tunegate validate`; advice is shown by `validate` and `plan`. Knows nothing of files and models. Used by
`schemas/training.py` and `flows/cli/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from schemas.learning_rate import FAR, is_far_off, is_usual, told
from schemas.names import closest
from schemas.spec import Fault

if TYPE_CHECKING:
    from schemas.curation import SplitSpec
    from schemas.evaluation import EvaluateSpec
    from schemas.training import TrainSpec


def training_faults(train: TrainSpec) -> Iterator[Fault]:
    """Contradictions inside the section."""
    if is_far_off(train.method, train.learning_rate) and not train.allow_unusual_learning_rate:
        yield Fault(
            f"{told(train.method, train.learning_rate)}, and this is more than {FAR:g} times off",
            at=("learning_rate",),
            hint="if it is meant, say so: allow_unusual_learning_rate: true",
        )
    if train.method == "qlora" and train.quantization is None:
        yield Fault(
            "method qlora needs a 4-bit base, but quantization is null",
            at=("quantization",),
            hint="leave quantization out for NF4, or use method: lora",
        )
    if train.adapter.top_layers is not None and train.adapter.layers is not None:
        yield Fault(
            "adapter.layers and adapter.top_layers both choose layers",
            at=("adapter", "top_layers"),
            hint="keep one of them",
        )
    yield from _sharding_faults(train)
    if train.validation_metrics and not train.validation_items:
        yield Fault(
            "validation_metrics needs answers to score",
            at=("validation_metrics",),
            hint="say how many validation tickets are answered each time: validation_items: 32",
        )


def _sharding_faults(train: TrainSpec) -> Iterator[Fault]:
    if train.sharding == "none":
        return
    if train.processes == 1:
        yield Fault(
            "sharding full spreads the model over processes, and there is one",
            at=("sharding",),
            hint="set processes to 2 or more, or leave sharding out",
        )
    excluded = {
        "method qlora, whose 4-bit weights are not cut into parts": train.method == "qlora",
        "8-bit moments, which are not cut into parts": train.optimizer != "adamw",
        "early_stopping, which keeps whole weights at each validation": train.early_stopping is not None,
        "validation_items, which one process would answer alone": train.validation_items > 0,
    }
    for what, declared in excluded.items():
        if declared:
            yield Fault(f"sharding full excludes {what}", at=("sharding",), hint="use sharding: none")


def validation_faults(train: TrainSpec, split: SplitSpec, evaluate: EvaluateSpec) -> Iterator[Fault]:
    """What `train` asks of the validation split and of the metrics, and what there is."""
    for key, wanted in (("early_stopping", train.early_stopping), ("validation_items", train.validation_items)):
        if wanted and split.validation_fraction == 0:
            yield Fault(
                f"train.{key} needs validation tickets, but split.validation_fraction is 0",
                at=("train", key),
                hint="set split.validation_fraction, e.g. 0.05; the test split is never looked at in training",
            )
    known = evaluate.metric_names()
    for index, name in enumerate(train.validation_metrics):
        if name not in known:
            yield Fault(
                f"validation on unknown metric {name!r}",
                at=("train", "validation_metrics", index),
                hint=closest(name, known),
            )


def training_advice(train: TrainSpec) -> list[str]:
    """What is allowed but worth a second look, one sentence each.

    >>> from schemas.training import TrainSpec
    >>> training_advice(TrainSpec(base_model="file:m", learning_rate=2e-3))
    ['train.learning_rate 0.002 is unusual for method lora: 0.0001 to 0.0003 is usual']
    """
    advice = []
    if not is_usual(train.method, train.learning_rate) and not train.allow_unusual_learning_rate:
        advice.append(f"train.{told(train.method, train.learning_rate)}")
    if train.method in ("full", "lora") and train.quantization is not None and "quantization" in train.model_fields_set:
        advice.append(
            f"train.quantization has no effect with method {train.method}, which loads the base in full precision; "
            "write method: qlora if 4 bits are meant"
        )
    if train.method == "full" and "adapter" in train.model_fields_set:
        advice.append("train.adapter has no effect with method full, which trains every weight")
    if train.early_stopping is not None and train.lr_scheduler != "constant":
        advice.append(
            f"train.early_stopping may end the training before lr_scheduler {train.lr_scheduler} has lowered the rate"
        )
    return advice


def trunk_faults(train: TrainSpec) -> Iterator[Fault]:
    """Settings under which no layer stays as it is below the lowest that trains."""
    if train.cache_trunk != "on":
        return
    if train.method == "full":
        yield Fault(
            "method full trains every layer: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="use method: lora with adapter.top_layers, or cache_trunk: auto",
        )
    elif train.adapter.top_layers is None and 0 in train.adapter.layers_of(1):
        yield Fault(
            "all layers are adapted: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="set adapter.top_layers, e.g. 10, or cache_trunk: auto",
        )
