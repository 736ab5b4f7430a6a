"""Lists of `pipelines.yaml` whose items choose their kind by `uses`, open to kinds that are declared elsewhere.

A kind is a `Spec` with `uses: Literal["its name"]`. Checking, error messages and the JSON Schema know every kind that
was added, wherever its file is. Used by the sections that have such lists; knows none of their kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Generic, TypeVar, Union, get_args

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from schemas.spec import Spec

S = TypeVar("S", bound=Spec)


class Kinds(Generic[S]):
    """The kinds of one list. `Annotated[Base, kinds]` is the type of an item.

    >>> from schemas.curation_steps import CURATION_STEPS
    >>> CURATION_STEPS["cap"].__name__
    'CapStep'
    """

    def __init__(self, *kinds: type[S]) -> None:
        self._kinds = {uses_of(kind): kind for kind in kinds}
        self._holders: list[type[BaseModel]] = []

    def add(self, kind: type[S]) -> None:
        """Allow another kind; one that is known already changes nothing.

        Raises:
            ValueError: Another class has its name.
        """
        uses = uses_of(kind)
        known = self._kinds.get(uses)
        if known is None:
            self._kinds[uses] = kind
            self._rebuild()
        elif known is not kind:
            raise ValueError(f"two kinds have `uses: {uses}`: {known.__qualname__} and {kind.__qualname__}")

    def remove(self, uses: str) -> None:
        """Take a kind out again."""
        del self._kinds[uses]
        self._rebuild()

    def held_by(self, *models: type[BaseModel]) -> None:
        """Name the models that contain such a list, inner ones first: pydantic compiles the kinds into each of them."""
        self._holders += models

    def __getitem__(self, uses: str) -> type[S]:
        return self._kinds[uses]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    @property
    def union(self) -> Any:
        """The type of an item as a union that `uses` discriminates."""
        kinds = tuple(self._kinds.values())
        return Annotated[Union[kinds], Field(discriminator="uses")]  # noqa: UP007  of a tuple that grows

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.union)

    def _rebuild(self) -> None:
        for model in self._holders:
            model.model_rebuild(force=True)


def uses_of(kind: type[Spec]) -> str:
    """The name of a kind: what `uses` says.

    Raises:
        TypeError: It does not declare `uses: Literal["..."]`.
    """
    field = kind.model_fields.get("uses")
    names = () if field is None else get_args(field.annotation)
    if len(names) != 1:
        raise TypeError(f'{kind.__qualname__} does not say which `uses` it is: write `uses: Literal["its_name"]`')
    return str(names[0])
