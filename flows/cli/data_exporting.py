"""`tunegate data export`: curated tickets for other programs, without a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextTable, make_folder_for, note, warn
from flows.views.snapshots import find_snapshot
from flows.workspace.disk import named_disk_errors
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.training import PromptSpec
from tasks.release.data_export import FORMATS, DataExport, export_data


def complete_format(incomplete: str) -> list[str]:
    """Names of formats for the shell."""
    return [name for name in FORMATS if name.startswith(incomplete)]


@command(example="tunegate data export support-replies --format datasets --out support-replies-data")
def export(
    pipeline: Pipeline,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            autocompletion=complete_format,
            help="What to write, such as parquet or chatml; an unknown word lists all.",
        ),
    ] = "parquet",
    snapshot: Annotated[
        str | None, typer.Option(help="A snapshot's id or its start; the published one if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="System message of conversations.")] = None,
    user: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="Their question, such as '{body}'.")] = None,
    answer: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="Their answer, such as '{reply}'.")] = None,
    unredacted: Annotated[bool, typer.Option("--unredacted", help="Also tickets that were never redacted.")] = False,
    config: Config = CONFIG,
) -> Result:
    """Write curated tickets for other programs, with a manifest.

    Any snapshot, without a training. Conversations are made by `train.prompt` of the run, or else of body and reply.
    """
    if form not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise ConfigError(f"no export format {form!r}; allowed: {allowed}", code="TG0185", where="data export --format")
    settings = load_settings(config)
    found = find_snapshot(settings, load_file(config).find(pipeline).name, snapshot, form=form)
    if not found.origin.redacted and not unredacted:
        raise ConfigError(
            "these tickets were never redacted, and only redacted texts leave the house", code="TG0185",
            where=f"{pipeline}.curate.steps", hint="add `- {uses: redact}` and run again, or give --unredacted",
        )  # fmt: skip
    given = {"system": system, "user": user, "answer": answer}
    prompt = _prompt(found.prompt, {name: text for name, text in given.items() if text is not None})
    make_folder_for(to)
    with named_disk_errors(to.absolute().parent):
        done = export_data(found.folder, found.origin, prompt, out=to)
    if found.failed:
        warn(f"run {found.origin.run_id}, which published this state, failed: {found.failed}")
    if form == "csv":
        note("texts are as they are: a spreadsheet runs a cell that begins with =, +, - or @; import them as text")
    if not done.origin.redacted:
        note("personal data were not redacted")
    folder = {"folder": str(done.folder.root), "sha256": done.folder.digest, "files": dict(done.folder.files)}
    return Result({**folder, **done.origin.model_dump()}, _text(done))


def _prompt(declared: PromptSpec, given: dict[str, str]) -> PromptSpec:
    """Return the prompt with these templates in place of its own.

    Raises:
        ConfigError: TG0103, one of them names something that is not a ticket column.
    """
    for name, text in given.items():
        try:
            declared = PromptSpec.model_validate({**declared.model_dump(), name: text})
        except ValueError as error:
            [first, *_] = error.errors() if hasattr(error, "errors") else [{"msg": str(error)}]
            raise ConfigError(
                str(first["msg"]).removeprefix("Value error, "), code="TG0103", where=f"--{name}"
            ) from None
    return declared


def _text(done: DataExport) -> Iterator[Any]:
    origin = done.origin
    yield f"{origin.pipeline}, snapshot {origin.snapshot_id}, as {origin.format}: {done.folder.root}"
    yield TextTable([{"split": split, "rows": f"{n_rows:,}"} for split, n_rows in origin.rows.items()])
    if origin.n_left_out:
        listed = counted(origin.n_left_out, "ticket makes", "tickets make")
        yield f"{listed} no conversation: left_out.jsonl"
    yield f"sha256 of the manifest's files: {done.folder.digest}"
