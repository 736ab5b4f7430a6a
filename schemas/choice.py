"""Several trainings to choose from: `train.method: ladder` and `train.sweep`, both scored only on `validation`.

A ladder tries rungs in order until one meets a target; a sweep tries settings and takes the best.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from schemas.curation import SplitSpec
from schemas.evaluation import EvaluateSpec
from schemas.names import closest
from schemas.spec import Conflict, Spec, UnfitError
from schemas.training import EncodeSpec, TrainSpec

FIXED = {
    "format": "trainings of two formats answer different prompts",
    "budget": "it is for all trainings of the run together",
    "prompt": "every training must answer the same prompt, which is served",
    "start": "trainings that are compared all start from the base",
    "replay": "trainings that are compared all start from the base",
}
"""Settings that must be equal in all compared trainings, and why."""


def train_paths() -> dict[str, Any]:
    """Path of each setting of a training -> its type.

    >>> sorted(path for path in train_paths() if path.startswith("quant"))
    ['quantization.compute_dtype', 'quantization.double_quant', 'quantization.type']
    """
    return dict(_leaves(TrainSpec, ""))


def path_fault(path: str) -> tuple[str, str | None] | None:
    """Why the path cannot be changed, with a hint; None if it can.

    >>> path_fault("adapter.rnak")
    ('`adapter.rnak` is not a setting of train', 'did you mean `adapter.rank`?')
    """
    known = train_paths()
    if (top := path.partition(".")[0]) in FIXED:
        return f"`{path}` cannot differ: {FIXED[top]}", "make it a pipeline of its own with `extends`"
    if path in known:
        return None
    inside = [each for each in known if each.startswith(f"{path}.")]
    if inside:
        return f"`{path}` is a section", f"name a setting in it: {', '.join(inside)}"
    changeable = [each for each in known if each.partition(".")[0] not in FIXED]
    return f"`{path}` is not a setting of train", closest(path, changeable)


def number_kind(path: str) -> type[int] | type[float] | None:
    """int or float for the path of a setting that may be a number; None for any other."""
    numbers = {_plain(member) for member in _members(train_paths()[path])} & {int, float}
    return float if float in numbers else int if numbers else None


def with_value(data: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at the path of a dumped `TrainSpec`; a null section becomes a mapping."""
    *sections, last = path.split(".")
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
    data[last] = value


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        members = _members(field.annotation)
        section = next((each for each in members if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if section is not None:
            yield from _leaves(section, f"{path}.")
        if section is None or len(members) > 2:
            yield path, field.annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; for another type, the type itself."""
    annotation = _plain(annotation)
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


LOSS = "heldout_loss"
"""Name of the metric for the loss on reference answers; on validation items, the validation loss."""
MAX_COMBINATIONS = 256

EXTERNAL_ADDRESS = re.compile(
    r"hf://[\w.-]+/[\w.-]+@[0-9a-f]{40}|models:/[^/@\s]+(?:@[\w.-]+|/\d+)|(?!hf:|models:|[A-Za-z][\w+.-]*://)\S.*"
)
"""A commit of the hub, a version of MLflow's registry by alias or number, or a folder."""

Setting = str | int | float | bool | None | tuple[str, ...]
"""A value of one setting of `train`."""


class TargetSpec(Spec):
    """What a rung must reach on the validation items."""

    metric: str
    """A metric of `evaluate`, or `heldout_loss`: the validation loss in nats per token of the reference answer."""
    value: float
    """At least this, or at most where lower is better."""
    by: Literal["bound", "estimate"] = "bound"
    """`bound`: the confidence bound of the metric must reach the value. `estimate`: only the mean, which few items may
    reach by luck."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability that no rung meets the target by luck, over all rungs together."""


class RungSpec(Spec):
    """One rung: a name, and what it changes in `train`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    """Name of the rung, in the report and in the names of its steps."""
    set: dict[str, Setting] = Field(min_length=1)
    """Path in `train` -> value, e.g. `{method: qlora, adapter.rank: 8}`. Must name `method`."""


class _Choice(Spec):
    """Settings of both ladder and sweep."""

    max_items: int = Field(default=400, ge=1)
    """Validation items that each training answers, chosen by hash of the ticket id."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Price of an hour of the machine; null shows no prices. Does not affect results."""


class LadderSpec(_Choice):
    """`train.ladder`: rungs in the order of their cost; the next starts only if the one before misses the target."""

    target: TargetSpec
    rungs: tuple[RungSpec, ...] = Field(min_length=2, max_length=20)
    """The trainings, in the order of their cost."""


class RangeSpec(Spec):
    """Numbers between two limits, both included."""

    low: float
    """Lower limit, included."""
    high: float
    """Upper limit, included."""
    log: bool = False
    """Search on a logarithmic scale: for learning rates."""


Values = Annotated[tuple[Setting, ...], Field(min_length=1)]


class GridSweep(_Choice):
    """Every combination of the values."""

    kind: Literal["grid"]
    metric: str = LOSS
    """A metric of `evaluate`; the best mean over the validation items wins."""
    over: dict[str, Values] = Field(min_length=1)
    """Path in `train` -> values, e.g. `{adapter.rank: [8, 16]}`. The last path varies fastest."""

    def grid(self) -> tuple[dict[str, Setting], ...]:
        """The combinations in order.

        >>> GridSweep(kind="grid", over={"epochs": [1, 2], "seed": [7]}).grid()
        ({'epochs': 1, 'seed': 7}, {'epochs': 2, 'seed': 7})
        """
        return tuple(dict(zip(self.over, point, strict=True)) for point in product(*self.over.values()))


class OptunaSweep(_Choice):
    """Trials that Optuna's TPE sampler chooses from earlier results."""

    kind: Literal["optuna"]
    metric: str = LOSS
    """A metric of `evaluate`; the best mean over the validation items wins."""
    n_trials: int = Field(default=12, ge=1, le=MAX_COMBINATIONS)
    """Number of trainings."""
    seed: int = Field(default=0, ge=0)
    """The same seed and results give the same trials."""
    over: dict[str, Values | RangeSpec] = Field(min_length=1)
    """Path in `train` -> values, or a range: `{learning_rate: {low: 1e-4, high: 5e-3, log: true}}`."""


SweepSpec = Annotated[GridSweep | OptunaSweep, Field(discriminator="kind")]


class TrainSection(TrainSpec):
    """`train`: base model, method, format and optimiser settings; several trainings to choose from; or a model that was
    trained elsewhere."""

    method: Literal["full", "lora", "qlora", "ladder", "external"] = "lora"  # type: ignore[assignment]  # `training` replaces it
    """full, lora or qlora; ladder: the first rung of `ladder` that meets its target; external: nothing is trained, and
    `model` is judged."""
    model: str | None = None
    """With `method: external` the candidate, a PEFT adapter or a merged model in safetensors: a folder (relative to
    pipelines.yaml), `hf://org/name@COMMIT`, `models:/NAME@ALIAS` or `models:/NAME/VERSION` of MLflow."""
    trained_on: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """With `method: external` the files that the model learned from, as paths or globs: JSONL, CSV or Parquet. Without
    them the verdict says that contamination is unknown."""
    ladder: LadderSpec | None = None
    sweep: SweepSpec | None = None
    """Trainings with other settings; the best on validation is judged by the gate."""

    @field_validator("model")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and EXTERNAL_ADDRESS.fullmatch(value) is None:
            raise ValueError(
                "is no folder and no address; write FOLDER, hf://org/name@<commit sha, 40 hex digits>, "
                "models:/NAME@ALIAS or models:/NAME/VERSION"
            )
        return value

    @property
    def is_external(self) -> bool:
        """Whether the candidate was trained elsewhere, so that nothing is trained."""
        return self.method == "external"

    @property
    def choice(self) -> LadderSpec | GridSweep | OptunaSweep | None:
        """The ladder or sweep; None for a single training."""
        return self.ladder or self.sweep

    def training(self, changes: Mapping[str, Setting] | None = None) -> TrainSpec:
        """One training: these settings with the changes (path -> value), without settings that only later steps need.

        Of `method: external` it says how the model is prompted; its settings of a training have no meaning.

        Raises:
            ValidationError: the settings do not fit together.
        """
        data: dict[str, Any] = self.model_dump(exclude={"ladder", "sweep", "model", "trained_on"})
        if self.is_external:
            data |= {"method": "lora", "allow_unusual_learning_rate": True}
        for path, value in (changes or {}).items():
            with_value(data, path, value)
        return TrainSpec.model_validate(data).for_worker()

    def first(self) -> TrainSpec:
        """The first training, as far as it is known from the settings: for estimates."""
        return self.training(self.ladder.rungs[0].set) if self.ladder is not None else self.training()

    @model_validator(mode="after")
    def _choice_is_sound(self) -> Self:
        faults = [*_external_faults(self), *_kind_faults(self)] or [*_ladder_faults(self), *_sweep_faults(self)]
        if faults:
            raise UnfitError(faults)
        return self


def choice_faults(train: TrainSection, evaluate: EvaluateSpec, split: SplitSpec) -> Iterator[Conflict]:
    """Check what ladder or sweep need from other sections: a metric that is scored, and validation tickets."""
    choice = train.choice
    if choice is None:
        return
    at: tuple[str | int, ...] = ("train", "sweep", "metric")
    if isinstance(choice, LadderSpec):
        at, metric = ("train", "ladder", "target", "metric"), choice.target.metric
    else:
        metric = choice.metric
    if metric not in evaluate.validation_names():
        yield Conflict(f"unknown metric {metric!r}", at=at, hint=closest(metric, evaluate.validation_names()))
    if split.validation_fraction == 0:
        yield Conflict(
            "trainings are compared on the validation split, but there is none",
            at=("split", "validation_fraction"),
            hint="set it to about 0.1; `test` is only for the gate",
        )


NOT_EXTERNAL = (
    "ladder", "sweep", "start", "canaries", "validation_items", "validation_metrics", "early_stopping", "budget",
)  # fmt: skip
"""Settings that promise something of a training, which `method: external` does not have."""


def _external_faults(train: TrainSection) -> Iterator[Conflict]:
    if not train.is_external:
        for name in ("model", "trained_on"):
            if getattr(train, name):
                yield Conflict(f"`{name}` needs `method: external`", at=(name,), hint="or remove it")
        return
    if train.model is None:
        yield Conflict(
            "method external has no `model`", at=("method",),
            hint="name the model to judge: model: FOLDER, hf://org/name@COMMIT or models:/NAME@ALIAS",
        )  # fmt: skip
    for name in NOT_EXTERNAL:
        if getattr(train, name) != type(train).model_fields[name].default:
            yield Conflict("method external trains nothing", at=(name,), hint=f"remove {name}")


def _kind_faults(train: TrainSection) -> Iterator[Conflict]:
    if train.method == "ladder" and train.ladder is None:
        yield Conflict(
            "method ladder has no `ladder`", at=("method",), hint="declare ladder: {target: ..., rungs: [...]}"
        )
    if train.method != "ladder" and train.ladder is not None:
        yield Conflict("`ladder` needs `method: ladder`", at=("ladder",), hint="or remove it: `ladder: null`")
    if train.start == "champion" and train.choice is not None:
        yield Conflict(
            "start champion continues one training; a ladder or a sweep compares trainings from the base",
            at=("start",),
            hint="use start: base",
        )
    if train.ladder is not None and train.sweep is not None:
        yield Conflict("there is both a ladder and a sweep; use one of them", at=("sweep",), hint="`sweep: null`")


def _ladder_faults(train: TrainSection) -> Iterator[Conflict]:
    rungs = train.ladder.rungs if train.ladder is not None else ()
    for index, rung in enumerate(rungs):
        at: tuple[str | int, ...] = ("ladder", "rungs", index)
        if rung.name in [earlier.name for earlier in rungs[:index]]:
            yield Conflict(f"there are two rungs {rung.name!r}", at=(*at, "name"))
        wrong = {path: fault for path in rung.set if (fault := path_fault(path)) is not None}
        for path, (message, hint) in wrong.items():
            yield Conflict(message, at=(*at, "set", path), hint=hint)
        if "method" not in rung.set:
            yield Conflict(f"rung {rung.name!r} has no `method`", at=(*at, "set"), hint="full, lora or qlora")
        elif not wrong:
            yield from _refusals(train, rung.set, at=(*at, "set"))


def _sweep_faults(train: TrainSection) -> Iterator[Conflict]:
    sweep = train.sweep
    if sweep is None:
        return
    at: tuple[str | int, ...] = ("sweep", "over")
    faults: list[Conflict] = []
    for path, values in sweep.over.items():
        wrong = path_fault(path)
        if path == "allow_download":
            wrong = "`allow_download` is not a setting to search over", "set it under `train`"
        if wrong is not None:
            faults.append(Conflict(wrong[0], at=(*at, path), hint=wrong[1]))
            continue
        if isinstance(values, RangeSpec) and (unfit := _range_fault(path, values)) is not None:
            faults.append(Conflict(unfit, at=(*at, path)))
            continue
        for value in corners(values):
            # Clashes with other values are reported for combinations.
            faults += [fault for fault in _refusals(train, {path: value}, at=at) if len(fault.at) > len(at)]
    sizes = [len(corners(values)) for values in sweep.over.values()]
    if not faults and math.prod(sizes) > MAX_COMBINATIONS:
        most = f"{math.prod(sizes)} combinations of values and limits; at most {MAX_COMBINATIONS} can be checked"
        faults.append(Conflict(most, at=at, hint="leave some values out"))
    yield from faults or _combination_faults(train, sweep)


def _combination_faults(train: TrainSection, sweep: GridSweep | OptunaSweep) -> Iterator[Conflict]:
    """The first invalid combination of values and limits."""
    for point in product(*(corners(values) for values in sweep.over.values())):
        changes = dict(zip(sweep.over, point, strict=True))
        for fault in _refusals(train, changes, at=("sweep", "over")):
            settings = ", ".join(f"{path} {value}" for path, value in changes.items())
            yield Conflict(f"{settings}: {fault.message}", at=("sweep", "over"))
            return


def corners(values: tuple[Setting, ...] | RangeSpec) -> tuple[Setting, ...]:
    """All values, or the limits of a range."""
    if not isinstance(values, RangeSpec):
        return values
    return tuple(int(limit) if limit.is_integer() else limit for limit in (values.low, values.high))


def _range_fault(path: str, values: RangeSpec) -> str | None:
    kind = number_kind(path)
    if not values.low < values.high:
        return f"low {values.low:g} is not below high {values.high:g}"
    if values.log and values.low <= 0:
        return f"a log range needs low above 0, got {values.low:g}"
    if kind is None:
        return f"`{path}` is not a number and cannot have a range; list its values: [a, b]"
    if kind is int and not (values.low.is_integer() and values.high.is_integer()):
        return f"`{path}` takes whole numbers, got {values.low:g} to {values.high:g}"
    return None


def _refusals(train: TrainSection, changes: Mapping[str, Setting], *, at: tuple[str | int, ...]) -> Iterator[Conflict]:
    """Why these settings are invalid: a fault at the path, or at `at` if several settings clash."""
    try:
        train.training(changes)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            place = ".".join(str(key) for key in each["loc"])
            path = next((path for path in changes if place == path or place.startswith(f"{path}.")), None)
            message = each["msg"].removeprefix("Value error, ").removeprefix("Input ")
            yield Conflict(
                f"{changes[path]!r} {message}" if path is not None else message,
                at=(*at, path) if path is not None else at,
            )


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
