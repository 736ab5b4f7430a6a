"""`tunegate graph`, `estimate`, `preview`, `reproduce`: before and after a training; they are in `flows/commands/`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call


def add_planning_commands(app: typer.Typer) -> None:
    """Give the application the commands around a training."""
    for command in (graph, estimate, preview, reproduce):
        app.command()(command)


def graph(
    pipeline: Pipeline,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print it as a Mermaid flowchart.")] = False,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="As this run left it: a run id, or the start of one.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Draw the pipeline's steps and what they take from each other: reused, left out, or to be run; writes nothing."""
    return call(
        "graph", "graph", pipeline=pipeline, run_id=run, as_mermaid_text=mermaid, config=config, as_json=as_json
    )


def estimate(
    pipeline: Annotated[str | None, typer.Argument(help="A pipeline, or give --base.", show_default=False)] = None,
    base: Annotated[str | None, typer.Option(help="A known base model, e.g. llama-3.1-8b.", show_default=False)] = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, with --base.")] = 16,
    target: Annotated[
        list[str] | None, typer.Option(help="Adapted layer, with --base; repeat. All linear ones if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step, with --base.")] = 1,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of the longest example, with --base.")] = 512,
    checkpointing: Annotated[bool, typer.Option(help="Gradient checkpointing, with --base.")] = True,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Say which method fits which card: trainable weights and memory by term, from the shapes alone."""
    return call(
        "estimate", "estimate", pipeline=pipeline, base=base, rank=rank, targets=target or [], batch_size=batch_size,
        max_length=max_length, checkpointing=checkpointing, config=config, as_json=as_json,
    )  # fmt: skip


def preview(
    pipeline: Pipeline,
    n: Annotated[int, typer.Option("-n", "--examples", min=1, max=1000, help="Examples to show.")] = 3,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show train examples as the model sees them: text, token ids, and which tokens carry loss."""
    return call("preview", "preview", pipeline=pipeline, n_examples=n, config=config, as_json=as_json)


def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Do a run's data and training steps once more and compare every byte; exit code 1 at the first difference."""
    return call("reproduce", "reproduce", run_id=run_id, config=config, as_json=as_json)
