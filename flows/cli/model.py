"""`tunegate model`: registered models, from the decisions about them to their use."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.command import command, group
from flows.cli.options import CONFIG, By, Config, Expect, Json, Pipeline, Pipelines, Reason, RunArgument, login
from flows.cli.output import note, out, print_json, print_rows, warn
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError, GateError, StorageError

CHAMPION_COLUMNS = ("at", "action", "from_version", "to_version", "verdict", "actor", "reason")
SHOWN_REFUSALS = 5
"""Refused lines of feedback that are printed."""
FEEDBACK_WAIT_S = 60.0
"""An endpoint that takes feedback holds the database for moments; lines that are given up may never come again."""

app = group("Champions: decide, roll back, export, serve.")


def complete_format(incomplete: str) -> list[str]:
    """Names of formats for the shell."""
    from tasks.release.export import format_names

    return [name for name in format_names() if name.startswith(incomplete)]


@command(app, example="tunegate model champion support-replies")
def champion(pipeline: Pipeline, config: Config = CONFIG, as_json: Json = False) -> int:
    """Show the champion and how it came to be."""
    from flows.cli.decisions import registry_of

    _, ledger, name = registry_of(pipeline, config)
    current = ledger.champion(name)
    events = [asdict(event) for event in ledger.history(name)]
    marks = {mark.version: mark.summary for mark in ledger.marked(name)}
    if as_json:
        shown = current and current.model_dump(mode="json")
        print_json({"name": name, "champion": shown, "history": events, "marked": marks})
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
    print_rows(events, CHAMPION_COLUMNS)
    return 0


@command(app, example="tunegate model history support-replies --verify")
def history(
    pipeline: Pipeline,
    verify: Annotated[bool, typer.Option("--verify", help="Only check the chain of hashes.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show every decision about the champion, and check the ledger.

    Who, why, which digests, forced or not, oldest first. The chain of hashes and the champion's files are checked
    before anything is shown.
    """
    from flows.cli.decisions import history_json, print_history, read_history

    found = read_history(pipeline, config)
    if as_json:
        print_json(history_json(found, verify_only=verify))
    else:
        print_history(found, verify_only=verify)
    return 0


