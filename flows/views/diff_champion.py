"""How a run differs from the champion's: settings, data, code, and where its training started."""

from collections import defaultdict
from collections.abc import Iterable

from flows.graph.keys import KeyParts
from flows.graph.store import Store
from flows.ledger.rows import StepRow
from flows.views.run_reader import Recorded, settings_of
from schemas.artifacts import DatasetRef, GateDecision, TrainedRef
from schemas.report import Change, StartLine

METRIC = "general"
"""Metric of the forgetting check's suite."""


def changes_since(recorded: Recorded, decision: GateDecision | None) -> tuple[Change, ...]:
    """Return settings, data, code and libraries that differ from the run of the compared champion."""
    version = decision.champion_version if decision else None
    candidate = recorded.ledger.candidate(recorded.row.model_name, version) if version else None
    if candidate is None or candidate.ref.run_id == recorded.row.run_id:
        return ()
    before = recorded.ledger.run(candidate.ref.run_id)
    steps_before = recorded.ledger.steps(before.run_id)
    ours, theirs = settings_of(recorded.row), settings_of(before)
    # Some steps need a champion: their code is in no first run, and has not changed since.
    made, made_before = (_made_from(recorded.store, steps) for steps in (recorded.steps, steps_before))
    ours |= {what: made[what] for what in made.keys() & made_before.keys()}
    theirs |= {what: made_before[what] for what in made.keys() & made_before.keys()}
    for steps, facts in ((recorded.steps, ours), (steps_before, theirs)):
        facts |= {f"digest of {step.step}": step.digest[:16] for step in steps if step.step in ("extract", "encode")}
    ours["code"], theirs["code"] = recorded.row.code[:16], before.code[:16]
    return tuple(
        Change(what=what, champion=theirs.get(what), candidate=ours.get(what))
        for what in sorted(ours.keys() | theirs.keys())
        if ours.get(what) != theirs.get(what)
    )


def _made_from(store: Store, steps: Iterable[StepRow]) -> dict[str, str]:
    """Return what made the steps' results: digests of modules, versions of libraries.

    A run may have results of several versions: a step that is not affected by a change is reused.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for step in steps:
        parts = _parts_of(store, step)
        if parts is not None:
            for module, digest in parts.code.items():
                found[f"code of {module}"].add(digest[:16])
            for library, version in parts.libraries.items():
                found[f"version of {library}"].add(version)
    return {what: ", ".join(sorted(values)) for what, values in found.items()}


def _parts_of(store: Store, step: StepRow) -> KeyParts | None:
    # One of several steps of a kind has the folder of its kind: `answers` for `answers_tuned`.
    words = step.step.split("_")
    names = ("_".join(words[:length]) for length in range(len(words), 0, -1))
    return next((parts for name in names if step.key and (parts := store.parts(name, step.key))), None)


def compare_starts(recorded: Recorded) -> tuple[StartLine, ...]:
    """Return this run's training, and the newest earlier one of the same model that began the other way.

    Empty if there is only one way so far.
    """
    mine = _line(recorded)
    if mine is None:
        return ()
    for row in recorded.ledger.candidates(recorded.row.model_name):
        if row.ref.run_id == recorded.row.run_id or (row.ref.trained.started_from is None) == (mine.start == "base"):
            continue
        other = _line(Recorded(recorded.settings, row.ref.run_id), version=row.ref.version)
        if other is not None:
            return mine, other
    return ()


def start_of(recorded: Recorded, trained: TrainedRef) -> str:
    """Return `base`, or `champion (version N)`."""
    if trained.started_from is None:
        return "base"
    rows = recorded.ledger.candidates(recorded.row.model_name)
    version = next((row.ref.version for row in rows if row.ref.trained.digest == trained.started_from), "unknown")
    return f"champion (version {version})"


def _line(recorded: Recorded, *, version: str | None = None) -> StartLine | None:
    trained, dataset = recorded.result("train", TrainedRef), recorded.of_training("encode", DatasetRef)
    if trained is None or dataset is None:
        return None
    decision = recorded.decision()
    findings = decision.findings if decision else ()
    suite = next((each for each in findings if each.part == "forgetting" and each.metric == METRIC), None)
    return StartLine(
        run_id=recorded.row.run_id,
        version=version,
        start=start_of(recorded, trained),
        n_examples=dataset.n_train,
        n_steps=trained.n_steps,
        n_tokens=trained.n_tokens,
        seconds=recorded.ledger.made_in(recorded.keys["train"]),
        general=suite.candidate if suite else None,
        general_of_base=suite.reference if suite else None,
    )
