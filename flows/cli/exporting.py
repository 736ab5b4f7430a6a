"""`tunegate model export`: a candidate in another program's form, and how far it was let into service."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config
from flows.cli.output import Result, TextTable, make_folder_for, note, warn
from flows.cli.progress import report_step
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger, open_store
from flows.views.resolve_candidate import ResolvedCandidate, aliases_of, resolve_candidate
from flows.views.run_reader import spec_of
from flows.workspace.disk import named_disk_errors
from flows.workspace.settings import load_settings
from schemas.artifacts import Artifact, DatasetRef, PromptSet, Splits
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, StorageError
from schemas.export import ExportOrigin
from schemas.load import load_file
from tasks.plugins import load_plugins
from tasks.release.export import Export, export_candidate, export_together, format_names
from tasks.release.export_format import Exported, ExportFormat, Stored, format_of
from tasks.release.signing import check_signing_key, sign_folder

A = TypeVar("A", bound=Artifact)


def complete_format(incomplete: str) -> list[str]:
    """Names of formats for the shell."""
    load_plugins("tunegate.exports")
    return [name for name in format_names() if name.startswith(incomplete)]


@command(example="tunegate model export support-replies@champion --format merged --out handed-out", computes=True)
def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run id (or its start), PIPELINE@champion, @previous or @VERSION; several of one base for vllm.",
            show_default=False,
        ),
    ],
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            autocompletion=complete_format,
            help="What to write, such as peft or vllm; an unknown word lists all.",
        ),
    ] = "peft",
    stored: Annotated[Stored, typer.Option(help="Weights of `merged` and `ollama`.")] = "bfloat16",
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Sign the folder with this private EC key (extra `signing`).")
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Write a candidate for other programs, with a manifest.

    The export is complete and compared with what the gate judged.
    """
    done, signature = export_model(tuple(runs), form, to, config=config, stored=stored, sign=sign)
    for origin in done.origins:
        _warn_if_unpromoted(origin)
    signed = {} if signature is None else {"signature": str(signature)}
    folder = {"folder": str(done.folder.root), "sha256": done.folder.digest, "files": dict(done.folder.files)}
    listed = [origin.model_dump() for origin in done.origins]
    data = {**folder, **signed, **(listed[0] if len(listed) == 1 else {"exports": listed})}
    return Result(data, _text(done, signature))


def export_model(
    what: tuple[str, ...], form: str, to: Path, *, config: Path, stored: Stored, sign: Path | None
) -> tuple[Export, Path | None]:
    """Write the folder `to`; returns what is in it, and its signature. What is done is printed.

    Args:
        what: A run, or a version of a pipeline; several only for vLLM, of one base.
        stored: Type of the weights of `merged` and `ollama`.

    Raises:
        ConfigError: TG0139, several candidates for another program than vLLM; TG0159, there is nothing verified of
            that name, or its run's configuration cannot be read; TG0185, there is no such format, or its training set
            was never redacted; and as `tasks.release.export.export_candidate` and `export_together`.
        StorageError: TG0580 or TG0581, the ledger was altered or is another one.
        SecurityError: TG0824, and ConfigError: TG0112, it cannot be signed; raised before anything is written.
    """
    load_plugins("tunegate.exports")
    chosen = format_of(form)
    if len(what) > 1 and form != "vllm":
        raise ConfigError(
            f"{len(what)} candidates are named, and only --format vllm takes several", code="TG0139",
            where="export", hint="export one at a time",
        )  # fmt: skip
    settings = load_settings(config)
    ledger = open_ledger(settings)
    found = [resolve_candidate(each, ledger, load_file(config)) for each in what]
    spec = spec_of(found[0].run)
    if chosen.holds_tickets and not any(isinstance(step, RedactStep) for step in spec.curate.steps):
        raise ConfigError(
            "the training set was never redacted, and only redacted texts leave the house",
            code="TG0185",
            where=f"{spec.name}.curate.steps",
            hint="add `- {uses: redact}` to the steps and run the pipeline again",
        )
    if sign is not None:
        check_signing_key(sign)
    store = open_store(settings)
    sources = [replace(_source(named, ledger, store, stored), report=report_step) for named in found]
    origins = [_origin(named, chosen, source) for named, source in zip(found, sources, strict=True)]
    make_folder_for(to)
    try:
        with named_disk_errors(to.absolute().parent):
            if len(sources) > 1:
                done = export_together(sources, origins, out=to)
            else:
                done = export_candidate(sources[0], origins[0], out=to)
            signature = sign_folder(done.folder.root, key=sign) if sign is not None else None
    except StorageError as error:
        marks = [mark for each in found for mark in ledger.marked(each.row.ref.name, each.row.ref.version)]
        if error.code == "TG0510" and marks:  # no run of this version makes them again
            error.hint = f"{marks[-1].summary}; `tunegate run {spec.name}` trains a version without those tickets"
        raise
    return done, signature


