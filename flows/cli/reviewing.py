"""`tunegate data review`: people look at the tickets most worth it, in a file or in the terminal, and correct them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.command import command
from flows.cli.data import failure_of, last_curation
from flows.cli.options import CONFIG, Config, Json, Limit, Pipeline, login
from flows.cli.output import Result, note, out, render, write_file
from flows.ledger.open import open_ledger, open_store
from flows.views.review import Review, loss_source
from flows.workspace.settings import load_settings
from schemas.corrections import Correction
from schemas.counted import counted
from schemas.curation_steps import LabelCheckStep
from schemas.errors import ConfigError, TunegateError
from schemas.load import load_file
from schemas.pipeline import DataPipeline
from tasks.curate.review_rows import ExampleLosses, ReviewAnswer, ReviewRow, read_review, write_review

_KEYS = {"c": "change", "r": "right", "d": "drop", "s": "skip", "q": "quit"}


@command(example="tunegate data review support-replies --write review.csv")
def review(
    pipeline: Pipeline,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows to a .csv or .jsonl file, instead of asking."),
    ] = None,
    read: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read labels made elsewhere from CSV or JSON.", exists=False)
    ] = None,
    rater: Annotated[str | None, typer.Option(help="Who labels; your login if not given.", show_default=False)] = None,
    limit: Limit = 300,
    by_loss: Annotated[
        bool,
        typer.Option("--by-loss", help="Also list train examples by the loss of the last candidate, computed now."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --write names.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Correct the tickets most worth a look, most useful first.

    Label suspects, contradictions and quarantined rows that a correction can let in take turns, and with --by-loss
    the train examples with the highest loss under the last candidate. Decisions are kept in
    the file that `curate.corrections` names; the next run applies them. With --json, only list the rows.
    """
    if write is not None and read is not None:
        raise ConfigError("give --write or --read, not both", code="TG0139", where="--read")
    loaded, name = load_file(config), rater or login()
    with last_curation(pipeline, config) as (database, failed):
        found = Review(loaded.find(pipeline), loaded.root, database)
        shown = {"pipeline": pipeline, **failure_of(failed)}
        if read is not None:
            kept = found.keep(read_review(read, rater=name), where=str(read))
            return _kept(found, kept, shown, as_json=as_json)
        losses = _losses(found.spec, config) if by_loss else None
        rows, counts = found.rows(limit=limit, losses=losses)
        if not any(isinstance(step, LabelCheckStep) for step in found.spec.curate.steps):
            note("`- uses: label_check` in `curate.steps` would find likely label errors")
        if write is not None:
            form = {".csv": "csv", ".jsonl": "jsonl"}.get(write.suffix)
            if form not in ("csv", "jsonl"):
                raise ConfigError(f"no format {write.suffix!r}", code="TG0139", where="--write", hint=".csv or .jsonl")
            write_file(write, write_review(rows, "csv" if form == "csv" else "jsonl"), replace=force)
            write.chmod(0o600)
            declare = "" if found.spec.curate.corrections else "declare `curate.corrections`, "
            fill_in = f"{declare}fill in `decision` (change, right, drop)"
            note(f"{fill_in}, then `tunegate data review {pipeline} --read {write}`")
            written = {**shown, "file": str(write), "n_rows": len(rows), "kinds": counts}
            return render(Result(written, [f"{counted(len(rows), 'row')}: {write}"]), as_json=as_json)
        if as_json:
            listed = [{name: value for name, value in vars(row).items() if name != "text"} for row in rows]
            return render(Result({**shown, "kinds": counts, "rows": listed}), as_json=True)
        _ = found.file  # refused before the first ticket, not after the first decision
        return _kept(found, list(_ask(found, rows, name)), shown, as_json=False)


def _losses(spec: DataPipeline, config: Path) -> ExampleLosses:
    """Compute the losses; first say how much work that is."""
    settings = load_settings(config)
    ledger = open_ledger(settings)
    source = loss_source(spec, ledger, open_store(settings))
    n_examples, n_tokens = source.dataset.n_train, source.dataset.n_tokens
    note(
        f"the model of run {source.candidate.run_id} reads its {counted(n_examples, 'train example')} "
        f"({n_tokens:,} tokens): about a third of an epoch of its training"
    )
    return source.measure()


def _kept(found: Review, made: Sequence[Correction], shown: dict[str, object], *, as_json: bool) -> int:
    counts = {do: sum(each.do == do for each in made) for do in ("set", "drop", "keep")}
    people = sorted({each.by for each in made})
    if made:
        note(f"`tunegate run {found.spec.name}` applies them; commit {found.spec.curate.corrections}")
    text = f"{counted(len(made), 'correction')}: {counts['set']} set, {counts['drop']} drop, {counts['keep']} keep"
    return render(
        Result({**shown, "file": found.spec.curate.corrections, "n": len(made), **counts, "by": people}, [text]),
        as_json=as_json,
    )


def _ask(found: Review, rows: Sequence[ReviewRow], rater: str) -> Iterator[Correction]:
    """Show each row and keep each decision at once."""
    console = out()
    for number, row in enumerate(rows, start=1):
        console.rule(escape(f"{number} of {len(rows)}  {row.ticket_id}  {row.split}"), align="left")
        console.print(row.text, markup=False)
        console.rule(style="dim")
        console.print(f"{row.reason}\n{row.field}: {row.value or 'none'}", markup=False)
        change = f"[c]hange to {row.proposed}   or type the right value" if row.proposed else "type the right value"
        console.print(f"{change if row.field else ''}   [r]ight   [d]rop   [s]kip   [q]uit", markup=False)
        while True:
            line = sys.stdin.readline()
            word = _KEYS.get(line.strip().lower(), line.strip())
            if not line or word == "quit":
                return
            if word == "skip":
                break
            is_new = word not in _KEYS.values()
            answer = ReviewAnswer(
                number=number, by=rater, ticket_id=row.ticket_id, field=row.field, rule=row.rule, old=row.old or None,
                proposed=row.proposed, decision="change" if is_new else word, new=word if is_new else "", why="",
            )  # fmt: skip
            try:
                yield from found.keep([answer], where="terminal")
                break
            except TunegateError as error:
                console.print(f"[yellow]{escape(error.message)}[/yellow]  {escape(error.hint or '')}")
