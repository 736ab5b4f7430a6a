"""Check before training whether the gate can decide: in `tunegate plan`, and in a run once its items are known.

Reads the last verdict from ledger and store; the arithmetic is in `tasks/assess/plan_gate.py`.
"""

from collections.abc import Sequence

from flows.context.run_context import RunContext
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from schemas.artifacts import CertifiedRef, GateDecision, Splits
from schemas.counted import counted
from schemas.errors import ConfigError
from schemas.metrics import traits_by_name
from schemas.pipeline import PipelineSpec
from tasks.assess.items import count_available
from tasks.assess.plan_gate import (
    CalibrationPlan,
    InterimPlan,
    RulePower,
    disagreements,
    plan_calibration,
    plan_gate,
    plan_interim,
)
from tasks.assess.suite import read_suite

RECENT_RUNS = 50


def gate_power(
    spec: PipelineSpec, *, splits: Splits | None, ledger: Ledger, store: Store, n_estimated: int | None = None
) -> tuple[RulePower, ...]:
    """Return what each rule needs and what the held-out items can show.

    Args:
        splits: The curated tickets; None before curation.
        n_estimated: Held-out items to assume before curation; None if that is unknown.
    """
    n_items = n_estimated if splits is None else planned_items(spec, splits)
    decision = last_decision(ledger, store, spec.name)
    return plan_gate(
        spec.judged_gates,
        traits=traits_by_name(spec.evaluate.traits()),
        n_items=n_items,
        seen={} if decision is None else disagreements(decision),
        n_suite=None if spec.gates.forgetting is None else len(read_suite(spec.gates.forgetting.suite)),
    )


def interim_plan(spec: PipelineSpec, *, splits: Splits | None) -> InterimPlan | None:
    """Return when the run will look at its answers; None without `gates.interim`, or before curation."""
    if splits is None or not splits.n_test:
        return None
    n_items = spec.n_items(count_available(splits, spec.evaluate.one_per, spec.evaluate.calibration_share))
    return plan_interim(spec.judged_gates, n_items=n_items, batch_size=spec.evaluate.batch_size)


def calibration_plan(
    spec: PipelineSpec, *, splits: Splits | None, ledger: Ledger, store: Store, n_estimated: int | None = None
) -> CalibrationPlan | None:
    """Return how many calibration tickets a certificate needs; None without `evaluate.abstain`. Arguments as above."""
    abstain = spec.evaluate.abstain
    if abstain is None:
        return None
    n_tickets = None if n_estimated is None else round(abstain.share * n_estimated)
    if splits is not None:
        n_tickets = splits.n_test - count_available(splits, None, abstain.share)
    runs = (run for run in ledger.runs(limit=RECENT_RUNS, pipeline=spec.name) if run.as_of is None)
    keys = (ledger.keys_of(run.run_id).get("certificate_tuned") for run in runs)
    found = (store.whole("certificate", key, CertifiedRef) for key in keys)
    return plan_calibration(
        abstain,
        n_tickets=None if n_tickets is None else min(n_tickets, abstain.max_items),
        last=next((each for each in found if each is not None and each.field == abstain.field), None),
        cluster_by=spec.gates.cluster_by,
    )


def planned_items(spec: PipelineSpec, splits: Splits) -> int:
    """Return the items that the plan counts with: of declared looks those of the last, which has to decide."""
    if spec.gates.looks.at:
        return spec.gates.looks.at[-1]
    return min(spec.evaluate.max_items, count_available(splits, spec.evaluate.one_per, spec.evaluate.calibration_share))


def refuse_weak_gate(spec: PipelineSpec, rows: Sequence[RulePower]) -> str | None:
    """Return a sentence about the rules that have too few items, or None.

    Raises:
        ConfigError: TG0196, there are such rules and `gates.strict_power` is true.
    """
    weak = [row for row in rows if row.underpowered]
    if not weak:
        return None
    first = weak[0]
    needed = "more than can be computed" if first.needed is None else f"{first.needed:,}"
    have = "has" if len(weak) == 1 else "have"
    message = (
        f"{len(weak)} of {counted(len(rows), 'rule')} {have} too few held-out items to be met with a chance of "
        f"{100 * spec.gates.power.power:g} % (power); {first.rule}: {first.at_hand:,} are available and {needed} are "
        f"needed to find {first.what}"
    )
    if spec.gates.strict_power:
        raise ConfigError(
            message, code="TG0196", where=f"{spec.name}.gates",
            hint="raise evaluate.max_items or split.test_fraction, or lower the demands: gates.power, a wider margin",
        )  # fmt: skip
    return message


def warn_of_weak_gate(run: RunContext, splits: Splits | None) -> None:
    """Note, before training, what the gate will hardly be able to decide.

    Raises:
        ConfigError: TG0196, see `refuse_weak_gate`.
    """
    if splits is None:
        return
    spec = run.trained_spec
    rows = gate_power(spec, splits=splits, ledger=run.ledger, store=run.store)
    warning = refuse_weak_gate(spec, rows)
    if warning is not None:
        run.listeners.noted(f"{warning}; `tunegate plan {run.spec.name}` shows every rule")


def last_decision(ledger: Ledger, store: Store, pipeline: str) -> GateDecision | None:
    """Return the newest verdict of the pipeline that is still in the store; runs with `--as-of` do not count."""
    runs = (run for run in ledger.runs(limit=RECENT_RUNS, pipeline=pipeline) if run.as_of is None)
    found = (store.whole("gate", ledger.keys_of(run.run_id).get("gate"), GateDecision) for run in runs)
    return next((decision for decision in found if decision is not None), None)
