"""Advice for people: the answer, the word of each rule, and what is missing with the command that gets it."""

from __future__ import annotations

from flows.cli.output import out, print_rows
from flows.views.advice import Advice, Evidence


def print_advice(advice: Advice, known: Evidence) -> None:
    """The answer, the means of the arms, the reasons and the gaps, for a person."""
    run = f"run {advice.run_id}" if advice.run_id else "nothing recorded yet"
    out().print(f"{advice.pipeline} ({run}): {advice.answer}", markup=False, style="bold")
    out().print(f"{advice.sentence}\n", markup=False, soft_wrap=True)
    if known.means:
        best_first = sorted(known.means.items(), key=lambda pair: -pair[1])
        print_rows([{"arm": arm, known.metric: f"{mean:.3f}"} for arm, mean in best_first])
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
