"""`tunegate export`, `verify` and `endpoint`: arguments; the work is in `flows/commands/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call

Candidate = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run id (or its start), PIPELINE@champion, @previous or @VERSION.", show_default=False
    ),
]


def add_export_commands(app: typer.Typer) -> None:
    """Give the application the commands that hand a candidate out."""
    for command in (export, endpoint):
        app.command()(command)
    app.command("verify")(verify_export)


def complete_format(incomplete: str) -> list[str]:
    """Names of formats for the shell; `gguf` names llama.cpp's converter."""
    from tasks.release.export import format_names

    return [name for name in (*format_names(), "gguf") if name.startswith(incomplete)]


def export(
    run: Candidate,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            autocompletion=complete_format,
            help="What to write, such as peft or vllm; an unknown word lists all.",
        ),
    ] = "peft",
    stored: Annotated[
        Literal["bfloat16", "float32"], typer.Option(help="Weights of `merged` and `ollama`.")
    ] = "bfloat16",
    _gguf_type: Annotated[str | None, typer.Option("--gguf-type", hidden=True, help="Removed with `-f gguf`.")] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY.pem", help="Sign the folder with this private EC key (extra `signing`)."),
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Write a candidate for other programs: complete, compared with what the gate judged, with a manifest."""
    return call(
        "export", "export", run=run, form=form, to=to, stored=stored, sign=sign, config=config,
        as_json=as_json,
    )  # fmt: skip


def verify_export(
    folder: Annotated[Path, typer.Argument(help="An exported folder.", show_default=False)],
    key: Annotated[Path | None, typer.Option(metavar="PUB.pem", help="Public key of who should have signed.")] = None,
    signature: Annotated[Path | None, typer.Option(help="The signature; FOLDER.sig beside it if not given.")] = None,
    as_json: Json = False,
) -> int:
    """Compare an exported folder with its manifest, and with its signature where a key is given."""
    return call("verify", "verify_export", folder=folder, key=key, signature=signature, as_json=as_json)


def endpoint(
    pipeline: Pipeline,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback TUNEGATE_ENDPOINT_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8399,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of one answer.")] = 1024,
    candidates: Annotated[bool, typer.Option("--candidates", help="Also versions never promoted.")] = False,
    no_token: Annotated[bool, typer.Option("--no-token", help="Answer whoever calls; on loopback only.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Answer OpenAI-compatible requests with the champion, its predecessor and named versions, until interrupted."""
    return call(
        "endpoint", "endpoint", pipeline=pipeline, host=host, port=port, max_tokens=max_tokens, candidates=candidates,
        no_token=no_token, config=config, as_json=as_json,
    )  # fmt: skip