@command(app, example="tunegate model promote support-replies 3 --force --reason 'hand-checked on 200 tickets'")
def promote(
    pipeline: Pipeline,
    version: Annotated[str, typer.Argument(help="Version of a candidate.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Skip the gate; the history says so.")] = False,
    accept_uncompared: Annotated[
        bool, typer.Option("--accept-uncompared", help="Accept the verdict UNCOMPARED; the history says so.")
    ] = False,
    reason: Reason = "",
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Make a candidate champion past the gate, on the record."""
    from flows.champion.mlflow_sync import decide
    from flows.cli.decisions import registry_of, report_decision
    from tasks.release.bundle import check_evaluated

    settings, ledger, name = registry_of(pipeline, config)
    if not force and not accept_uncompared:
        raise GateError(
            "a promotion by hand skips the gate, and nothing was said to skip it",
            code="TG0621",
            where=pipeline,
            hint="--force --reason '...' does and is kept in the history, as is --accept-uncompared after the verdict "
            "UNCOMPARED; `tunegate model approve RUN` lets in what waits",
        )
    current = ledger.champion(name)
    row = ledger.candidate(name, version) if version.isdecimal() else None
    if row is not None:
        check_evaluated(row.ref.bundle, row.ref.trained)
    expected = expect or (current.version if current else None)
    event, late = decide(
        ledger, settings, name,
        lambda: ledger.force(
            name, expected=expected, version=version, reason=reason, actor=by or login(), uncompared=accept_uncompared
        ),
    )  # fmt: skip
    verdict = f"; the gate had said {event.verdict}" if event.verdict not in ("", "PROMOTE") else ""
    sentence = f"champion of {name} is v{event.to_version}, {event.action} by {event.actor}{verdict}"
    return report_decision(event, sentence, late, as_json=as_json)


@command(app, example="tunegate model approve 20261126-074621 --by ada")
def approve(
    run_id: RunArgument,
    by: Annotated[str, typer.Option(help="Who decides; kept in the history.", show_default=False)],
    reject: Annotated[bool, typer.Option("--reject", help="Keep the candidate out.")] = False,
    reason: Reason = "",
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Let in a candidate that waits for a person, or keep it out.

    The answer goes to the ledger, to MLflow, and to Prefect if the run is suspended there.
    """
    from flows.champion.approvals import ApprovalAnswer, answer
    from flows.cli.decisions import report_decision, resume_in_prefect
    from flows.ledger.open import open_ledger

    settings = load_settings(config)
    ledger = open_ledger(settings)
    row = ledger.run(run_id)
    event, late = answer(ledger, settings, row.run_id, ApprovalAnswer(not reject, by.strip(), reason, expect))
    resume_in_prefect(row.prefect_run_id, settings, approve=not reject, by=by, reason=reason)
    sentence = (
        f"v{event.to_version} of {event.name} was rejected by {event.actor}; the champion stays"
        if event.action == "reject"
        else f"champion of {event.name} is v{event.to_version}, {event.action} by {event.actor}"
    )
    return report_decision(event, sentence, late, as_json=as_json)


@command(app, example="tunegate model rollback support-replies --reason 'complaints since Monday'")
def rollback(
    pipeline: Pipeline,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.", show_default=False)],
    to: Annotated[str | None, typer.Option(help="Version; the previous champion if not given.")] = None,
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Make an earlier champion champion again; a cooldown begins."""
    from flows.champion.mlflow_sync import decide
    from flows.cli.decisions import check_bundle, registry_of, report_decision
    from flows.ledger.rows import MOVES
    from schemas.load import load_file

    settings, ledger, name = registry_of(pipeline, config)
    check_bundle(ledger, name, to)
    days = load_file(config).get(pipeline).registry.cooldown_days
    back, late = decide(
        ledger, settings, name,
        lambda: ledger.rollback(
            name, reason=reason, to=to, actor=by or login(), cooldown_days=days, expected=expect
        ),
    )  # fmt: skip
    event = next(event for event in reversed(ledger.history(name)) if event.action in MOVES)
    rest = f"; promotions need a person until {event.until}" if event.until else ""
    return report_decision(event, f"champion of {name} is v{back.version} again{rest}", late, as_json=as_json)


@command(app, example="tunegate model export support-replies@champion --format merged --out handed-out")
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
    stored: Annotated[
        Literal["bfloat16", "float32"], typer.Option(help="Weights of `merged` and `ollama`.")
    ] = "bfloat16",
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Sign the folder with this private EC key (extra `signing`).")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Write a candidate for other programs, with a manifest.

    The export is complete and compared with what the gate judged.
    """
    from flows.cli.exporting import export_model, print_export, warn_if_unpromoted

    done, signature = export_model(tuple(runs), form, to, config=config, stored=stored, sign=sign)
    for origin in done.origins:
        warn_if_unpromoted(origin)
    if as_json:
        signed = {} if signature is None else {"signature": str(signature)}
        folder = {"folder": str(done.root), "sha256": done.digest, "files": dict(done.files)}
        listed = [origin.model_dump() for origin in done.origins]
        print_json({**folder, **signed, **(listed[0] if len(listed) == 1 else {"exports": listed})})
    else:
        print_export(done, signature)
    return 0


@command(app, example="tunegate model verify handed-out --key release.pem")
def verify(
    folder: Annotated[Path, typer.Argument(help="An exported folder.", show_default=False)],
    key: Annotated[Path | None, typer.Option(metavar="PUB.pem", help="Public key of who should have signed.")] = None,
    signature: Annotated[Path | None, typer.Option(help="The signature; FOLDER.sig if not given.")] = None,
    as_json: Json = False,
) -> int:
    """Compare an exported folder with its manifest and signature."""
    import orjson

    from tasks.release.signing import check_signature, signature_of
    from tasks.storage.files import MANIFEST, verify

    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; the folder of an export is needed",
            code="TG0110", where=str(folder), hint="`tunegate model export PIPELINE@champion --out FOLDER` writes one",
        )  # fmt: skip
    try:
        digest = verify(folder)
    except StorageError as error:
        error.hint = "`tunegate model export PIPELINE@champion --out OTHER` writes another; do not use this one"
        raise
    if key is not None:
        check_signature(folder, key=key, signature=signature)
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    origins = manifest.get("exports") or [manifest.get("export") or {}]
    shown = [{name: each.get(name) for name in ("name", "version", "standing", "format", "run_id")} for each in origins]
    if as_json:
        listed = shown[0] if len(shown) == 1 else {"exports": shown}
        print_json({"folder": str(folder), "sha256": digest, "signed": key is not None, **listed})
        return 0
    out().print(f"whole: every file has its sha256 ({digest})")
    for each in shown:
        out().print(f"{each['name']} v{each['version']}, {each['standing']}, as {each['format']}", markup=False)
    if key is not None:
        out().print(f"signed by the holder of {key}", markup=False)
    else:
        unchecked = (signature or signature_of(folder)).is_file()
        note("its signature was not checked: give --key" if unchecked else "it is not signed")
    return 0


@command(app, example="tunegate model endpoint support-replies --port 8399")
def endpoint(
    pipelines: Pipelines,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback TUNEGATE_ENDPOINT_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8399,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of one answer.")] = 1024,
    rate: Annotated[int, typer.Option(min=1, help="Most requests of one token per second.")] = 100,
    candidates: Annotated[bool, typer.Option("--candidates", help="Also versions never promoted.")] = False,
    no_token: Annotated[bool, typer.Option("--no-token", help="Answer any caller; on loopback only.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Serve the champion over an OpenAI-compatible API.

    Its predecessor and named versions, too, until interrupted. Callers need a token, unless --no-token. Several
    pipelines share one base in memory; each has the token TUNEGATE_ENDPOINT_TOKEN_NAME.
    """
    from flows.cli.endpoint import EndpointRequest, run_endpoint

    request = EndpointRequest(
        tuple(pipelines), config, host=host, port=port, max_tokens=max_tokens, rate=rate, candidates=candidates,
        no_token=no_token, as_json=as_json,
    )  # fmt: skip
    return run_endpoint(request)


@command(app, example="tunegate model feedback support-replies outcomes.jsonl")
def feedback(
    pipeline: Pipeline,
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines: ticket_id, version, outcome, at, reply; stdin if `-`.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Record what agents did with suggestions; show acceptance.

    Without a file, it only shows how often each version's suggestions were accepted.
    """
    from flows.registry.feedback import acceptance, take_in_file
    from schemas.load import load_file

    spec, settings = load_file(config).get(pipeline), load_settings(config)
    taken = None if file is None else take_in_file(file, spec=spec, settings=settings, wait_s=FEEDBACK_WAIT_S)
    rows = [{**each.model_dump(), "rate": each.rate} for each in acceptance(spec, settings.home)]
    if as_json:
        print_json(
            {"name": spec.registry.name, "ingested": None if taken is None else taken.to_json(), "versions": rows}
        )
        return 0
    if taken is not None:
        out().print(
            f"{counted(taken.n_lines, 'line')}: {taken.n_new} new, {taken.n_known} known, {len(taken.refused)} refused"
        )
        for number, why in taken.refused[:SHOWN_REFUSALS]:
            warn(f"line {number} refused: {why}")
    shown = [{**row, **{column: f"{row[column]:.3f}" for column in ("rate", "lower", "upper")}} for row in rows]
    print_rows(shown, ("version", "n", "n_accepted", "rate", "lower", "upper"))
    if spec.feedback is None:
        note(f"{pipeline} declares no `feedback`: it is kept, and no run uses it")
    return 0
