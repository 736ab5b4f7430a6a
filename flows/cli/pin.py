"""`tunegate pin`: from a branch of the hub to a commit, the only lookup of one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config
from flows.cli.output import Result, talk, write_file
from schemas.counted import counted
from schemas.diagnostics import read_source
from schemas.yaml_text import MAX_BYTES, MAX_LINE
from tasks.model.hub_commit import parse_hub_name, resolve_commit


@command(example="tunegate pin HuggingFaceTB/SmolLM2-135M-Instruct@main")
def pin(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME@REVISION", show_default=False, help="main if not given.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="It is a dataset, not a model.")] = False,
    write_it: Annotated[
        bool, typer.Option("--save", help="Replace the model's address in pipelines.yaml, wherever it is.")
    ] = False,
    config: Config = CONFIG,
) -> Result:
    """Look up the commit that a branch of the hub is now.

    A branch moves, so pipelines.yaml names commits. No other command asks the hub for one.
    """
    repo, revision = parse_hub_name(name)
    commit = resolve_commit(repo, revision, kind="dataset" if dataset else "model")
    saves = write_it and not dataset
    n_replaced = pin_in_file(config, repo, commit) if saves else 0

    def text() -> Iterator[str]:
        yield f"path: {repo}\nrevision: {commit}" if dataset else f"base_model: hf://{repo}@{commit}"
        if saves:
            talk().print(f"{counted(n_replaced, 'address', 'addresses')} replaced in {config}", markup=False)

    return Result({"repo": repo, "revision": revision, "commit": commit, "replaced": n_replaced}, text())


def pin_in_file(config: Path, repo: str, commit: str) -> int:
    """Replace the revision of every `hf://REPO@REVISION` in the file's text; return how many have changed.

    Raises:
        ConfigErrors: TG0110, the file cannot be read.
    """
    text: str = read_source(config, max_bytes=MAX_BYTES, max_line=MAX_LINE).text
    address, pinned = rf"hf://{re.escape(repo)}(?![\w./-])(?:@[\w./-]+)?", f"hf://{repo}@{commit}"
    n_changed: int = sum(each != pinned for each in re.findall(address, text))
    if n_changed:
        write_file(config, re.sub(address, pinned, text).encode(), replace=True)
    return n_changed
