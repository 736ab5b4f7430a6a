"""`tunegate init`: a file of tickets, or another trainer's settings, becomes a commented pipelines.yaml."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape

from flows.commands.output import out, print_json, talk
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.files import write_atomic
from tasks.start.foreign import Translation, is_settings, translate
from tasks.start.propose import Proposal, propose_pipeline
from tasks.start.sections import file_of, gate_rules
from tasks.start.sizes import power_of
from tasks.start.yaml_out import to_yaml


def init(*, source: Path, name: str | None, force: bool, config: Path, as_json: bool) -> int:
    """Write the file, checked by the loader first; say what was inferred and what was not.

    Raises:
        ConfigError: TG0166 the settings are nobody's that is known, TG0167 and TG0168 the file holds too little,
            TG0169 there is a pipelines.yaml already, or the name is none.
        DataError: the file cannot be read.
    """
    target = config.absolute()
    if target.exists() and not force:
        raise ConfigError(
            f"{config} is there already", code="TG0169", where=str(target),
            hint="--force replaces it, --config OTHER.yaml writes elsewhere",
        )  # fmt: skip
    if is_settings(source):
        translated = translate(source, name=name, root=target.parent)
        _write(target, to_yaml(translated.section))
        _tell_translation(translated, config, as_json=as_json)
    else:
        proposal = propose_pipeline(source, name=name, root=target.parent)
        _write(target, to_yaml(file_of(proposal)))
        _tell_proposal(proposal, config, as_json=as_json)
    return 0


def _write(target: Path, text: str) -> None:
    """Let the loader judge the text before it takes its place.

    Raises:
        ConfigErrors: the name of the pipeline is none, say; nothing was written.
    """
    with tempfile.TemporaryDirectory(prefix="tunegate-init-") as aside:
        path = Path(aside) / target.name
        path.write_text(text, encoding="utf-8")
        load_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text.encode())


def _tell_proposal(proposal: Proposal, config: Path, *, as_json: bool) -> None:
    rules = power_of(gate_rules(proposal), proposal.sizes.max_items)
    if as_json:
        print_json(
            {
                "kind": "tickets", "file": str(config), "pipeline": proposal.name, "n_rows": proposal.look.n_rows,
                "shape": proposal.roles.shape,
                "columns": {role.column: asdict(role) for role in proposal.roles.found},
                "left_out": list(proposal.roles.left_out), "faulty_share": proposal.faulty_share,
                "sizes": {**asdict(proposal.sizes), "gate_works": proposal.sizes.gate_works},
                "gate": [{**asdict(rule), "underpowered": rule.underpowered} for rule in rules],
            }
        )  # fmt: skip
        return
    out().print(f"{config}: pipeline {proposal.name}, {proposal.look.n_rows:,} rows ({proposal.roles.told})")
    for role in proposal.roles.found:
        mark = "CHECK " if role.guessed else ""
        out().print(f"  {role.column:<12} {mark}{role.name}: {role.evidence}", markup=False)
    _tell_gate(proposal)
    talk().print(f"next: tunegate validate, then tunegate curate {proposal.name}", markup=False)


def _tell_gate(proposal: Proposal) -> None:
    if proposal.sizes.gate_works:
        out().print(f"  gate         {proposal.metric}: {proposal.sizes.told}", markup=False)
    else:
        talk().print(f"[yellow]warning[/yellow] {escape(proposal.sizes.told)}", soft_wrap=True)


def _tell_translation(translated: Translation, config: Path, *, as_json: bool) -> None:
    fates: dict[str, list[dict[str, Any]]] = {"mapped": [], "not_needed": [], "not_supported": []}
    for each in translated.fates:
        fates[each.outcome].append({"key": each.key, "told": each.told})
    if as_json:
        print_json({"kind": translated.kind, "file": str(config), "pipeline": translated.name, **fates})
        return
    out().print(f"{config}: pipeline {translated.name}, from settings of {translated.kind}", markup=False)
    for outcome, rows in fates.items():
        for row in rows:
            out().print(f"  {outcome.replace('_', ' '):<13} {row['key']}: {row['told']}", markup=False)
    talk().print(f"next: tunegate validate, then tunegate plan {translated.name}", markup=False)
