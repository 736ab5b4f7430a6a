"""What `tunegate init` proposes, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from flows.cli.output import out, talk
from tasks.start.propose import Proposal


def proposal_json(proposal: Proposal, config: Path) -> dict[str, object]:
    """As `tunegate init --json` prints it."""
    roles, sizes = proposal.roles, proposal.sizes
    return {
        "kind": "tickets", "file": str(config), "pipeline": proposal.name, "n_rows": proposal.profile.n_rows,
        "shape": roles.shape,
        "columns": {role.column: asdict(role) for role in roles.found},
        "left_out": list(roles.left_out),
        "faulty_share": proposal.faulty_share,
        "warnings": list(proposal.warnings),
        "sizes": {**asdict(sizes), "gate_works": sizes.gate_works},
        "gate": [{**asdict(power), "underpowered": power.underpowered} for _, power in proposal.gate],
    }  # fmt: skip


def print_proposal(proposal: Proposal, config: Path, *, next_steps: bool = True) -> None:
    """The columns and what they were taken for; what is doubtful goes to stderr."""
    sizes = proposal.sizes
    out().print(f"{config}: pipeline {proposal.name}, {proposal.profile.n_rows:,} rows ({proposal.roles.summary})")
    for role in proposal.roles.found:
        mark = "CHECK " if role.guessed else ""
        out().print(f"  {role.column:<12} {mark}{role.name}: {role.evidence}", markup=False)
    if sizes.gate_works:
        out().print(f"  gate         {proposal.metric}: {sizes.summary}", markup=False)
    else:
        talk().print(f"[yellow]warning[/yellow] {escape(sizes.summary)}", soft_wrap=True)
    for warning in proposal.warnings:
        talk().print(f"[yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)
    if proposal.undated:
        warning = f"{proposal.undated} of the rows have no time, and a split by time drops them"
        talk().print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    if proposal.stops:
        reasons = (*proposal.tickets.reasons, proposal.profile.why_unreadable)
        why = escape(reasons[0].rstrip("."))
        over = f"over the limit of {100 * proposal.table.fail_above:g} %"
        warning = f"{proposal.faulty_percent} of the rows are faulty, {over}, so a run stops: {why}"
        talk().print(f"[yellow]warning[/yellow] {warning}", soft_wrap=True)
    if next_steps:
        talk().print(f"next: tunegate validate, then tunegate data curate {proposal.name}", markup=False)