def _source(named: ResolvedCandidate, ledger: Ledger, store: Store, stored: Stored) -> Exported:
    digests = {step.step: step.digest for step in ledger.steps(named.run.run_id)}

    def result(step: str, folder: str, kind: type[A]) -> A | None:
        return store.with_digest(folder, digests[step], kind) if digests.get(step) else None

    ref = named.row.ref
    return Exported(
        model=ref.model,
        trained=ref.trained,
        bundle=ref.bundle,
        prompts=result("prompts_tuned", "prompts", PromptSet),
        dataset=result("chosen_dataset" if "chosen_dataset" in digests else "encode", "encode", DatasetRef),
        splits=result("passages", "passages", Splits) or result("decontaminate", "decontaminate", Splits),
        aliases=tuple(alias for alias, version in aliases_of(ledger, ref.name).items() if version == ref.version),
        version=ref.version,
        verdict=f"**{named.row.verdict}**. {named.row.reason}",
        stored=stored,
    )


def _origin(named: ResolvedCandidate, form: ExportFormat, source: Exported) -> ExportOrigin:
    row, run = named.row, named.run
    return ExportOrigin(
        format=form.name,
        name=row.ref.name,
        version=row.ref.version,
        standing=named.standing,
        promoted=named.standing != "never promoted",
        let_in_by=named.let_in_by,
        verdict=row.verdict,
        reason=row.reason,
        run_id=run.run_id,
        pipeline=run.pipeline,
        method=row.ref.trained.method,
        base_uri=row.ref.model.uri,
        base_sha256=row.ref.model.digest,
        trained_sha256=row.ref.trained.digest,
        bundle_sha256=row.ref.bundle.digest,
        verdict_sha256=row.ref.verdict_digest,
        run_sha256=run.input_digest,
        training_set_sha256=source.dataset.digest if form.holds_tickets and source.dataset else "",
    )


def _warn_if_unpromoted(origin: ExportOrigin) -> None:
    """A line on stderr about a version that the gate did not let in."""
    name = f"{origin.name} v{origin.version}"
    if not origin.promoted:
        warn(f"{name} was never promoted (verdict {origin.verdict}): the manifest says so; do not put it into service")
    elif origin.let_in_by == "force":
        note(f"{name} was promoted past the gate")


def _text(done: Export, signature: Path | None) -> Iterator[Any]:
    """The files and their digest."""
    for origin in done.origins:
        yield f"{origin.name} v{origin.version} ({origin.standing}) as {origin.format}: {done.folder.root}"
    yield TextTable(
        [{"file": name, "bytes": f"{size:,}"} for name, size in done.folder.files.items()], ("file", "bytes")
    )
    measured = {name: value for origin in done.origins for name, value in origin.checked.items()}
    yield f"sha256 of the manifest's files: {done.folder.digest}"
    if measured:
        yield f"checked: {', '.join(f'{name} {value:.4g}' for name, value in measured.items())}"
    if signature is not None:
        yield f"signed: {signature}"
