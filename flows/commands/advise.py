"""`tunegate advise`: prompting, retrieval, QLoRA, LoRA or full, from what is recorded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.advice import evidence_of
from flows.commands.output import out, print_json, print_rows
from flows.settings import load_settings
from schemas.load import load_file
from tasks.assess.advice import Advice, Evidence, conclude
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
    """Print the answer, the word of each rule, and what is missing with the command that gets it."""
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    known = evidence_of(
        spec, settings, root=config.resolve().parent, run_id=run_id, queries=queries, machine=machine,
        book=read_prices(prices or PRICES),
    )  # fmt: skip
    advice = conclude(known)
    if as_json:
        costs = None if known.costs is None else known.costs.model_dump(mode="json")
        print_json({**asdict(advice), "metric": known.metric, "means": dict(known.means), "costs": costs})
    else:
        _print(advice, known)
    return NOT_KNOWN if advice.answer == "not known" else 0


def _print(advice: Advice, known: Evidence) -> None:
    run = f"run {advice.run_id}" if advice.run_id else "nothing recorded yet"
    out().print(f"{advice.pipeline} ({run}): {advice.answer}", markup=False, style="bold")
    out().print(f"{advice.sentence}\n", markup=False, soft_wrap=True)
    if known.means:
        arms = [
            {"arm": arm, known.metric: f"{mean:.3f}"}
            for arm, mean in sorted(known.means.items(), key=lambda pair: -pair[1])
        ]
        print_rows(arms, ("arm", known.metric))
        out().print()
    for reason in advice.reasons:
        out().print(f"{reason.rule}: {reason.says}", markup=False, style="bold")
        for line in (
            f"{reason.question} {reason.evidence}",
            f"threshold: {reason.threshold} ({reason.source})",
            f"would change it: {reason.change}",
        ):
            out().print(f"  {line}", markup=False, soft_wrap=True)
    if advice.missing:
        out().print("\nmissing evidence, and what gets it", markup=False, style="bold")
        for reason in advice.missing:
            out().print(f"  {reason.rule}: {reason.evidence}\n      {reason.get}", markup=False, soft_wrap=True)
