"""Compare two recorded runs: settings, code, data, scores on common items, cost, digests.

Changes nothing and shows no ticket text. `tasks/assess/side_by_side.py` does the sums.
"""

from dataclasses import asdict
from typing import Any

from flows.views.costs import costs_of
from flows.views.run_reader import Recorded, settings_of, spec_of
from flows.workspace.settings import Settings
from schemas.artifacts import Scores, Splits, WarehouseRef
from schemas.metrics import MetricTraits
from tasks.assess.side_by_side import compare_metrics, compare_splits

FATES = ("n_in", "n_out", "n_quarantined", "n_dropped", "n_merged")


def compare_runs(settings: Settings, first: str, second: str) -> dict[str, Any]:
    """Return everything as plain data; a part that one of the runs did not reach, or that is gone, is empty."""
    runs = (Recorded(settings, first), Recorded(settings, second))
    return {
        "runs": [_head(recorded) for recorded in runs],
        "settings": _changes(*(settings_of(recorded.row) for recorded in runs)),
        "data": _data(*runs),
        "metrics": _metrics(*runs),
        "arms": _arms(*runs),
        "cost": _changes(*(_cost(recorded) for recorded in runs), all_of_them=True),
        "digests": _digests(*runs),
    }


def _head(recorded: Recorded) -> dict[str, Any]:
    row, decision = recorded.row, recorded.decision()
    warehouse = recorded.result("warehouse", WarehouseRef)
    return {
        "run_id": row.run_id,
        "pipeline": row.pipeline,
        "status": row.status,
        "verdict": row.verdict,
        "reason": row.reason,
        "started_at": row.started_at,
        "code": row.code[:16],
        "snapshot": warehouse.snapshot_id if warehouse else None,
        "n_items": decision.n_items if decision else None,
    }


def _changes(first: dict[str, str], second: dict[str, str], *, all_of_them: bool = False) -> list[dict[str, Any]]:
    return [
        {"what": what, "first": first.get(what), "second": second.get(what)}
        for what in dict.fromkeys([*first, *second])
        if all_of_them or first.get(what) != second.get(what)
    ]


def _data(first: Recorded, second: Recorded) -> dict[str, Any]:
    """Return rows by fate per step, rows per reason, and which tickets both runs have."""
    cards = [recorded.card_numbers() for recorded in (first, second)]
    funnels = [{step.step: step.rows.model_dump() for step in card.funnel} if card else {} for card in cards]
    fates = [
        {"step": step, "fate": fate, "first": rows[0], "second": rows[1]}
        for step in dict.fromkeys([*funnels[0], *funnels[1]])
        for fate in FATES
        if any(rows := [funnel.get(step, {}).get(fate) for funnel in funnels])
    ]
    reasons = [{(each.step, each.code): each.n for each in card.reasons} if card else {} for card in cards]
    taken = [
        {
            "step": step,
            "code": code,
            "first": reasons[0].get((step, code), 0),
            "second": reasons[1].get((step, code), 0),
        }
        for step, code in dict.fromkeys([*reasons[0], *reasons[1]])
    ]
    ours, theirs = (recorded.result("decontaminate", Splits) for recorded in (first, second))
    if ours is None or theirs is None:
        return {"fates": fates, "reasons": taken, "tickets": [], "trained_here_held_out_there": None}
    overlaps, moved = compare_splits(ours, theirs)
    tickets = [asdict(overlap) for overlap in overlaps]
    return {"fates": fates, "reasons": taken, "tickets": tickets, "trained_here_held_out_there": moved}


def _metrics(first: Recorded, second: Recorded) -> dict[str, Any]:
    scores = [recorded.result("scores_tuned", Scores, folder="scores") for recorded in (first, second)]
    specs = [spec_of(recorded.row) for recorded in (first, second)]
    confidence = max(spec.gates.confidence for spec in specs)
    if scores[0] is None or scores[1] is None:
        return {"confidence": confidence, "lines": []}
    traits: dict[str, MetricTraits] = {each.name: each for spec in specs for each in spec.evaluate.traits()}
    lines = compare_metrics(scores[0], scores[1], traits=tuple(traits.values()), confidence=confidence)
    return {"confidence": confidence, "lines": [asdict(line) for line in lines]}


def _arms(first: Recorded, second: Recorded) -> list[dict[str, Any]]:
    """Return means of the first rule's metric, for every arm, over the items of its own run."""
    metrics = [spec_of(recorded.row).gates.rules[0].metric for recorded in (first, second)]
    means: list[dict[str, float | None]] = []
    for recorded, metric in zip((first, second), metrics, strict=True):
        found: dict[str, float | None] = {}
        for name in recorded.keys:
            arm = name.removeprefix("scores_")
            scores = recorded.scores(arm) if name.startswith("scores_") else None
            if scores is not None and scores.arm == arm:
                found[arm] = scores.means.get(metric)
        means.append(found)
    return [
        {"arm": arm, "metric": metrics[1], "first": means[0].get(arm), "second": means[1].get(arm)}
        for arm in dict.fromkeys([*means[0], *means[1]])
    ]


def _cost(recorded: Recorded) -> dict[str, str]:
    seconds = sum(recorded.ledger.made_in(key) or 0.0 for key in recorded.keys.values())
    costs = {"seconds of all steps, when made": f"{seconds:,.1f}"}
    report = costs_of(recorded)
    if report is None:
        return costs
    if report.training_seconds is not None:
        costs["seconds of the training"] = f"{report.training_seconds:,.1f}"
    costs |= {f"prompt tokens, {arm}": f"{tokens:,.1f}" for arm, tokens in report.prompt_tokens.items()}
    costs["reply tokens"] = f"{report.reply_tokens:,.1f}"
    costs |= {name.replace("_", " "): f"{value:.4g}" for name, value in report.measured.items()}
    for line in report.queries:
        if line.usd is not None:
            busy = " of a busy card" if line.what.startswith("own") else ""
            costs[f"USD a query{busy}, {line.what}"] = f"{line.usd:.6f}"
    return costs


def _digests(first: Recorded, second: Recorded) -> list[dict[str, Any]]:
    digests = [{step.step: step.digest for step in recorded.steps if step.digest} for recorded in (first, second)]
    return [
        {"step": step, "first": digests[0].get(step), "second": digests[1].get(step),
         "same": digests[0].get(step) == digests[1].get(step)}
        for step in dict.fromkeys([*digests[0], *digests[1]])
    ]  # fmt: skip
