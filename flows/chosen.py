"""How the steps of several trainings are called, and which of them the later stages take.

Names alone, from the declaration; `flows/choice.py` makes the steps. One training is the plain case: `base_model`,
`encode`, `train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.choice import LadderSpec, OptunaSweep, Setting, TrainSection
from schemas.training import EncodeSpec

Changes = Mapping[str, Setting]


@dataclass(frozen=True)
class Candidate:
    """One training to choose from."""

    name: str
    """`rung_small`, `trial_03`: the step that weighs it; `train_trial_03` trains it."""
    number: int
    changes: Changes | None
    """What it changes in `train`; null where earlier results decide."""


@dataclass(frozen=True)
class Names:
    """Steps that hold a base model and the encoded examples."""

    model: str = "base_model"
    dataset: str = "encode"


def candidates(train: TrainSection) -> tuple[Candidate, ...]:
    """The trainings in the order in which they start."""
    choice = train.choice
    if isinstance(choice, LadderSpec):
        return tuple(
            Candidate(f"rung_{rung.name}", number, dict(rung.set)) for number, rung in enumerate(choice.rungs, start=1)
        )
    if choice is None:
        return ()
    if isinstance(choice, OptunaSweep):
        points: Sequence[Changes | None] = [None] * choice.n_trials
    else:
        points = choice.grid()
    width = max(2, len(str(len(points))))
    return tuple(Candidate(f"trial_{n:0{width}}", n, point) for n, point in enumerate(points, start=1))


def base_models(train: TrainSection) -> dict[tuple[str, bool], str]:
    """(Address, may it be downloaded) of every base model -> the step that holds it; the first is train's own."""
    found = {(train.base_model, train.allow_download): "base_model"}
    for each in _known_changes(train):
        found.setdefault(base_of(train, each), f"base_model_{len(found) + 1}")
    return found


def base_of(train: TrainSection, changes: Changes) -> tuple[str, bool]:
    """The base model of a training with these changes."""
    address = changes.get("base_model", train.base_model)
    return str(address), bool(changes.get("allow_download", train.allow_download))


def varies(train: TrainSection, settings: frozenset[str]) -> bool:
    """Does any training change one of these settings or sections?"""
    return any(path.partition(".")[0] in settings for each in _known_changes(train) for path in each)


BASE = frozenset({"base_model", "allow_download"})
TOKENS = frozenset(EncodeSpec.model_fields) | BASE
"""Settings that decide the token ids."""


def first_names(train: TrainSection) -> Names:
    """Base model and examples of the training that comes first."""
    first = next(iter(candidates(train)), None)
    return Names() if first is None else Names(model_name(train, first), dataset_name(train, first))


def chosen_names(train: TrainSection) -> Names:
    """Base model and examples of the training that goes on to the gate."""
    if train.choice is None:
        return Names()
    return Names(
        "chosen_model" if varies(train, BASE) else "base_model",
        "chosen_dataset" if varies(train, TOKENS) else "encode",
    )


def dataset_name(train: TrainSection, candidate: Candidate) -> str:
    """The step that encodes the candidate's examples: one for all where no training changes the token ids."""
    return f"encode_{candidate.name}" if varies(train, TOKENS) else "encode"


def model_name(train: TrainSection, candidate: Candidate) -> str:
    """The step that holds the candidate's base model; a pick of its own where earlier results decide which it is."""
    if candidate.changes is None:
        return f"model_{candidate.name}" if varies(train, BASE) else "base_model"
    return base_models(train)[base_of(train, candidate.changes)]


def _known_changes(train: TrainSection) -> list[Changes]:
    """All changes that a training may have; of a sweep by Optuna, one path and value at a time."""
    choice = train.choice
    if isinstance(choice, OptunaSweep):
        return [
            {path: value}
            for path, values in choice.over.items()
            for value in (values if isinstance(values, tuple) else (values.low,))
        ]
    return [candidate.changes or {} for candidate in candidates(train)]
