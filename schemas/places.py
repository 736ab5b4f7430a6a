"""From pydantic's location of an error to the keys a person wrote, and what would be allowed there.

A pydantic location is noisy: it names the variant chosen in a union (`source.generated.n_tickets`) and the branch that
was tried (`target_modules.tuple[str, ...]`). Walking the types beside it tells keys from noise. Knows nothing of text
and lines. Called by `schemas/load.py`.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Key = str | int


class Place(NamedTuple):
    """Where an error is, in keys of the file.

    Attributes:
        path: Keys and list indices.
        known: What is allowed for the last key: names of keys, or of variants.
        meaning: The documentation of the last key, empty when it has none.
        is_key: The error is about the last key itself, not about its value.
        union: How many keys lead to an undiscriminated union that the location passed; null without one.
    """

    path: tuple[Key, ...]
    known: tuple[str, ...]
    meaning: str
    is_key: bool
    union: int | None


class _Shape(NamedTuple):
    """A type without its wrappers: `| None` and `Annotated` gone, the union's discriminator kept."""

    type: Any
    discriminator: str | None = None

    @property
    def members(self) -> tuple[Any, ...]:
        """The types of a union; empty for anything else."""
        return get_args(self.type) if get_origin(self.type) in (Union, UnionType) else ()

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Key -> field of a section; empty for anything else."""
        if isinstance(self.type, type) and issubclass(self.type, BaseModel):
            return {field.alias or name: field for name, field in self.type.model_fields.items()}
        return {}

    def variants(self) -> dict[str, Any]:
        """What the discriminating key may say -> the section it chooses."""
        key = self.discriminator or ""
        return {tag: member for member in self.members for tag in get_args(member.model_fields[key].annotation)}


def place_of(model: type[BaseModel], location: tuple[Key, ...]) -> Place:
    """The place of a pydantic error in the file that `model` was read from.

    >>> from schemas.pipeline import PipelineSpec
    >>> place_of(PipelineSpec, ("curate", "steps", 1, "dedup", "treshold")).path
    ('curate', 'steps', 1, 'treshold')
    """
    shape = _shape(model)
    path: list[Key] = []
    known: tuple[str, ...] = ()
    meaning = ""
    union: int | None = None
    for part in location:
        if shape.discriminator:
            shape = _shape(shape.variants()[str(part)])
        elif shape.members:
            union = len(path)
            shape = next((_shape(each) for each in shape.members if get_origin(each) is tuple), shape)
        elif part == "[key]":
            return Place(tuple(path), known, "", True, union)
        else:
            path.append(part)
            known, meaning = tuple(shape.fields), ""
            field = shape.fields.get(str(part))
            arguments = get_args(shape.type)
            if field is not None:
                meaning = field.description or ""
                shape = _shape(field.annotation, field.discriminator)
            elif get_origin(shape.type) is dict:
                known = tuple(get_args(arguments[0]))
                shape = _shape(arguments[1])
            else:
                shape = _shape(arguments[0] if arguments else None)
    if shape.discriminator:
        known = tuple(shape.variants())
    return Place(tuple(path), known, meaning, False, union)


def _shape(annotation: Any, discriminator: object = None) -> _Shape:
    while True:
        if get_origin(annotation) is Annotated:
            for extra in annotation.__metadata__:
                discriminator = getattr(extra, "discriminator", None) or discriminator
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation):
            annotation = Union[tuple(each for each in get_args(annotation) if each is not type(None))]  # noqa: UP007
        else:
            return _Shape(annotation, discriminator if isinstance(discriminator, str) else None)
