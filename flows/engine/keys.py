"""What decides whether a step runs again: the parts of its key, their digest, and which part changed since.

A key is the sha256 of canonical JSON over the step's kind, its input digests, its parameters, its code and the
versions of its libraries. Time, paths, host names and environment variables have no part in it. It knows nothing of
the store; `flows/engine/plan.py` computes every key through `step_key`, so that plan and run cannot disagree.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import Enum
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from flows.engine.source import code_digests
from flows.engine.step import Step
from schemas.artifacts import Artifact
from schemas.secrets import masked_value
from tasks.files import sha256_json

InputDigest = str | tuple[str, ...]
SHOWN_CHARS = 60


class KeyParts(BaseModel):
    """Everything that a step's result depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    """The step's kind, `Step.folder`."""
    function: str
    inputs: dict[str, InputDigest]
    params: dict[str, JsonValue]
    code: dict[str, str]
    """Module -> digest of its normalised source."""
    libraries: dict[str, str]
    """Distribution -> installed version, or `absent`; and Python's own as major.minor."""

    @cached_property
    def key(self) -> str:
        """sha256 over all parts, as hex: the folder's name in the store."""
        return sha256_json(self.model_dump(mode="json"))


def step_key(step: Step, inputs: Mapping[str, InputDigest]) -> KeyParts:
    """The parts of the step's key, given the digest (or digests, in order) of each input.

    Raises:
        TypeError: a parameter has no canonical form (a path, an artefact, a non-finite number), or the step's
            function is no plain function of a module.
    """
    code = code_digests(step.run)
    return KeyParts(
        step=step.folder,
        function=f"{step.run.__module__}.{step.run.__qualname__}",
        inputs=dict(inputs),
        params={
            name: canonical(value, where=f"{step.name}.{name}") for name, value in {**step.also, **step.params}.items()
        },
        code=code,
        libraries={"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        | {name: installed(name) for name in step.libraries},
    )


def digest_of(value: Any) -> str:
    """sha256 of the value's canonical JSON, as hex. Takes what a parameter may be.

    >>> digest_of({"a": 1, "b": (2, 3)}) == digest_of({"b": [2, 3], "a": 1})
    True
    """
    return sha256_json(canonical(value, where="value"))


def canonical(value: Any, *, where: str) -> JsonValue:
    """The value as plain JSON: specs by `model_dump`, tuples as lists, sets sorted.

    Raises:
        TypeError: it has no form that means the same on another machine.
    """
    match value:
        case Artifact() | Path():
            # A root or a path would tie the key to this machine: artefacts are inputs, paths are context.
            raise TypeError(f"{where}: {type(value).__name__} cannot be a parameter; pass it as an input or as context")
        case BaseModel():
            return canonical(value.model_dump(mode="json"), where=where)
        case Enum():
            return canonical(value.value, where=where)
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{where}: {value} cannot be a parameter; only finite numbers can")
            return value
        case Mapping():
            return {str(name): canonical(item, where=f"{where}.{name}") for name, item in value.items()}
        case set() | frozenset():
            return sorted((canonical(item, where=where) for item in value), key=repr)
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [canonical(item, where=f"{where}[{index}]") for index, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return canonical(asdict(value), where=where)
    raise TypeError(f"{where}: {type(value).__name__} cannot be a parameter; specs, scalars and lists of them can")


def why_changed(old: KeyParts, new: KeyParts, *, unknown: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """What differs, one phrase each, most telling first; empty when nothing does.

    Args:
        old: The parts of an earlier result.
        new: The parts as they are now.
        unknown: Inputs and parameters that are not known yet; they are not compared.

    Phrases: `params.step.threshold: 0.8 -> 0.7`, `input tickets changed`, `code of tasks.curate.dedup changed`,
    `torch 2.14.0 -> 2.15.0`.
    """
    return (
        *((f"function {old.function} -> {new.function}",) if old.function != new.function else ()),
        *_changed_params(_known(old.params, unknown), _known(new.params, unknown)),
        *(
            f"input {name} changed"
            for name in sorted(old.inputs.keys() | new.inputs.keys())
            if name not in unknown and old.inputs.get(name) != new.inputs.get(name)
        ),
        *(
            f"code of {name} {'changed' if name in old.code and name in new.code else _came_or_went(name, new.code)}"
            for name in sorted(old.code.keys() | new.code.keys())
            if old.code.get(name) != new.code.get(name)
        ),
        *(
            f"{name} {old.libraries.get(name, 'not used')} -> {new.libraries.get(name, 'not used')}"
            for name in sorted(old.libraries.keys() | new.libraries.keys())
            if old.libraries.get(name) != new.libraries.get(name)
        ),
    )


def _known(params: dict[str, JsonValue], unknown: frozenset[str]) -> dict[str, JsonValue]:
    return {name: value for name, value in params.items() if name not in unknown}


def _came_or_went(name: str, code: Mapping[str, str]) -> str:
    return "is used now" if name in code else "is no longer used"


def _changed_params(old: JsonValue, new: JsonValue) -> Iterator[str]:
    # Both without secrets: what was kept of the old one holds references alone.
    before, after = dict(_leaves(masked_value(old), "params")), dict(_leaves(masked_value(new), "params"))
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path, "absent"), after.get(path, "absent")
        if was != now:
            yield f"{path}: {was} -> {now}" if len(was) + len(now) <= SHOWN_CHARS else f"{path} changed"


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, str]]:
    """Every scalar and every empty container with its path."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, repr(value)


def installed(distribution: str) -> str:
    """The installed version of a distribution, or `absent`."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
