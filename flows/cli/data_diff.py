"""`tunegate data diff`: what changed between two states of the tickets. `plan --against` prints the same."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, complete_pipeline
from flows.cli.output import Result, TextLine, TextTable, note, write_file
from flows.views.data_diff import DataDiff, diff_states, find_state
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.curate.cards.diff_page import draw_diff
from tasks.curate.redaction.personal import LABEL_COLUMNS

State = Annotated[
    str,
    typer.Argument(
        help="A run or a snapshot (or the start of its id), a day, or PIPELINE@champion, @previous, @VERSION.",
        show_default=False,
    ),
]
MAX_ROWS = 15
"""Of a table in the text; JSON and the page have all."""


@command(example="tunegate data diff @champion 20261126-074621 --out diff.html")
def diff(
    before: State,
    after: State,
    pipeline: Annotated[
        str | None, typer.Option(help="Of days and @names, if the file has several.", autocompletion=complete_pipeline)
    ] = None,
    count_by: Annotated[str, typer.Option(help=f"Label to count by: {', '.join(LABEL_COLUMNS)}.")] = "category",
    samples: Annotated[int, typer.Option("--samples", "-n", min=0, max=1000, help="Tickets shown of each kind.")] = 3,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a page here as well.", show_default=False)
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Show which tickets two states do not share, and why.

    Added, gone, changed and moved between splits, with the step that did it, by column and label. Samples are redacted
    curated tickets.
    """
    if count_by not in LABEL_COLUMNS:
        allowed = ", ".join(LABEL_COLUMNS)
        raise ConfigError(f"no label {count_by!r}; allowed: {allowed}", code="TG0139", where="--count-by")
    loaded, settings = load_file(config), load_settings(config)
    states = [find_state(each, settings, loaded, pipeline=pipeline) for each in (before, after)]
    if states[0].pipeline != states[1].pipeline:
        note(f"these are tickets of two pipelines: {states[0].pipeline} and {states[1].pipeline}")
    found = diff_states(states[0], states[1], label=count_by, n_samples=samples)
    if to is not None:
        write_file(to, draw_diff(found.to_json()).encode(), replace=True)
        note(f"page: {to}")
    return Result(found.to_json(), diff_text(found))


def diff_text(found: DataDiff) -> Iterator[Any]:
    """Both states, then what differs, from the whole to single tickets."""
    tables = found.tables
    for name, head, sizes in (("before", found.before, tables.before), ("after", found.after, tables.after)):
        splits = ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "validation", "test"))
        yield f"{name:<7} {head_line(head)}: {counted(sizes['all'], 'ticket')} ({splits})"
    if tables.is_empty:
        yield "the same tickets, in the same splits"
        return
    yield ", ".join(f"{n:,} {kind}" for kind, n in tables.counts.items())
    yield from _table("added: why they were not there before", tables.added, ("split", "step", "code", "n"))
    yield from _table("gone: what leaves them out", tables.gone, ("split", "step", "code", "n"))
    yield from _table("changed: column, and what changed it", tables.changed, ("column", "by", "n"))
    yield from _table("moved between splits", tables.moved, ("before", "after", "n"))
    differ = [row for row in tables.values if any(row[kind] for kind in ("added", "gone", "changed", "moved"))]
    yield from _table(f"by {tables.label}", differ, None)
    for kind, rows in tables.samples.items():
        if rows:
            yield TextLine(f"\n{kind}, for example", "bold")
            yield from _samples(rows)


def head_line(head: Mapping[str, str]) -> str:
    """One state in words.

    >>> head_line({"asked": "@champion", "pipeline": "small", "snapshot": "ab12", "run": "r1", "made_at": ""})
    '@champion, small, snapshot ab12, run r1'
    """
    named = [f"{name} {head[name]}" for name in ("snapshot", "run") if head[name] and head[name] != head["asked"]]
    return ", ".join([*([head["asked"]] if head["asked"] else []), head["pipeline"], *named])


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> Iterator[Any]:
    if not rows:
        return
    yield TextLine(f"\n{title}", "bold")
    yield TextTable(rows[:MAX_ROWS], columns)
    if len(rows) > MAX_ROWS:
        yield f"and {len(rows) - MAX_ROWS:,} more: --json"


def _samples(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield ""
        for name, value in row.items():
            if name != "columns":
                yield f"{name:<10} {value}"
                continue
            for column, values in value.items():
                yield f"{column:<10} - {values['before']}"
                yield f"{'':<10} + {values['after']}"
