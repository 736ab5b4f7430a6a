"""Parts of `pipelines.yaml` that other modules extend: kinds selected by a key, and optional sections.

A kind is a `Spec` with a key such as `uses: Literal["its name"]`. Checks, error messages and the JSON Schema include
every kind and section that was added, in whatever file.
"""

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Annotated, Any, Generic, TypeVar, get_args

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from schemas.spec import Spec

S = TypeVar("S", bound=Spec)


class Kinds(Generic[S]):
    """The kinds that a key selects from. `Annotated[Base, kinds]` is the type of the selected kind.

    >>> from schemas.curation_steps import CURATION_STEPS
    >>> CURATION_STEPS["cap"].__name__
    'CapStep'
    """

    def __init__(self, *kinds: type[S], key: str = "uses") -> None:
        self.key = key
        self._kinds = {self.name_of(kind): kind for kind in kinds}
        self._holders: list[type[BaseModel]] = []

    def add(self, kind: type[S]) -> None:
        """Add a kind; adding it again has no effect.

        Raises:
            ValueError: another class has its name.
        """
        name = self.name_of(kind)
        known = self._kinds.get(name)
        if known is None:
            self._kinds[name] = kind
            self._rebuild()
        elif known is not kind:
            raise ValueError(f"two kinds have `{self.key}: {name}`: {known.__qualname__} and {kind.__qualname__}")

    def remove(self, name: str) -> None:
        """Remove a kind."""
        del self._kinds[name]
        self._rebuild()

    def held_by(self, *models: type[BaseModel]) -> None:
        """Set the models that contain such a choice, inner ones first: pydantic compiles the kinds into each."""
        self._holders += models

    def name_of(self, kind: type[Spec]) -> str:
        """The name of a kind: the value of its key.

        Raises:
            TypeError: its key is not declared as a `Literal` of one text.
        """
        field = kind.model_fields.get(self.key)
        names = () if field is None else get_args(field.annotation)
        if len(names) != 1:
            raise TypeError(f'{kind.__qualname__} has no name: write `{self.key}: Literal["its_name"]`')
        return str(names[0])

    def __getitem__(self, name: str) -> type[S]:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    @property
    def union(self) -> Any:
        """The kinds as a union that the key discriminates."""
        kinds: Any = reduce(or_, self._kinds.values())
        return Annotated[kinds, Field(discriminator=self.key)]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.union)

    def _rebuild(self) -> None:
        for model in self._holders:
            model.model_rebuild(force=True)


class OptionalSections:
    """Optional sections of a model that other modules declare: each is a key of the model, null by default."""

    def __init__(self, model: type[Spec]) -> None:
        self._model = model
        self._added: set[str] = set()
        self._holders: list[type[BaseModel]] = [model]

    def add(self, key: str, section: type[Spec]) -> None:
        """Add a key; adding it again has no effect.

        Raises:
            ValueError: the model has this key for something else.
        """
        known = self._model.model_fields.get(key)
        if known is None:
            description = " ".join((section.__doc__ or "").split())
            self._model.model_fields[key] = FieldInfo(annotation=section | None, default=None, description=description)  # type: ignore[arg-type]
            self._added.add(key)
            self._rebuild()
        elif known.annotation != section | None:
            raise ValueError(f"`{key}` is a key of {self._model.__name__} already")

    def remove(self, key: str) -> None:
        """Remove a key."""
        self._added.remove(key)
        del self._model.model_fields[key]
        self._rebuild()

    def held_by(self, *models: type[BaseModel]) -> None:
        """Set the models that contain the model: pydantic compiles its keys into each."""
        self._holders += models

    def _rebuild(self) -> None:
        for model in self._holders:
            model.model_rebuild(force=True)
