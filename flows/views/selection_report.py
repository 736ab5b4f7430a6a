"""The result of a ladder or a sweep, with its costs: for the console, `tunegate show`, and the record of a run.

Seconds come from the ledger, which records how long each step took when it was made; the store's own tables hold
nothing that depends on the machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.context.run_context import RunContext
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.disk import private_folder
from schemas.choice import Setting
from schemas.trials import ChoiceRef, TrialRow
from tasks.assess.trial import write_trials
from tasks.storage.files import write_json

Costs = dict[str, tuple[float | None, float | None]]
"""Name of a training -> seconds, price."""
MADE = ("encode", "train", "answers", "scores")
"""Steps that count into the seconds of a training."""


def report_choice(run: RunContext, *, choice: ChoiceRef) -> None:
    """Write the table with costs next to the run's record, and note which training won and why."""
    declared = run.trained_spec.train.choice
    price = declared.price_per_hour if declared is not None else None
    costs = choice_costs(run.ledger, run.run_id, choice, price=price)
    table, summary = choice_files(run.settings.home, run.run_id, choice)
    private_folder(table.parent)
    write_trials(choice.rows, table, costs=costs)
    write_json(summary, choice_json(choice, costs))
    run.listeners.noted(choice.why)
    advice = next((row.advice for row in reversed(choice.rows) if row.advice), "")
    if advice:
        run.listeners.noted(advice)


def choice_files(home: Path, run_id: str, choice: ChoiceRef) -> tuple[Path, Path]:
    """Return the paths of table and JSON of a run's choice with costs."""
    table = home / "runs" / f"{run_id}-{choice.table}"
    return table, table.with_suffix(".json")


def choice_costs(ledger: Ledger, run_id: str, choice: ChoiceRef, *, price: float | None) -> Costs:
    """Return the seconds that each training took when it was made, in this run or an earlier one, and their price.

    If a training was killed and continued, only the last attempt counts.
    """
    keys = ledger.keys_of(run_id)
    costs: Costs = {}
    for row in choice.rows:
        made = [ledger.made_in(keys[name]) for step in MADE if (name := f"{step}_{row.name}") in keys]
        known = [seconds for seconds in made if seconds is not None]
        seconds = round(sum(known), 3) if known and row.state in ("chosen", "done") else None
        costs[row.name] = (seconds, None if seconds is None or price is None else seconds / 3600 * price)
    return costs


def choice_json(choice: ChoiceRef, costs: Costs) -> dict[str, Any]:
    """Return the choice as plain data, each training with its seconds and price."""
    rows = [
        {**row.model_dump(mode="json"), "seconds": costs[row.name][0], "cost": costs[row.name][1]}
        for row in choice.rows
    ]
    return {**choice.model_dump(mode="json", exclude={"root", "digest", "rows"}), "rows": rows}


def choice_of(ledger: Ledger, store: Store, run_id: str) -> tuple[ChoiceRef, Costs] | None:
    """Return the choice of a recorded run, with its costs; None if it had only one training."""
    key = ledger.keys_of(run_id).get("choice")
    choice = store.find("choice", key, ChoiceRef) if key else None
    if choice is None:
        return None
    config: Mapping[str, Any] = ledger.run(run_id).config["train"]
    declared = config.get("ladder") or config.get("sweep") or {}
    return choice, choice_costs(ledger, run_id, choice, price=declared.get("price_per_hour"))


def choice_row(row: TrialRow, costs: Costs) -> dict[str, str]:
    """Return one training as text cells."""
    seconds, cost = costs.get(row.name, (None, None))
    gain = "" if row.gain is None else f"gain {row.gain:+.3g} ({row.gain_lower:+.3g} .. {row.gain_upper:+.3g})"
    return {
        "training": row.name,
        "state": row.state.replace("_", " "),
        "changes": changes_text(row.changes),
        "value": "" if row.value is None else f"{row.value:.4g}",
        "target": "" if row.met is None else ("met" if row.met else "missed"),
        "examples": "" if row.n_examples is None else f"{row.n_examples:,}",
        "tokens": "" if row.n_tokens is None else f"{row.n_tokens:,}",
        "GiB": "" if row.memory_bytes is None else f"{row.memory_bytes / 2**30:.2f}",
        "seconds": "" if seconds is None else f"{seconds:.1f}",
        "cost": "" if cost is None else f"{cost:.4g}",
        "note": "; ".join(filter(None, (gain, row.advice))),
    }


def changes_text(changes: Mapping[str, Setting]) -> str:
    """Return what a training changes, in a line: `adapter.rank 8, learning_rate 0.001`."""
    return ", ".join(f"{path} {_short(value)}" for path, value in changes.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).split("#")[0]
