"""Dotted paths into `train`, as in rungs and sweeps: `learning_rate`, `adapter.rank`.

Knows the fields of `TrainSpec` and nothing of ladders. Called by `schemas/choice.py`.
"""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from schemas.names import closest
from schemas.training import TrainSpec

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
