"""`tunegate predict`: a ticket from a file or stdin, and the champion's answer."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextLine
from flows.ledger.open import open_ledger
from flows.workspace.settings import load_settings
from schemas.artifacts import ChampionRef
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.regular_file import open_regular
from tasks.curate.redact import redact_row
from tasks.sources.readers.records import MAX_ROW_BYTES
from tasks.storage.sealed_folder import verify

if TYPE_CHECKING:
    from tasks.release.routing import Routing


@command(example="tunegate predict support-replies --file ticket.txt", computes=True)
def predict(
    pipeline: Pipeline,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Ticket text; stdin if not given.")] = None,
    subject: Annotated[str, typer.Option(help="Subject line of the ticket.")] = "",
    config: Config = CONFIG,
) -> Result:
    """Let the champion answer a ticket, redacted as it was trained."""
    spec = load_file(config).get(pipeline)
    champion = open_ledger(load_settings(config)).champion(spec.registry.name)
    if champion is None:
        raise no_champion(spec)
    reply, routing = answer_ticket(spec, champion, subject=subject, body=read_ticket(file))
    data = {"name": spec.registry.name, "version": champion.version, "reply": reply}
    if routing is None:
        return Result(data, [reply])
    probability = "" if routing.probability is None else f" (probability {routing.probability:.4f})"
    return Result(data | routing.to_json(), [reply, TextLine(f"{routing.action}{probability}: {routing.reason}")])


def no_champion(spec: PipelineSpec) -> ConfigError:
    """The error for a pipeline without a champion."""
    return ConfigError(
        f"{spec.registry.name} has no champion yet", code="TG0159", where=spec.name, hint=f"tunegate run {spec.name}"
    )


def read_ticket(file: Path | None) -> str:
    """The text of a ticket; of stdin where no file is given.

    Raises:
        ConfigError: TG0110, it cannot be read; TG0164, it is empty.
    """
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


def answer_ticket(
    spec: PipelineSpec, champion: ChampionRef, *, subject: str, body: str
) -> "tuple[str, Routing | None]":
    """Answer one ticket as the gate saw the champion answer, redacted as the held-out tickets were, and route it.

    Raises:
        StorageError: TG0510, the champion's files are damaged.
    """
    for artifact in (champion.bundle, champion.model):
        verify(artifact.root)
    from tasks.release.serve import load_bundle  # torch: only for files that are whole

    served = load_bundle(champion.bundle.root, base=champion.model.root)
    ticket: dict[str, str | None] = {"subject": subject, "body": body}
    for step in spec.curate.steps:
        if isinstance(step, RedactStep):
            ticket, _ = redact_row(ticket, step)
    return served.answer_routed([ticket])[0]
