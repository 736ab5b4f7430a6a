"""`tunegate champion` and `predict`: the model in service."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from flows.commands.output import out, print_json, print_rows, write
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.workspace.settings import load_settings
from schemas.artifacts import ChampionRef
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.regular_file import open_regular
from tasks.curate.redact import redact_row
from tasks.files import verify
from tasks.sources.readers.records import MAX_ROW_BYTES


def champion(*, pipeline: str, config: Path, as_json: bool) -> int:
    """The champion and the history of its name."""
    name = load_file(config).get(pipeline).registry.name
    ledger = open_ledger(load_settings(config))
    current = ledger.champion(name)
    history = [asdict(event) for event in ledger.history(name)]
    marks = {mark.version: mark.summary for mark in ledger.marked(name)}
    if as_json:
        told = current and current.model_dump(mode="json")
        print_json({"name": name, "champion": told, "history": history, "marked": marks})
        return 0
    if current is None:
        out().print(f"{name} has no champion")
        return 0
    out().print(
        f"{name} v{current.version} since {current.promoted_at}: {current.trained.method}, "
        f"{current.trained.n_trainable:,} trained parameters, run {current.run_id}\n{current.bundle.root}\n",
        markup=False,
    )
    if current.version in marks:
        out().print(f"{marks[current.version]}; a retrain is ordered\n", markup=False, soft_wrap=True)
    print_rows(history, ("at", "action", "from_version", "to_version", "actor", "reason"))
    return 0


def predict(*, pipeline: str, file: Path | None, subject: str, config: Path, as_json: bool) -> int:
    """Answer one ticket as the gate saw the champion answer: redacted as the held-out tickets were."""
    spec = load_file(config).get(pipeline)
    name = spec.registry.name
    current = _champion(open_ledger(load_settings(config)), name, pipeline)
    body = _read_ticket(file)
    for artifact in (current.bundle, current.model):
        verify(artifact.root)
    from tasks.release.serve import load_bundle

    served = load_bundle(current.bundle.root, base=current.model.root)
    ticket: dict[str, str | None] = {"subject": subject, "body": body}
    for step in spec.curate.steps:
        if isinstance(step, RedactStep):
            ticket, _ = redact_row(ticket, step)
    reply = served.answer([ticket])[0]
    if as_json:
        print_json({"name": name, "version": current.version, "reply": reply})
    else:
        write(reply + "\n", sys.stdout)
    return 0


def _read_ticket(file: Path | None) -> str:
    where = str(file or "stdin")
    try:
        with nullcontext(sys.stdin.buffer) if file is None else open_regular(file) as stream:
            data = stream.read(MAX_ROW_BYTES + 1)
        if len(data) > MAX_ROW_BYTES:
            raise ConfigError(f"the ticket has more than {MAX_ROW_BYTES >> 20} MiB", code="TG0110", where=where)
        body = data.decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the ticket cannot be read: {what}", code="TG0110", where=where) from None
    if not body:
        raise ConfigError("the ticket is empty", code="TG0164", where=where)
    return body


def _champion(ledger: Ledger, name: str, pipeline: str) -> ChampionRef:
    current = ledger.champion(name)
    if current is None:
        raise ConfigError(f"{name} has no champion yet", code="TG0159", where=pipeline, hint=f"tunegate run {pipeline}")
    return current
