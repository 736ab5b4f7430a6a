"""What it cost to continue from the champion, next to training from the base. Called by `flows/views/report.py`."""

from __future__ import annotations

from flows.views.run_reader import Recorded
from schemas.artifacts import DatasetRef, TrainedRef
from schemas.report import StartLine

METRIC = "general"
"""Metric of the forgetting check's suite."""


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
