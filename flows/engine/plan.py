"""What would run and why, and the running of one step: both through the same key, so that they cannot disagree.

`plan_steps` walks a list of steps and writes nothing; `run_step` does one. It knows nothing of Prefect, of the
ledger, or of what the steps mean; `flows/session.py` and `flows/cli.py` call it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flows.engine.keys import InputDigest, KeyParts, step_key, why_changed
from flows.engine.step import Input, Late, Step
from flows.engine.store import Damage, Obtained, Store
from schemas.artifacts import Artifact
from schemas.errors import StorageError
from tasks.files import verify
from tasks.progress import Progress, silent

State = Literal["reused", "run", "maybe", "left out"]

Known = Mapping[str, Artifact | None]
"""Results of earlier steps by name; None for one that was left out."""


@dataclass(frozen=True)
class PlannedStep:
    """What will become of one step."""

    step: Step
    state: State
    """`reused`: it is in the store. `run`: it will run. `maybe`: known only when an earlier step has run. `left out`:
    nobody wants it."""
    reasons: tuple[str, ...] = ()
    """Why it runs, may run or does not; empty when reused."""
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
    done: dict[str, Artifact | None] = {}
    for step in steps:
        missing = _needs(step) - done.keys()
        unplanned = missing - {earlier.step.name for earlier in planned}
        if unplanned:
            raise ValueError(f"step {step.name} needs {', '.join(sorted(unplanned))}, which is not before it")
        unwanted = left_out(step, done)
        if unwanted is not None:
            this = PlannedStep(step, "left out", (unwanted,))
        else:
            this = _plan_waiting(step, done, missing, store) if missing else _plan_known(step, done, store)
        planned.append(this)
        if this.artifact is not None or unwanted is not None:
            done[step.name] = this.artifact
    return tuple(planned)


def left_out(step: Step, done: Known) -> str | None:
    """Why the step is left out, as far as is known; null when it is wanted or that is not known yet."""
    wanted = step.only_if
    known = wanted is not None and done.keys() >= set(wanted.needs)
    if wanted is not None and known and not wanted.holds(*(done[name] for name in wanted.needs)):
        return f"only if {wanted.told}"
    for needed in step.inputs.values():
        if isinstance(needed, str) and needed in done and done[needed] is None:
            return f"{needed} was left out"
    return None


def run_step(step: Step, done: Known, store: Store, *, progress: Progress = silent) -> Obtained[Artifact]:
    """Take the step's result from the store, or run it and commit what it makes.

    Args:
        done: Results of the steps before it, by name. The caller has asked `left_out` before.

    Raises:
        ValueError: a step that it needs is not among them.
        TunegateError: what `step.check` raises.
    """
    if step.pick is not None:
        picked = _picked(step, step.pick, done)
        return Obtained(picked, picked.root.name, reused=True, seconds=0.0)
    step = _resolved(step, done)
    parts = parts_of(step, done)
    unchanged = _unchanged(step, parts, store, deep=True)
    if unchanged is not None:
        if step.check is not None:
            step.check(done, unchanged)
        return Obtained(unchanged, unchanged.root.name, reused=True, seconds=0.0)

    def produce(out: Path) -> Artifact:
        _check_given(step)
        scratch = store.scratch(step.folder, parts.key) if step.resumable else None
        return _call(step, done, scratch=scratch, progress=progress, out=out)

    obtained = store.obtain(step.folder, parts.key, step.returns, produce, parts=parts)
    if step.check is not None:
        step.check(done, obtained.artifact)
    return obtained


@contextmanager
def repeat_step(step: Step, done: Known, store: Store, *, progress: Progress = silent) -> Iterator[Artifact]:
    """Run the step once more, from nothing, and give its result for as long as the block lasts; keep none of it."""
    step = _resolved(step, done)
    with tempfile.TemporaryDirectory(prefix="tunegate-repeat-") as scratch:

        def produce(out: Path) -> Artifact:
            return _call(step, done, scratch=Path(scratch) if step.resumable else None, progress=progress, out=out)

        with store.make_aside(step.returns, produce) as artifact:
            yield artifact


def _check_given(step: Step) -> None:
    """Read what an earlier run left (the champion, say) to its last byte; results of this run were checked already.

    Raises:
        StorageError: TG0510 it is damaged, TG0549 it is another than it was.
    """
    for name, given in step.inputs.items():
        if isinstance(given, Artifact) and verify(given.root) != given.digest:
            raise StorageError(
                f"{name} of step {step.name} is not what it was", code="TG0549", where=str(given.root),
                hint="put it back from a backup, or go back to an earlier champion: `tunegate rollback PIPELINE`",
            )  # fmt: skip


def _call(step: Step, done: Known, *, scratch: Path | None, progress: Progress, out: Path) -> Artifact:
    extra: dict[str, Any] = {"scratch": scratch} if scratch is not None else {}
    if step.reports:
        extra["progress"] = progress
    extra |= {name: compute(done) for name, compute in step.from_results.items()}
    return step.run(**_arguments(step, done), **step.params, **step.context, **extra, out=out)


def parts_of(step: Step, done: Known) -> KeyParts:
    """The parts of the step's key: the only way by which plan and run compute one.

    Raises:
        ValueError: an input is not known, or is an artefact that no store has committed.
    """
    step = _resolved(step, done)
    digests: dict[str, InputDigest] = {}
    for name, value in _arguments(step, done).items():
        each = tuple(artifact.digest for artifact in (value if isinstance(value, tuple) else (value,)))
        if not all(each):
            raise ValueError(f"step {step.name}: input {name} has no digest; only stored results can be inputs")
        digests[name] = each if isinstance(value, tuple) else each[0]
    return step_key(step, digests)


def _plan_known(step: Step, done: Known, store: Store) -> PlannedStep:
    if step.pick is not None:
        picked = _picked(step, step.pick, done)
        return PlannedStep(step, "reused", key=picked.root.name, artifact=picked)
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


def _unchanged(step: Step, parts: KeyParts, store: Store, *, deep: bool = False) -> Artifact | None:
    """The earlier result that the step would go on from, when all else that it was made from is the same."""
    earlier = step.inputs.get(step.goes_on_from)
    if not isinstance(earlier, Artifact):
        return None
    old = store.parts(step.folder, earlier.root.name)
    if old is None or why_changed(old, parts, unknown=frozenset({step.goes_on_from})):
        return None
    found = store.look(step.folder, earlier.root.name, step.returns, deep=deep)
    return found if isinstance(found, Artifact) else None


def _plan_waiting(step: Step, done: Known, missing: set[str], store: Store) -> PlannedStep:
    """Inputs are unknown; but when no earlier result agrees in all that is known, it certainly runs."""
    if step.only_if is not None and missing & set(step.only_if.needs):
        return PlannedStep(step, "maybe", (f"only if {step.only_if.told}",))
    if step.pick is not None:
        return PlannedStep(step, "maybe", (f"known when {step.pick.needs[0]} has run",))
    names = {name for name, value in step.inputs.items() if missing & set(_names(value))} | step.late.keys()
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


def _picked(step: Step, pick: Late, done: Known) -> Artifact:
    """The earlier result that stands for the step's own.

    Raises:
        TypeError: it is of another kind, or of no store.
    """
    picked = pick.compute(*(done[need] for need in pick.needs))
    if not isinstance(picked, step.returns) or not picked.digest:
        raise TypeError(f"step {step.name} picks {picked!r:.200}, which is no stored {step.returns.__name__}")
    return picked


def _resolved(step: Step, done: Known) -> Step:
    """The step with its late parameters computed; the same step when it has none."""
    if not step.late:
        return step
    computed = {name: late.compute(*(done[need] for need in late.needs)) for name, late in step.late.items()}
    return replace(step, params={**step.params, **computed}, late={})


def _arguments(step: Step, done: Known) -> dict[str, Artifact | tuple[Artifact, ...]]:
    def at_hand(value: Input) -> Artifact:
        if isinstance(value, Artifact):
            return value
        found = done.get(value)
        if found is None:
            raise ValueError(f"step {step.name} needs {value}, which has not run")
        return found

    def is_there(value: Input) -> bool:
        return isinstance(value, Artifact) or value not in done or done[value] is not None

    return {
        name: tuple(map(at_hand, filter(is_there, value))) if isinstance(value, tuple) else at_hand(value)
        for name, value in step.inputs.items()
    }


def _needs(step: Step) -> set[str]:
    late = {need for late in step.late.values() for need in late.needs}
    late |= set(step.only_if.needs if step.only_if else ()) | set(step.pick.needs if step.pick else ())
    return late | {name for value in step.inputs.values() for name in _names(value)}


def _names(value: Input | tuple[Input, ...]) -> tuple[str, ...]:
    members = value if isinstance(value, tuple) else (value,)
    return tuple(member for member in members if isinstance(member, str))
