"""Calls to a judge and an endpoint that a run will make, and answers that it will time one by one: for `tunegate plan`.

Reads store, ledger and labels, contacts no service. `tasks/assess/plan_checks.py` counts.
"""

from collections.abc import Sequence
from pathlib import Path

from flows.context.timings import read_timings
from flows.graph.plan import PlannedNode
from flows.views.costs import newest_run
from flows.workspace.settings import Settings
from schemas.artifacts import EvalSet, Splits
from schemas.pipeline import PipelineSpec
from tasks.assess.economics import read_prices
from tasks.assess.llm_judge import read_labels
from tasks.assess.plan_checks import Calls, endpoint_calls, judge_calls, latency_calls


def planned_calls(
    spec: PipelineSpec, planned: Sequence[PlannedNode], *, settings: Settings, root: Path, has_champion: bool
) -> list[Calls]:
    """Return one entry for each that is declared and not reused.

    Raises:
        GateError: TG0612, the price book is invalid; TG0616, the labels of the judge cannot be read.
    """
    steps = {this.id: this for this in planned}
    items = next((this.artifact for name, this in steps.items() if name == "items"), None)
    known = items if isinstance(items, EvalSet) else None
    splits = steps["decontaminate"].artifact if "decontaminate" in steps else None
    n_items = min(spec.evaluate.max_items, splits.n_test) if isinstance(splits, Splits) else None
    found: list[Calls] = []
    endpoint, judge, latency = spec.evaluate.endpoint, spec.gates.judge, spec.gates.latency
    book = read_prices() if endpoint is not None or judge is not None else None
    if endpoint is not None and book is not None and _will_run(steps.get("answers_endpoint")):
        found.append(
            endpoint_calls(
                model=endpoint.model,
                place=endpoint.privacy,
                items=known,
                n_items=n_items,
                max_new_tokens=spec.evaluate.max_new_tokens,
                book=book,
            )
        )
    if judge is not None and book is not None and _will_run(steps.get("judge")):
        n_labels = 0 if judge.labels is None else sum(1 for _ in read_labels(root / judge.labels))
        found.append(judge_calls(judge, items=known, n_items=n_items, n_labels=n_labels, book=book))
    if latency is not None and _will_run(steps.get("latency")):
        against = "the champion" if has_champion else "the base model"
        found.append(latency_calls(latency, against=against, seconds_each=_seconds_each(spec, settings)))
    return found


def _will_run(step: PlannedNode | None) -> bool:
    return step is not None and step.state in ("run", "maybe")


def _seconds_each(spec: PipelineSpec, settings: Settings) -> float | None:
    """Return the mean of both models' medians, of the last run that timed them."""
    last = newest_run(settings, spec.name, step="latency")
    figures = {} if last is None else read_timings(settings, "latency", last.keys["latency"])
    both = [figures[name] for name in ("latency_p50_s", "reference_latency_p50_s") if name in figures]
    return sum(both) / len(both) if both else None
