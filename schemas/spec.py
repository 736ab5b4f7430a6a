"""The bases of specs and of what steps and commands hand over: frozen, without unknown keys, comparable by value."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Read-only data; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spec(Frozen):
    """A part of `pipelines.yaml`: NaN is refused too, and docstrings of keys describe them in the JSON Schema."""

    model_config = ConfigDict(allow_inf_nan=False, populate_by_name=True, use_attribute_docstrings=True)


class Conflict(NamedTuple):
    """A contradiction between settings that are valid on their own."""

    message: str
    at: tuple[str | int, ...]
    """Keys, as in pipelines.yaml, from the checked section to the wrong value."""
    hint: str | None = None


class UnfitError(ValueError):
    """Settings do not fit together. Raised by validators with all contradictions at once.

    >>> str(UnfitError([Conflict("`a` excludes `b`", at=("b",)), Conflict("`c` needs `d`", at=("c",))]))
    '`a` excludes `b`; `c` needs `d`'
    """

    def __init__(self, faults: list[Conflict]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = tuple(faults)
