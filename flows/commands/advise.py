"""`tunegate advise`: prompting, retrieval, QLoRA, LoRA or full, from what is recorded."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from flows.commands.output import out, print_json, print_rows
from flows.views.advice import Advice, Evidence, conclude, evidence_of
from flows.views.costs import check_machine, costs_of, newest_run
from flows.views.run_reader import Recorded
from flows.workspace.settings import load_settings
from schemas.load import load_file
from tasks.assess.economics import PRICES, read_prices

NOT_KNOWN = 8
"""Exit code of a HOLD: there is not enough evidence."""


def advise(
    *,
    pipeline: str,
    run_id: str | None,
    queries: float | None,
    machine: str | None,
    prices: Path | None,
    config: Path,
    as_json: bool,
) -> int:
    """Print the answer, the word of each rule, and what is missing with the command that gets it.

    Args:
        run_id: A run; null takes the newest that scored a tuned model, else the newest that curated.

    Raises:
        ConfigError: TG0103, the price book has no such card; TG0151, no such run or several.
    """
    spec, settings, book = load_file(config).get(pipeline), load_settings(config), read_prices(prices or PRICES)
    check_machine(machine, book)
    if run_id is not None:
        recorded: Recorded | None = Recorded(settings, run_id)
    else:
        found = (newest_run(settings, spec.name, step=step) for step in ("scores_tuned", "decontaminate"))
        recorded = next((run for run in found if run is not None), None)
    costs = None if recorded is None else costs_of(recorded, book=book, queries_per_month=queries)
    known = evidence_of(spec, settings, recorded, root=config.resolve().parent)
    known = replace(known, costs=costs, card=machine, queries=queries)
    advice = conclude(known)
    if as_json:
        costs_json = costs and costs.model_dump(mode="json")
        print_json({**asdict(advice), "metric": known.metric, "means": dict(known.means), "costs": costs_json})
    else:
        print_advice(advice, known)
    return NOT_KNOWN if advice.answer == "not known" else 0


def print_advice(advice: Advice, known: Evidence) -> None:
    """The answer, the means of the arms, the reasons and the gaps, for a person."""
    run = f"run {advice.run_id}" if advice.run_id else "nothing recorded yet"
    out().print(f"{advice.pipeline} ({run}): {advice.answer}", markup=False, style="bold")
    out().print(f"{advice.sentence}\n", markup=False, soft_wrap=True)
    if known.means:
        best_first = sorted(known.means.items(), key=lambda pair: -pair[1])
        print_rows([{"arm": arm, known.metric: f"{mean:.3f}"} for arm, mean in best_first], ("arm", known.metric))
        out().print()
    for reason in advice.reasons:
        out().print(f"{reason.rule}: {reason.says}", markup=False, style="bold")
        out().print(
            f"  {reason.question} {reason.evidence}\n"
            f"  threshold: {reason.threshold} ({reason.source})\n"
            f"  would change it: {reason.change}", markup=False, soft_wrap=True,
        )  # fmt: skip
    if advice.missing:
        out().print("\nmissing evidence, and what gets it", markup=False, style="bold")
        for reason in advice.missing:
            out().print(f"  {reason.rule}: {reason.evidence}\n      {reason.get}", markup=False, soft_wrap=True)
