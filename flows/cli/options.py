"""The arguments and options that several commands have: the same name means the same everywhere."""

import getpass
import re
from pathlib import Path
from typing import Annotated

import typer

CONFIG = Path("pipelines.yaml")
RUN_COLUMNS = ("run_id", "pipeline", "status", "verdict", "started_at", "exit_code", "reason")
"""What is shown of a run, alone or in a list."""


def complete_pipeline(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of pipelines for the shell: two spaces below `pipelines:`.

    Read without the loader, which takes longer than a person waits for a key, and refuses a file that is being edited.
    """
    try:
        text = Path(ctx.params.get("config") or CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    section = re.search(r"^pipelines:.*\n((?:[ #].*\n|\n)*)", text, re.MULTILINE)
    names = re.findall(r"^  ([a-z][a-z0-9-]*):", section[1], re.MULTILINE) if section else []
    return [name for name in names if name.startswith(incomplete)]


Pipeline = Annotated[
    str,
    typer.Argument(help="Name of a pipeline in pipelines.yaml.", show_default=False, autocompletion=complete_pipeline),
]
Pipelines = Annotated[
    list[str],
    typer.Argument(
        metavar="PIPELINE...", help="Names of pipelines in pipelines.yaml.", show_default=False,
        autocompletion=complete_pipeline,
    ),
]  # fmt: skip
PipelineOrBase = Annotated[
    str | None,
    typer.Argument(help="Name of a pipeline; or give --base.", show_default=False, autocompletion=complete_pipeline),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Run id, or the start of one; the newest if not given.")
]
Config = Annotated[Path, typer.Option("--config", "-c", help="The pipelines.yaml to use.", envvar="TUNEGATE_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Markdown = Annotated[
    Path | None,
    typer.Option(metavar="FILE", show_default=False, help="Write the summary for a pull request, in Markdown."),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="REF", show_default=False, help="Name in what the gate is weaker than at this commit."),
]
NoWeaker = Annotated[bool, typer.Option("--no-weaker", help="Judge nothing by a gate that is weaker.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        metavar="DATE", show_default=False,
        help="Use only tickets created by the end of this day, UTC; judge, but never promote.",
    ),
]  # fmt: skip
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", show_default=False,
        help="A setting of train or evaluate for this time only, e.g. train.max_examples=200; repeatable.",
    ),
]  # fmt: skip
Wait = Annotated[float, typer.Option(help="Seconds to wait for another run of the pipeline.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Rows shown at most.")]
Items = Annotated[int, typer.Option(min=0, max=1000, help="Worst held-out items shown; later runs replace them.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]
By = Annotated[str | None, typer.Option(help="Who decides; your login if not given.", show_default=False)]
Expect = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="Do nothing unless this version is champion now.", show_default=False),
]
Base = Annotated[
    str | None, typer.Option(help="A known base model, e.g. llama-3.1-8b, in place of a pipeline.", show_default=False)
]
Metric = Annotated[
    str | None, typer.Option(help="Metric to look at; by default that of a gate rule.", show_default=False)
]


def login() -> str:
    """The login's name, the default of `--by`; in a container there may be none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "command line"
