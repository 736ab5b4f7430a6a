"""The trainings that a ladder or a sweep declares, by name and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.choice import LadderSpec, OptunaSweep, Setting, TrainSection
from schemas.training import EncodeSpec

Changes = Mapping[str, Setting]


@dataclass(frozen=True)
class Candidate:
    """One training to choose from."""

    name: str
    """`rung_small`, `trial_03`: the step that weighs it; `train · trial_03` trains it."""
    number: int
    changes: Changes | None
    """What it changes in `train`; None if earlier results decide."""


def candidates(train: TrainSection) -> tuple[Candidate, ...]:
    """The trainings in the order of their start; none if there is only one training."""
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
    """(Address, whether it may be downloaded) of every base model -> its step; the first is train's own."""
    found = {(train.base_model, train.allow_download): "base_model"}
    for each in changes_of(train):
        found.setdefault(base_of(train, each), f"base_model_{len(found) + 1}")
    return found


def base_of(train: TrainSection, changes: Changes) -> tuple[str, bool]:
    """The base model of a training with these changes."""
    address = changes.get("base_model", train.base_model)
    return str(address), bool(changes.get("allow_download", train.allow_download))


def tokens_vary(train: TrainSection) -> bool:
    """Return whether any training changes a setting that the token ids depend on."""
    settings = {*EncodeSpec.model_fields, "base_model", "allow_download"}
    return any(path.partition(".")[0] in settings for each in changes_of(train) for path in each)


def changes_of(train: TrainSection) -> list[Changes]:
    """Return all possible changes; of a sweep by Optuna one path and value at a time, of a single training none."""
    choice = train.choice
    if isinstance(choice, OptunaSweep):
        return [
            {path: value}
            for path, values in choice.over.items()
            for value in (values if isinstance(values, tuple) else (values.low,))
        ]
    return [candidate.changes or {} for candidate in candidates(train)]
