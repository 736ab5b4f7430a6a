"""The text of `tunegate plan`."""

from typing import Any

from flows.cli.output import note, out, print_rows, warn
from flows.forecast.calls import Calls
from flows.forecast.gate_power import refuse_weak_gate
from flows.forecast.plan import PlanView
from schemas.pipeline import PipelineSpec
from tasks.assess.plan_gate import RulePower
from tasks.train.memory import Forecast


def print_plan(view: PlanView) -> None:
    """Steps, figures, places, the gate's power and the calls; warnings go to stderr.

    Raises:
        GateError: as `flows.forecast.gate_power.refuse_weak_gate`, after everything is printed but the warnings.
    """
    for remark in (view.source, view.start):
        if remark is not None:
            note(remark)
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
            warn(warning)


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
