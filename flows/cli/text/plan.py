"""`tunegate plan` for people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from flows.cli.output import out, print_rows, talk
from flows.cli.plan_view import PlanView
from flows.views.power import refuse_weak_gate
from schemas.pipeline import PipelineSpec
from tasks.assess.plan_checks import Calls
from tasks.assess.plan_gate import RulePower
from tasks.train.memory import Forecast


def print_plan(view: PlanView) -> None:
    """Steps, figures, places, the gate's power and the calls; warnings go to stderr.

    Raises:
        GateError: as `flows.views.power.refuse_weak_gate`, after everything is printed but the warnings.
    """
    if view.source is not None:
        talk().print(f"[yellow]note[/yellow] {escape(view.source)}")
    if view.start is not None:
        talk().print(f"[yellow]note[/yellow] {escape(view.start)}")
    print_rows(view.rows, ("step", "state", "seconds", "result", "why"))
    out().print()
    for name, value in view.figures.items():
        shown = "not known yet" if value is None else f"{value:,}" if isinstance(value, int) else value
        out().print(f"{name.replace('_', ' '):<24} {shown}", markup=False, soft_wrap=True)
    for cause, steps in view.causes.items():
        out().print(f"{'runs for: ' + cause:<24} {', '.join(steps)}", markup=False, soft_wrap=True)
    for stage, where in view.places.items():
        out().print(f"{stage} runs on {where}", markup=False)
    out().print(f"stages run one after the other; within one, steps run side by side on {_resources(view)}\n")
    print_rows([_power_row(row) for row in view.power], ("gate", "needs", "has", "shows", "what"))
    if view.interim is not None:
        out().print(view.interim.sentence(), markup=False)
    if view.calls:
        out().print()
        print_rows([_call_row(each) for each in view.calls])
    weak, memory = refuse_weak_gate(view.spec, tuple(view.power)), _memory_warning(view.spec, view.memory)
    for warning in (weak, memory, *view.advice):
        if warning is not None:
            talk().print(f"[yellow]warning[/yellow] {escape(warning)}")


def _resources(view: PlanView) -> str:
    budget = view.resources
    gpus = f", {budget['gpu']:g} GPUs" if budget.get("gpu") else ""
    return f"{budget['cpu']:g} cores, {budget['memory_gb']:.0f} GB{gpus}, one training or generation at a time"


def _call_row(this: Calls) -> dict[str, Any]:
    return {
        "asked": this.what,
        "calls": "" if this.calls is None else f"{this.calls:,}",
        "tokens in": "" if this.tokens_in is None else f"{this.tokens_in:,}",
        "at most out": "" if this.tokens_out is None else f"{this.tokens_out:,}",
        "USD": "" if this.usd is None else f"{this.usd:.4f}",
        "seconds": "" if this.seconds is None else f"{this.seconds:.1f}",
        "how": this.note,
    }


def _power_row(row: RulePower) -> dict[str, Any]:
    return {
        "gate": row.rule,
        "needs": "" if row.needed is None else row.needed,
        "has": "" if row.at_hand is None else row.at_hand,
        "shows": "" if row.smallest is None else f"{row.smallest:.3f}",
        "what": row.what,
    }


def _memory_warning(spec: PipelineSpec, memory: Forecast | None) -> str | None:
    if memory is None or memory.fits or spec.train.memory_check == "off":
        return None
    end = "will be refused" if spec.train.memory_check == "refuse" else "may run out of memory"
    remedy = f"; this fits: {memory.remedy}" if memory.remedy else "; use a smaller base model"
    return f"the training {end}: {memory.sentence()}{remedy}"
