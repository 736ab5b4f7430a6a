"""What differs between a run and the one that the compared champion comes from. Called by `flows/views/report.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from flows.graph.keys import KeyParts
from flows.graph.store import Store
from flows.ledger.rows import StepRow
from flows.views.run_reader import Recorded, settings_of
from schemas.artifacts import GateDecision
from schemas.report import Change


def changes_since(recorded: Recorded, decision: GateDecision | None) -> tuple[Change, ...]:
    """Settings, data, code and libraries that differ from the run that the compared champion comes from."""
    version = decision.champion_version if decision else None
    candidate = recorded.ledger.candidate(recorded.row.model_name, version) if version else None
    if candidate is None or candidate.ref.run_id == recorded.row.run_id:
        return ()
    before = recorded.ledger.run(candidate.ref.run_id)
    steps_before = recorded.ledger.steps(before.run_id)
    ours, theirs = settings_of(recorded.row), settings_of(before)
    for steps, told in ((recorded.steps, ours), (steps_before, theirs)):
        told |= _made_from(recorded.store, steps)
        told |= {f"digest of {step.step}": step.digest[:16] for step in steps if step.step in ("extract", "encode")}
    ours["code"], theirs["code"] = recorded.row.code[:16], before.code[:16]
    return tuple(
        Change(what=what, champion=theirs.get(what), candidate=ours.get(what))
        for what in sorted(ours.keys() | theirs.keys())
        if ours.get(what) != theirs.get(what)
    )


def _made_from(store: Store, steps: Iterable[StepRow]) -> dict[str, str]:
    """What the steps' results were made by: digests of modules, versions of libraries.

    Results of several versions may be in one run: a step that is not affected by a change is reused.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for step in steps:
        parts = _parts_of(store, step)
        if parts is not None:
            for module, digest in parts.code.items():
                found[f"code of {module}"].add(digest[:16])
            for library, told in parts.libraries.items():
                found[f"version of {library}"].add(told)
    return {what: ", ".join(sorted(values)) for what, values in found.items()}


def _parts_of(store: Store, step: StepRow) -> KeyParts | None:
    """A step that there is several of has the folder of its kind: `answers` of `answers_tuned`."""
    words = step.step.split("_")
    names = ("_".join(words[:length]) for length in range(len(words), 0, -1))
    return next((parts for name in names if step.key and (parts := store.parts(name, step.key))), None)
