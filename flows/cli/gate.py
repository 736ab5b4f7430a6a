"""`tunegate gate`: verdicts, the labels that they need, and further looks at a held candidate.

Ticket text goes to stdout alone, read from the local store, or to files below the state folder; a note on stderr never
quotes it.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli.command import command
from flows.cli.findings import findings_text
from flows.cli.labels import ask_labels
from flows.cli.options import CONFIG, Config, Items, Json, Metric, RunArgument, Wait, login
from flows.cli.output import Result, TextLine, note, render
from flows.cli.running import run_pipeline
from flows.context.labels import add_votes, read_votes
from flows.context.request import RunRequest
from flows.ledger.open import open_ledger
from flows.records.timings import read_timings
from flows.views.costs import endpoint_timings
from flows.views.given_labels import given_labels
from flows.views.labelling import Labelling, labelling_of
from flows.views.report import report_folder
from flows.views.run_reader import Recorded, shown_finding
from flows.workspace.disk import private_folder, write_private
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError, TunegateError
from schemas.verdicts import Finding
from tasks.assess.label_files import read_sheets, write_sheets
from tasks.assess.worst import WorstItem


@command(example="tunegate gate explain 20261126-074621 --items 3")
def explain(run_id: RunArgument, metric: Metric = None, items: Items = 5, config: Config = CONFIG) -> Result:
    """Explain a verdict, down to the items that decided.

    Each rule with its interval, items won and lost, and the worst items side by side.
    """
    recorded = Recorded(load_settings(config), run_id)
    row, decision = recorded.row, recorded.decision()
    if decision is None:
        raise ConfigError(
            f"run {row.run_id} came to no gate, or its decision is no longer in the store",
            code="TG0159", where=row.run_id, hint=f"`tunegate show {row.run_id}` says how far it came",
        )  # fmt: skip
    figures = read_timings(recorded.settings, "latency", recorded.keys["latency"]) if "latency" in recorded.keys else {}
    figures |= endpoint_timings(recorded)
    finding = shown_finding(decision, metric)
    worst: tuple[WorstItem, ...] = ()
    same = ""
    if items and finding is not None:
        try:
            worst = recorded.worst(decision, finding, items)
            labels = given_labels(recorded)
            same = "" if labels is None else labels.in_items([item.item_id for item in worst])
        except TunegateError as error:
            note(f"the items are not shown: {error.message}")

    def text() -> Iterator[Any]:
        yield from findings_text(row.run_id, decision)
        if figures:  # no part of the decision, because no digest may depend on them
            measured = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            yield f"\nmeasured, outside the decision: {measured}"
        if finding is not None:
            yield from _worst_text(worst, finding, same)

    data = {
        "run_id": row.run_id,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "findings": [each.model_dump() for each in decision.findings],
        "measured": figures,
        "shown": {"metric": finding and finding.metric, "slice": finding and finding.slice},
        "same_label": same,
        "worst_items": [asdict(item) for item in worst],
    }
    return Result(data, text())


def _worst_text(worst: tuple[WorstItem, ...], finding: Finding, same: str) -> Iterator[Any]:
    where = f" in {finding.slice}" if finding.slice else ""
    yield f"\nworst items by {finding.metric}{where}: {len(worst)}{f'; {same}' if same else ''}"
    for item in worst:
        against = "" if item.reference is None else f" against {item.reference:.3f}"
        yield f"\n{item.item_id}  {item.candidate:.3f}{against}  {', '.join(item.slices)}"
        yield TextLine(item.question, wraps=True)
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        columns = {"wanted": item.wanted, "candidate": item.candidate_answer}
        if item.reference_answer is not None:
            columns["reference"] = item.reference_answer
        for name in columns:
            table.add_column(name, overflow="fold", ratio=1)
        table.add_row(*map(escape, columns.values()))
        yield table


@command(example="tunegate gate label 20261126-074621 --rater ada")
def label(
    run_id: RunArgument,
    rater: Annotated[str | None, typer.Option(help="Who labels; your login if not given.", show_default=False)] = None,
    write: Annotated[
        Literal["csv", "jsonl"] | None,
        typer.Option(help="Write what is to be labelled to a file in the run's report, instead of asking."),
    ] = None,
    read: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read labels made elsewhere from CSV or JSON.", exists=False)
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Ask for all labels, even if the rest can neither promote nor prevent it.")
    ] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Label the answers on which candidate and champion differ.

    The answers are shuffled, and nothing says whose they are. Each choice is stored at once, and the next session
    continues where this one ended. It ends early when the labels that are left can neither promote the candidate nor
    prevent it. With --json, only count what is needed and made.
    """
    if (write is not None) + (read is not None) > 1:
        raise ConfigError("give --write or --read, not both", code="TG0139", where="--read")
    settings = load_settings(config)
    labelling = labelling_of(Recorded(settings, run_id))
    row, name, decision = labelling.recorded.row, rater or login(), labelling.recorded.decision()
    if decision is not None and decision.verdict in ("BLOCK", "ERROR"):
        note(f"the verdict of this run is {decision.verdict}, whatever the labels say")
    elif decision is not None and any(finding.metric == "interim" for finding in decision.findings):
        note("this run stopped early, so that no labels can promote its candidate")
    if write is not None:
        return _write_labels(labelling, write, name)
    if read is not None:
        known = frozenset(label for question in labelling.questions for label in question.answers)
        for who, votes in read_sheets(read, known=known, rater=name).items():
            add_votes(settings.home, row.pipeline, who, votes)
    elif not as_json:
        todo = labelling.open_for(name)
        ask_labels(
            [partial(labelling.sheet, question) for question in todo],
            save=lambda votes: add_votes(settings.home, row.pipeline, name, votes),
            is_enough=lambda: (
                not every and replace(labelling, votes=read_votes(settings.home, row.pipeline)).is_enough(name)
            ),
            n_before=len(labelling.questions) - len(todo),
        )
    facts = labelling_of(labelling.recorded).facts()
    if not as_json:
        note(facts.sentence)
        for item in facts.doubtful_references:
            note(f"the reference answer of {item} is probably wrong")
        if not facts.undecided:
            note(f"`tunegate run {row.pipeline}` gives the verdict")
    return render(Result({"run_id": row.run_id, **facts.model_dump()}), as_json=as_json)


@command(example="tunegate gate resume 20261126-074621")
def resume(
    run_id: RunArgument,
    config: Config = CONFIG,
    wait: Wait = 0.0,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without a Prefect server.")] = False,
) -> Result:
    """Judge a held candidate again when held-out tickets have arrived.

    `gates.looks.at` declares how many each look takes. Nothing is trained; with too few tickets nothing is spent, and
    the exit code stays that of HOLD.
    """
    row = open_ledger(load_settings(config)).run(run_id)
    request = RunRequest(resume=row.run_id, wait_s=wait)
    return run_pipeline(row.pipeline, config, request, server="none" if no_prefect else "start")


def _write_labels(labelling: Labelling, form: Literal["csv", "jsonl"], rater: str) -> int:
    """Write what the rater has not labelled."""
    sheets = [labelling.sheet(question) for question in labelling.open_for(rater)]
    recorded = labelling.recorded
    file = private_folder(report_folder(recorded.settings.home, recorded.row.run_id)) / f"labels.{form}"
    write_private(file, write_sheets(sheets, form))
    render(Result(None, [str(file)]), as_json=False)
    note(
        f"{counted(len(sheets), 'item')}; fill in `right`, then `tunegate gate label {recorded.row.run_id} --read FILE`"
    )
    return 0
