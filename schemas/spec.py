"""The base of every declared thing: frozen, closed to unknown keys, comparable by value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A part of `pipelines.yaml`: read-only after loading, unknown keys refused, NaN refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
