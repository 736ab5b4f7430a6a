"""`tunegate gate`: verdicts, and the labels that they need.

Ticket text goes to stdout alone, read from the local store, or to files below the state folder; a note on stderr never
quotes it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.command import command, group
from flows.cli.options import CONFIG, Config, Items, Json, Metric, RunArgument, login
from flows.cli.output import note, print_json
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError, TunegateError

if TYPE_CHECKING:
    from flows.views.labelling import Labelling

app = group("Look into a verdict, and label what it needs.")


@command(app, example="tunegate gate explain 20261126-074621 --items 3")
def explain(
    run_id: RunArgument, metric: Metric = None, items: Items = 5, config: Config = CONFIG, as_json: Json = False
) -> int:
    """Explain a verdict, down to the items that decided.

    Each rule with its interval, items won and lost, and the worst items side by side.
    """
    from flows.cli.text.gate import print_decision
    from flows.records.timings import read_timings
    from flows.views.run_reader import Recorded, shown_finding
    from tasks.assess.worst import WorstItem

    recorded = Recorded(load_settings(config), run_id)
    row, decision = recorded.row, recorded.decision()
    if decision is None:
        raise ConfigError(
            f"run {row.run_id} came to no gate, or its decision is no longer in the store",
            code="TG0159", where=row.run_id, hint=f"`tunegate show {row.run_id}` says how far it came",
        )  # fmt: skip
    figures = read_timings(recorded.settings, "latency", recorded.keys["latency"]) if "latency" in recorded.keys else {}
    finding = shown_finding(decision, metric)
    missing = ""
    worst: tuple[WorstItem, ...] = ()
    if items and finding is not None:
        try:
            worst = recorded.worst(decision, finding, items)
        except TunegateError as error:
            missing = error.message
    if as_json:
        print_json(
            {
                "run_id": row.run_id,
                "verdict": decision.verdict,
                "reason": decision.reason,
                "findings": [each.model_dump() for each in decision.findings],
                "measured": figures,
                "shown": {"metric": finding and finding.metric, "slice": finding and finding.slice},
                "worst_items": [asdict(item) for item in worst],
            }
        )
    else:
        print_decision(row.run_id, decision, figures, worst, finding)
    if missing:
        note(f"the items are not shown: {missing}")
    return 0


@command(app, example="tunegate gate label 20261126-074621 --rater ada")
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
    from flows.context.labels import add_votes, read_votes
    from flows.views.labelling import labelling_of
    from flows.views.run_reader import Recorded

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
        from tasks.assess.label_files import read_sheets

        known = frozenset(label for question in labelling.questions for label in question.answers)
        for who, votes in read_sheets(read, known=known, rater=name).items():
            add_votes(settings.home, row.pipeline, who, votes)
    elif not as_json:
        from flows.cli.text.label import ask_labels

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
    if as_json:
        print_json({"run_id": row.run_id, **facts.model_dump()})
        return 0
    note(facts.sentence)
    for item in facts.doubtful_references:
        note(f"the reference answer of {item} is probably wrong")
    if not facts.undecided:
        note(f"`tunegate run {row.pipeline}` gives the verdict")
    return 0


def _write_labels(labelling: Labelling, form: Literal["csv", "jsonl"], rater: str) -> int:
    """Write what the rater has not labelled."""
    from flows.cli.output import out
    from flows.views.report import report_folder
    from flows.workspace.disk import private_folder, write_private
    from tasks.assess.label_files import write_sheets

    sheets = [labelling.sheet(question) for question in labelling.open_for(rater)]
    recorded = labelling.recorded
    file = private_folder(report_folder(recorded.settings.home, recorded.row.run_id)) / f"labels.{form}"
    write_private(file, write_sheets(sheets, form))
    out().print(str(file), markup=False, soft_wrap=True)
    note(
        f"{counted(len(sheets), 'item')}; fill in `right`, then `tunegate gate label {recorded.row.run_id} --read FILE`"
    )
    return 0
