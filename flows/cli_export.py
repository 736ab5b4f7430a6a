"""`tunegate export`: arguments; the work is in `flows/commands/export.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli_options import CONFIG, Config, Json, call

Candidate = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run id (or its start), PIPELINE@champion, @previous or @VERSION.", show_default=False
    ),
]


def add_export_commands(app: typer.Typer) -> None:
    """Give the application the commands that hand a candidate out."""
    app.command()(export)


def export(
    run: Candidate,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    form: Annotated[
        Literal["peft", "merged", "gguf", "ollama", "vllm", "openai-jsonl"],
        typer.Option("--format", "-f", help="Whose form."),
    ] = "peft",
    stored: Annotated[Literal["bfloat16", "float32"], typer.Option(help="Weights of `merged`.")] = "bfloat16",
    gguf_type: Annotated[
        Literal["f16", "bf16", "f32", "q8_0"], typer.Option(help="Matrices of `gguf` and `ollama`.")
    ] = "f16",
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Write a candidate for other programs: complete, compared with what the gate judged, with a manifest."""
    return call(
        "export", "export", run=run, form=form, to=to, stored=stored, gguf_type=gguf_type, config=config,
        as_json=as_json,
    )  # fmt: skip
