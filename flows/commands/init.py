"""`tunegate init`: a file of tickets becomes a commented pipelines.yaml."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from flows.commands.output import out, print_json, talk
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.files import write_atomic
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline


def init(*, source: Path, name: str | None, force: bool, config: Path, as_json: bool) -> int:
    """Write the file, checked by the loader first; say what was inferred and what was not.

    Raises:
        ConfigError: TG0130 the file is none of tickets, TG0167 it holds too little, TG0189 there is a
            pipelines.yaml already.
        ConfigErrors: the loader refuses the file, its name say; nothing was written.
        DataError: the file cannot be read.
    """
    target = config.absolute()
    if target.exists() and not force:
        hint = "--force replaces it, --config OTHER.yaml writes elsewhere"
        raise ConfigError(f"{config} is there already", code="TG0189", where=str(target), hint=hint)
    proposal = propose_pipeline(source, name=name, root=target.parent)
    text = write_pipeline(proposal)
    with tempfile.TemporaryDirectory(prefix="tunegate-init-") as aside:
        path = Path(aside) / target.name
        path.write_text(text, encoding="utf-8")
        load_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text.encode())
    if as_json:
        print_json(_as_json(proposal, config))
    else:
        _print(proposal, config)
    return 0


def _as_json(proposal: Proposal, config: Path) -> dict[str, object]:
    roles, sizes = proposal.roles, proposal.sizes
    return {
        "kind": "tickets", "file": str(config), "pipeline": proposal.name, "n_rows": proposal.profile.n_rows,
        "shape": roles.shape,
        "columns": {role.column: asdict(role) for role in roles.found},
        "left_out": list(roles.left_out),
        "faulty_share": proposal.faulty_share,
        "sizes": {**asdict(sizes), "gate_works": sizes.gate_works},
        "gate": [{**asdict(power), "underpowered": power.underpowered} for _, power in proposal.gate],
    }  # fmt: skip


def _print(proposal: Proposal, config: Path) -> None:
    sizes = proposal.sizes
    out().print(f"{config}: pipeline {proposal.name}, {proposal.profile.n_rows:,} rows ({proposal.roles.summary})")
    for role in proposal.roles.found:
        mark = "CHECK " if role.guessed else ""
        out().print(f"  {role.column:<12} {mark}{role.name}: {role.evidence}", markup=False)
    if sizes.gate_works:
        out().print(f"  gate         {proposal.metric}: {sizes.summary}", markup=False)
    else:
        talk().print(f"[yellow]warning[/yellow] {escape(sizes.summary)}", soft_wrap=True)
    talk().print(f"next: tunegate validate, then tunegate curate {proposal.name}", markup=False)
