"""What `tunegate init` and `tunegate try` do with a file of tickets: propose a pipeline, check, write and show it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from flows.cli.output import note, out, talk, warn, write_file
from flows.cli.running import run_and_print
from flows.context.request import RunRequest
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.tables import TicketColumn
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline
from tasks.start.small_budget import small_budget


def write_proposal(
    source: Path,
    config: Path,
    *,
    name: str | None = None,
    named: Mapping[TicketColumn, str] | None = None,
    force: bool = False,
    again: bool = False,
) -> Proposal:
    """Propose a pipeline for the file, check it with the loader, and write it to `config`.

    Args:
        name: Of the pipeline; None for the file's.
        named: Ticket column -> column or path in the file that the user names.
        force: Replace a file that is there.
        again: Accept one that is there if it is what would be written.

    Raises:
        ConfigError: TG0189, the file is there already; and as `propose_pipeline`.
    """
    target = config.absolute()
    if target.exists() and not (force or again):
        raise _is_there(config, "--force replaces it, --config OTHER.yaml writes elsewhere")
    proposal = propose_pipeline(source, name=name, root=target.parent, named=named)
    text = write_pipeline(proposal)
    with tempfile.TemporaryDirectory(prefix="tunegate-init-") as aside:
        path = Path(aside) / target.name
        path.write_text(text, encoding="utf-8")
        load_file(path)
    if target.exists() and not force:
        if target.read_bytes() == text.encode():
            return proposal
        raise _is_there(config, "--config OTHER.yaml writes elsewhere; `tunegate run NAME` runs what it declares")
    write_file(target, text.encode(), replace=True)
    return proposal


def try_file(
    source: Path,
    config: Path,
    *,
    named: Mapping[TicketColumn, str],
    given: tuple[str, ...],
    as_json: bool,
) -> int:
    """Propose a pipeline, run it once with a small budget, and say what a whole run would be.

    Killed and started again, it continues where it was.

    Args:
        named: As of `write_proposal`.
        given: `PATH=VALUE`, settings on top of the small budget.

    Returns:
        The exit code of the verdict.

    Raises:
        TunegateError: as `write_proposal` and `run_and_print`.
    """
    proposal = write_proposal(source, config, named=named, again=True)
    budget = small_budget(proposal)
    if not as_json:
        print_proposal(proposal, config, next_steps=False)
    note(f"{budget.summary}; gate and limits are those of {config}")
    request = RunRequest(given=(*budget.settings, *given))
    code = run_and_print(proposal.name, config, request, server="yours", as_json=as_json)
    talk().print(
        f"\nThis was a small try. Look at the report above, review {config}, then:\n"
        f"  tunegate plan {proposal.name}   what a run without the small budget takes\n"
        f"  tunegate run {proposal.name}    make it",
        markup=False,
    )  # fmt: skip
    return code


def _is_there(config: Path, hint: str) -> ConfigError:
    return ConfigError(f"{config} is there already", code="TG0189", where=str(config.absolute()), hint=hint)


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
        warn(sizes.summary)
    for warning in proposal.warnings:
        warn(warning)
    if proposal.undated:
        warn(f"{proposal.undated} of the rows have no time, and a split by time drops them")
    if proposal.stops:
        reasons = (*proposal.tickets.reasons, proposal.profile.why_unreadable)
        over = f"over the limit of {100 * proposal.table.fail_above:g} %"
        warn(f"{proposal.faulty_percent} of the rows are faulty, {over}, so a run stops: {reasons[0].rstrip('.')}")
    if next_steps:
        then = f"tunegate validate, then tunegate data curate {proposal.name}"
        if proposal.needs_key:
            name = RedactStep(uses="redact").key_env
            key = f'export {name}="$(openssl rand -hex 32)"  # keep it: with another key, ids no longer join'
            talk().print(f"next: {key}\n      {then}", markup=False, soft_wrap=True)
        else:
            talk().print(f"next: {then}", markup=False)
