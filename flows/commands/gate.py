"""`tunegate gate explain`: why a gate decided as it did, down to the items that decided.

Ticket text goes to stdout alone, read from the local store; a note on stderr never quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.markup import escape
from rich.table import Table

from flows.commands.output import out, print_json, talk
from flows.engine.ledger import Ledger
from flows.engine.store import Store
from flows.measured import read_measured
from flows.settings import load_settings
from schemas.artifacts import Artifact, EvalSet, GateDecision, Predictions, Scores
from schemas.errors import ConfigError, TunegateError
from schemas.metrics import MetricTraits
from schemas.verdicts import Finding
from tasks.assess.worst import Answered, WorstItem, worst_items

A = TypeVar("A", bound=Artifact)


def explain(*, run_id: str, metric: str | None, n_items: int, config: Path, as_json: bool) -> int:
    """Print the findings of the run's gate and its worst items.

    Raises:
        ConfigError: TG0197, the run came to no gate, or its result is gone, or the metric was not judged.
    """
    settings = load_settings(config)
    ledger, store = Ledger(settings.home), Store(settings.home)
    row = ledger.run(run_id)
    keys = {step.step: step.key for step in ledger.steps(row.run_id) if step.key}
    decision = _stored(store, keys, "gate", "gate", GateDecision)
    if decision is None:
        raise ConfigError(
            f"run {row.run_id} came to no gate, or its decision is no longer in the store",
            code="TG0197", where=row.run_id, hint=f"`tunegate show {row.run_id}` says how far it came",
        )  # fmt: skip
    figures = read_measured(settings, "latency", keys["latency"]) if "latency" in keys else {}
    finding = _chosen(decision, metric)
    note = ""
    worst: tuple[WorstItem, ...] = ()
    if n_items and finding is not None:
        try:
            worst = _worst(store, keys, decision, finding, n_items)
        except TunegateError as error:
            note = error.message
    if as_json:
        head = {"run_id": row.run_id, "verdict": decision.verdict, "reason": decision.reason}
        shown = {"metric": finding and finding.metric, "slice": finding and finding.slice}
        findings = [each.model_dump() for each in decision.findings]
        print_json(
            {
                **head,
                "findings": findings,
                "measured": figures,
                "shown": shown,
                "worst_items": [asdict(item) for item in worst],
            }
        )
    else:
        _print_findings(row.run_id, decision)
        _print_measured(figures)
        _print_worst(worst, finding)
    if note:
        talk().print(f"[yellow]note[/yellow] the items are not shown: {escape(note)}")
    return 0


def _chosen(decision: GateDecision, metric: str | None) -> Finding | None:
    """The finding whose items are shown: the first of the metric, or the first that is not met, or the first."""
    on_items = (finding for finding in decision.findings if not finding.is_check)
    judged = [finding for finding in on_items if finding.candidate is not None]
    if metric is not None:
        found = next((finding for finding in judged if finding.metric == metric), None)
        if found is None:
            known = ", ".join(dict.fromkeys(finding.metric for finding in judged)) or "none"
            raise ConfigError(
                f"no rule of this gate judged {metric!r}; judged were: {known}", code="TG0197", where="--metric"
            )
        return found
    unmet = (finding for finding in judged if finding.verdict != "PROMOTE")
    return next(unmet, judged[0] if judged else None)


def _worst(
    store: Store, keys: Mapping[str, str], decision: GateDecision, finding: Finding, n_items: int
) -> tuple[WorstItem, ...]:
    items = _stored(store, keys, "items", "items", EvalSet)
    candidate = _answered(store, keys, "tuned")
    if items is None or candidate is None:
        raise ConfigError("held-out items or answers are no longer in the store", code="TG0197")
    arm = _reference_arm(decision, finding)
    reference = None if arm is None else _answered(store, keys, arm)
    if arm is not None and reference is None:
        raise ConfigError(f"the answers of {arm} are no longer in the store", code="TG0197")
    return worst_items(
        items=items,
        candidate=candidate,
        reference=reference,
        metric=finding.metric,
        traits=MetricTraits(
            name=finding.metric,
            continuous=finding.method.endswith("bootstrap_t") and "+" not in finding.method,
            higher_is_better=finding.higher_is_better,
        ),
        slice_name=finding.slice,
        n_items=n_items,
    )


def _reference_arm(decision: GateDecision, finding: Finding) -> str | None:
    """The arm that the finding compared with; an absolute limit is shown beside the champion, if there is one."""
    if finding.reference is not None and "best_baseline (" in finding.rule:
        return finding.rule.partition("best_baseline (")[2].partition(")")[0]
    if finding.reference is not None and "anchor (" in finding.rule:
        return "anchor"
    return "champion" if decision.champion_version is not None else None


def _answered(store: Store, keys: Mapping[str, str], arm: str) -> Answered | None:
    scores = _stored(store, keys, f"scores_{arm}", "scores", Scores)
    answers = _stored(store, keys, f"answers_{arm}", "answers", Predictions)
    return None if scores is None or answers is None else Answered(scores, answers)


def _stored(store: Store, keys: Mapping[str, str], step: str, folder: str, returns: type[A]) -> A | None:
    found = store.look(folder, keys[step], returns) if step in keys else None
    return found if isinstance(found, returns) else None


def _print_findings(run_id: str, decision: GateDecision) -> None:
    console = out()
    console.print(f"{run_id}  {decision.verdict}  {decision.reason}", markup=False)
    if decision.use is not None:
        console.print(decision.use.sentence(), markup=False)
    for finding in decision.findings:
        told = finding.verdict if finding.decides else "not judged"
        where = "" if finding.slice is None else f", slice {finding.slice}"
        bounds = "none" if finding.lower is None else f"{finding.lower:+.4f} to {finding.upper or 0:+.4f}"
        flips = "" if finding.won is None else f"; items won {finding.won}, lost {finding.lost}"
        limit = "" if finding.limit is None else f"; limit {finding.limit:g}"
        p_harm = "" if finding.p_harm is None else f"; p of harm {finding.p_harm:.2g}"
        console.print(f"\n{told:<8} {finding.rule}", markup=False)
        console.print(
            f"         metric {finding.metric}{where}; {finding.n_items} items; bounds {bounds} ({finding.method})"
            f"{limit}{flips}{p_harm}",
            markup=False,
        )
        console.print(f"         {finding.reason}", markup=False)


def _print_measured(figures: Mapping[str, float]) -> None:
    """Seconds and dollars that stand beside the decision, for no digest may depend on them."""
    if figures:
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        out().print(f"\nmeasured, outside the decision: {told}", markup=False)


def _print_worst(worst: tuple[WorstItem, ...], finding: Finding | None) -> None:
    if finding is None:
        return
    console = out()
    where = f" in {finding.slice}" if finding.slice else ""
    console.print(f"\nworst items by {finding.metric}{where}: {len(worst)}", markup=False)
    for item in worst:
        against = "" if item.reference is None else f" against {item.reference:.3f}"
        slices = ", ".join(item.slices)
        console.print(f"\n{item.item_id}  {item.candidate:.3f}{against}  {slices}", markup=False)
        console.print(item.question, markup=False)
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        columns = {"wanted": item.wanted, "candidate": item.candidate_answer}
        if item.reference_answer is not None:
            columns["reference"] = item.reference_answer
        for name in columns:
            table.add_column(name, overflow="fold", ratio=1)
        table.add_row(*map(escape, columns.values()))
        console.print(table)
