"""Choose the training to judge: the first rung that met its target, or the best on validation.

It never sees the test split.
"""

from collections.abc import Sequence
from pathlib import Path

from schemas.choice import Setting
from schemas.errors import TrainingError
from schemas.metrics import MetricTraits
from schemas.trials import ChoiceKind, ChoiceRef, TrialRef, TrialRow
from tasks.assess.climb import paired_gain
from tasks.assess.trial import item_values, write_trials
from tasks.step import as_step
from tasks.storage.files import write_json

RUNNER_UP_CONFIDENCE = 0.9


@as_step("choice", libraries=("numpy", "scipy", "pyarrow"))
def choose_training(
    out: Path,
    *,
    trials: Sequence[TrialRef],
    names: Sequence[str],
    declared: Sequence[dict[str, Setting]] = (),
    kind: ChoiceKind,
    traits: MetricTraits,
) -> ChoiceRef:
    """Write the table of all trainings and `choice.json`; return the choice.

    A training without a finite value is never chosen. Of equal values, the cheaper training wins: in a ladder the
    lower rung, in a sweep the one with fewer trained weights, then the earlier.

    Args:
        trials: Trainings that have figures, in order.
        names: Of all declared trainings, in order.
        declared: What each of them changes, if known from the start.

    Raises:
        TrainingError: TG0401, none has a finite value.
        GateError: TG0603, two were scored on different items.
    """
    sound = [trial for trial in trials if trial.row.value is not None]
    if not sound:
        raise TrainingError(
            f"none of {len(names)} trainings has a finite {traits.name} on the validation items",
            code="TG0401",
            where="train.ladder" if kind == "ladder" else "train.sweep",
            hint="lower the learning rates; `tunegate show RUN` shows each training",
        )
    best = sorted(sound, key=lambda trial: _rank(trial.row, kind, traits))
    winner = next((trial for trial in sound if trial.row.met), best[0])
    rows = tuple(_rows(trials, names, declared, winner))
    choice = ChoiceRef(
        root=out,
        kind=kind,
        metric=traits.name,
        winner=winner.row.name,
        why=_why(winner, best, rows, traits),
        met=winner.row.met,
        rows=rows,
    )
    write_trials(rows, out / choice.table)
    write_json(out / "choice.json", choice.model_dump(mode="json", exclude={"root", "digest"}))
    return choice


def _rank(row: TrialRow, kind: ChoiceKind, traits: MetricTraits) -> tuple[float, int, int]:
    value = row.value if row.value is not None else 0.0
    cost = 0 if kind == "ladder" else row.n_trainable or 0
    return (-value if traits.higher_is_better else value, cost, row.number)


def _rows(
    trials: Sequence[TrialRef], names: Sequence[str], declared: Sequence[dict[str, Setting]], winner: TrialRef
) -> list[TrialRow]:
    """One row per declared training, with its state."""
    known = {trial.row.name: trial.row for trial in trials}
    rows: list[TrialRow] = []
    for number, name in enumerate(names, start=1):
        row = known.get(name)
        if row is None:
            # A rung is reached only while no earlier one has met its target.
            state = "not_started" if any(earlier.met for earlier in rows) else "failed"
            changes = declared[number - 1] if declared else {}
            rows.append(TrialRow.model_validate({"name": name, "number": number, "state": state, "changes": changes}))
        else:
            state = "failed" if row.value is None else "chosen" if name == winner.row.name else "done"
            rows.append(row.model_copy(update={"state": state}))
    return rows


def _why(winner: TrialRef, best: Sequence[TrialRef], rows: Sequence[TrialRow], traits: MetricTraits) -> str:
    row = winner.row
    measured = f"{traits.name} {row.value:.4g} on {row.n_items} validation items"
    if row.met:
        return f"{row.name} is the first rung that meets the target ({row.summary})"
    n_failed = sum(each.state == "failed" for each in rows)
    failed = f"; {n_failed} failed" if n_failed else ""
    if row.met is False:
        return f"no rung meets the target; {row.name} is the best of {len(best)} with {measured}{failed}"
    return f"{row.name} is the best of {len(best)} trials with {measured}{_ahead(best, traits)}{failed}"


def _ahead(best: Sequence[TrialRef], traits: MetricTraits) -> str:
    """How far the winner is ahead of the runner-up, so that a draw does not read as a win."""
    if len(best) < 2:
        return ""
    first, second = best[0], best[1]
    gain = paired_gain(item_values(first), item_values(second), traits=traits, confidence=RUNNER_UP_CONFIDENCE)
    value, next_value = first.row.value or 0.0, second.row.value or 0.0
    ahead = f", {abs(value - next_value):.3g} ahead of {second.row.name}"
    if gain is None:
        return f"{ahead} (too few items for bounds)"
    return f"{ahead} (bounds {gain.lower:+.3g} .. {gain.upper:+.3g})"
