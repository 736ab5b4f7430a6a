"""`tunegate show` and `tunegate report`: one run."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.history import tick_json, tick_lines
from flows.cli.options import CONFIG, RUN_COLUMNS, Config, Items, RunArgument, complete_pipeline
from flows.cli.output import Result, TextTable, write_file
from flows.ledger.open import open_ledger
from flows.records.timings import memory_sentence, read_timings
from flows.run.console import arms_table, gate_table
from flows.views.arms import arm_lines
from flows.views.report import gather, report_folder
from flows.views.report_files import write_report
from flows.views.run_reader import Recorded
from flows.views.selection_report import choice_json, choice_of, choice_row
from flows.workspace.disk import is_read_only
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError


@command(example="tunegate show 20261126-074621")
def show(run_id: RunArgument, config: Config = CONFIG) -> Result:
    """Show one run: its steps, what was reused, the gate's findings."""
    settings = load_settings(config)
    ledger = open_ledger(settings)
    ledger.mark_interrupted()
    recorded = Recorded(settings, run_id)
    row, steps, decision = recorded.row, recorded.steps, recorded.decision()
    chosen = choice_of(ledger, recorded.store, row.run_id)
    memory = read_timings(settings, "train", recorded.keys["train"]) if "train" in recorded.keys else {}
    arms = () if decision is None else arm_lines(recorded)
    tick, mark = ledger.tick_of(row.run_id), ledger.mark_of(row.run_id)

    def text() -> Iterator[Any]:
        dated = f"  as of {row.as_of}" if row.as_of else ""
        yield f"{row.run_id}  {row.pipeline}  {row.status}  {row.verdict or ''}{dated}\n{row.reason}\n"
        if row.given:
            yield f"settings of this run alone: {', '.join(row.given)}\n"
        yield from tick_lines(tick, mark)
        shown = [{**asdict(step), "seconds": f"{step.seconds:.1f}", "digest": step.digest[:12]} for step in steps]
        yield TextTable(shown, ("step", "state", "n_in", "n_out", "seconds", "digest", "error"))
        if sentence := memory_sentence(memory):
            yield f"\nmemory of training: {sentence}"
        if chosen is not None:
            yield f"\nchosen on validation: {chosen[0].why}"
            yield TextTable([choice_row(trial, chosen[1]) for trial in chosen[0].rows])
        if decision is not None:
            yield ""
            yield gate_table(decision)
            yield ""
            yield arms_table(arms, decision)

    columns = (*RUN_COLUMNS, "as_of", "mlflow_run_id", "prefect_run_id")
    data = {
        **{name: getattr(row, name) for name in columns},
        "set": list(row.given),
        "steps": [asdict(step) for step in steps],
        "findings": [] if decision is None else [finding.model_dump() for finding in decision.findings],
        "arms": [each.model_dump() for each in arms],
        "diagnosis": decision and decision.diagnosis and decision.diagnosis.model_dump(),
        "choice": None if chosen is None else choice_json(*chosen),
        **memory,
        "tick": tick and tick_json(tick),
        "snapshot": mark and asdict(mark),
    }
    return Result(data, text())


@command(example="tunegate report --last support-replies --out report.html")
def report(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Run id, or the start of one.")] = None,
    last: Annotated[
        str | None,
        typer.Option(
            metavar="PIPELINE",
            help="The pipeline's last run with a verdict; of data alone, the last that ended.",
            show_default=False,
            autocompletion=complete_pipeline,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page here as well.", show_default=False)
    ] = None,
    items: Items = 0,
    config: Config = CONFIG,
) -> Result:
    """Write a run's report: a page, JSON, a comment and a JUnit file."""
    settings = load_settings(config)
    if (run_id is None) == (last is None):
        raise ConfigError(
            "which run? give one RUN, or --last PIPELINE", code="TG0139", where="report",
            hint="`tunegate runs` lists them",
        )  # fmt: skip
    if run_id is None:
        rows = open_ledger(settings).runs(limit=1000, pipeline=last)
        ended = (row for row in rows if row.verdict or (row.status == "DONE" and not row.model_name))
        run_id = next((row.run_id for row in ended if row.as_of is None), None)
    if run_id is None:
        raise ConfigError(
            f"pipeline {last!r} has no run with a verdict", code="TG0139", where="--last",
            hint="`tunegate runs` lists all runs; give the id of one",
        )  # fmt: skip
    found, card = gather(settings, run_id, n_items=items)
    with TemporaryDirectory(prefix="tunegate-report-") as scratch:
        page = report_folder(settings.home, found.run_id) / "report.html"
        # In a home that can only be read the page stays as the run left it.
        written = write_report(found, card, Path(scratch) if is_read_only(settings.home) else page.parent)
        if to is not None:
            write_file(to, written["report.html"].read_bytes(), replace=True)
            page = to
    return Result(found.model_dump(mode="json"), [f"{found.verdict}  {found.sentence}\n{page}"])
