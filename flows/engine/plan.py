"""What would run and why, and the running of one step: both through the same key, so that they cannot disagree.

`plan_steps` walks a list of steps and writes nothing; `run_step` does one. It knows nothing of Prefect, of the
ledger, or of what the steps mean; `flows/session.py` and `flows/cli.py` call it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.engine.keys import InputDigest, KeyParts, step_key, why_changed
from flows.engine.step import Input, Step
from flows.engine.store import Damage, Obtained, Store
from schemas.artifacts import Artifact
from tasks.progress import Progress, silent

State = Literal["reused", "run", "maybe"]


@dataclass(frozen=True)
class PlannedStep:
    """What will become of one step."""

    step: Step
    state: State
    """`reused`: it is in the store. `run`: it will run. `maybe`: known only when an earlier step has run."""
    reasons: tuple[str, ...] = ()
    """Why it runs or may run; empty when reused."""
    key: str | None = None
    """None while an input is not known."""
    artifact: Artifact | None = None
    """The stored result, when reused."""


def plan_steps(steps: Sequence[Step], store: Store) -> tuple[PlannedStep, ...]:
    """What `run_step` would do with each step, in order; reads the store and writes nothing.

    Raises:
        ValueError: a step needs one that is not before it.
    """
    planned: list[PlannedStep] = []
    done: dict[str, Artifact] = {}
    for step in steps:
        missing = _needs(step) - done.keys()
        unplanned = missing - {earlier.step.name for earlier in planned}
        if unplanned:
            raise ValueError(f"step {step.name} needs {', '.join(sorted(unplanned))}, which is not before it")
        this = _plan_waiting(step, done, missing, store) if missing else _plan_known(step, done, store)
        planned.append(this)
        if this.artifact is not None:
            done[step.name] = this.artifact
    return tuple(planned)


def run_step(
    step: Step, done: Mapping[str, Artifact], store: Store, *, progress: Progress = silent
) -> Obtained[Artifact]:
    """Take the step's result from the store, or run it and commit what it makes.

    Args:
        done: Results of the steps before it, by name.

    Raises:
        ValueError: a step that it needs is not among them.
    """
    parts = parts_of(step, done)
    unchanged = _unchanged(step, parts, store)
    if unchanged is not None:
        return Obtained(unchanged, unchanged.root.name, reused=True, seconds=0.0)

    def produce(out: Path) -> Artifact:
        scratch = store.scratch(step.folder, parts.key) if step.resumable else None
        return _call(step, done, scratch=scratch, progress=progress, out=out)

    return store.obtain(step.folder, parts.key, step.returns, produce, parts=parts)


@contextmanager
def repeat_step(
    step: Step, done: Mapping[str, Artifact], store: Store, *, progress: Progress = silent
) -> Iterator[Artifact]:
    """Run the step once more, from nothing, and give its result for as long as the block lasts; keep none of it."""
    with tempfile.TemporaryDirectory(prefix="tunegate-repeat-") as scratch:

        def produce(out: Path) -> Artifact:
            return _call(step, done, scratch=Path(scratch) if step.resumable else None, progress=progress, out=out)

        with store.make_aside(step.returns, produce) as artifact:
            yield artifact


def _call(step: Step, done: Mapping[str, Artifact], *, scratch: Path | None, progress: Progress, out: Path) -> Artifact:
    extra: dict[str, Any] = {"scratch": scratch} if scratch is not None else {}
    if step.reports:
        extra["progress"] = progress
    return step.run(**_arguments(step, done), **step.params, **step.context, **extra, out=out)


def parts_of(step: Step, done: Mapping[str, Artifact]) -> KeyParts:
    """The parts of the step's key: the only way by which plan and run compute one.

    Raises:
        ValueError: an input is not known, or is an artefact that no store has committed.
    """
    digests: dict[str, InputDigest] = {}
    for name, value in _arguments(step, done).items():
        each = tuple(artifact.digest for artifact in (value if isinstance(value, tuple) else (value,)))
        if not all(each):
            raise ValueError(f"step {step.name}: input {name} has no digest; only stored results can be inputs")
        digests[name] = each if isinstance(value, tuple) else each[0]
    return step_key(step, digests)


def _plan_known(step: Step, done: Mapping[str, Artifact], store: Store) -> PlannedStep:
    parts = parts_of(step, done)
    unchanged = _unchanged(step, parts, store)
    if unchanged is not None:
        return PlannedStep(step, "reused", key=unchanged.root.name, artifact=unchanged)
    found = store.look(step.folder, parts.key, step.returns)
    if isinstance(found, Artifact):
        return PlannedStep(step, "reused", key=parts.key, artifact=found)
    if isinstance(found, Damage):
        reasons: tuple[str, ...] = (f"the stored result is damaged: {found.reason}",)
    else:
        reasons = _closest(store.known_parts(step.folder), parts, frozenset())
    return PlannedStep(step, "run", reasons, key=parts.key)


def _unchanged(step: Step, parts: KeyParts, store: Store) -> Artifact | None:
    """The earlier result that the step would go on from, when all else that it was made from is the same."""
    earlier = step.inputs.get(step.goes_on_from)
    if not isinstance(earlier, Artifact):
        return None
    old = store.parts(step.folder, earlier.root.name)
    if old is None or why_changed(old, parts, unknown=frozenset({step.goes_on_from})):
        return None
    found = store.look(step.folder, earlier.root.name, step.returns)
    return found if isinstance(found, Artifact) else None


def _plan_waiting(step: Step, done: Mapping[str, Artifact], missing: set[str], store: Store) -> PlannedStep:
    """Inputs are unknown; but when no earlier result agrees in all that is known, it certainly runs."""
    names = {name for name, value in step.inputs.items() if missing & set(_names(value))}
    known = Step(
        step.name, step.run, step.returns, params=step.params, also=step.also, libraries=step.libraries, kind=step.kind,
        inputs={name: value for name, value in step.inputs.items() if name not in names},
    )  # fmt: skip
    reasons = _closest(store.known_parts(step.folder), parts_of(known, done), frozenset(names))
    if not reasons:
        waits = tuple(f"known when {name} has run" for name in sorted(missing))
        return PlannedStep(step, "maybe", waits)
    return PlannedStep(step, "run", reasons)


def _closest(earlier: Sequence[KeyParts], parts: KeyParts, unknown: frozenset[str]) -> tuple[str, ...]:
    """Why the step is none of the earlier ones, told against the one that differs least (newest of several).

    Empty only when the unknown inputs alone may differ.
    """
    if not earlier:
        return ("never ran",)
    reasons = min((why_changed(old, parts, unknown=unknown) for old in earlier), key=len)
    if reasons or unknown:
        return reasons
    return ("its result was removed, or its last run was interrupted",)


def _arguments(step: Step, done: Mapping[str, Artifact]) -> dict[str, Artifact | tuple[Artifact, ...]]:
    def at_hand(value: Input) -> Artifact:
        if isinstance(value, Artifact):
            return value
        if value not in done:
            raise ValueError(f"step {step.name} needs {value}, which has not run")
        return done[value]

    return {
        name: tuple(map(at_hand, value)) if isinstance(value, tuple) else at_hand(value)
        for name, value in step.inputs.items()
    }


def _needs(step: Step) -> set[str]:
    return {name for value in step.inputs.values() for name in _names(value)}


def _names(value: Input | tuple[Input, ...]) -> tuple[str, ...]:
    members = value if isinstance(value, tuple) else (value,)
    return tuple(member for member in members if isinstance(member, str))
