"""`tunegate gate check`: the gate over results that were made elsewhere."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.findings import findings_text
from flows.cli.options import CONFIG, Config
from flows.cli.output import Result, TextLine, TextTable, cell, note
from flows.context.outcome import EXIT_CODES
from flows.views.gate_check import CheckedFiles, check_files, declared_terms, remarks, report_of
from flows.views.report_files import write_report
from schemas.errors import ConfigError

ResultsPath = Annotated[
    str, typer.Option(metavar="FILE", show_default=False, help="Per-item results; PATH@LABEL of promptfoo.")
]


@command(example="tunegate gate check --champion champion.jsonl --candidate candidate.jsonl")
def check(
    champion: ResultsPath,
    candidate: ResultsPath,
    anchor: Annotated[
        str | None, typer.Option(metavar="FILE", show_default=False, help="Results of the best champion so far.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=FILE", show_default=False, help="Results of a baseline, such as few_shot; repeatable."
        ),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="YAML with `gates`, `evaluate`, `metrics`.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(show_default=False, help="Judge by the gate of this pipeline of --config.")
    ] = None,
    config: Config = CONFIG,
    metric: Annotated[
        str | None, typer.Option(show_default=False, help="Metric of the default gate, if there are several.")
    ] = None,
    lower_is_better: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", show_default=False, help="Less of it is better; repeatable.")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", show_default=False, help="Column with the item's id.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", show_default=False, help="Leave out a declared check; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default=False, help="Write report.html, .md, .json, junit.xml."),
    ] = None,
) -> Result:
    """Judge a candidate's results against the champion's, from files.

    Reads JSON Lines, CSV and Parquet, and what lm-eval, Inspect, DeepEval, promptfoo and MLflow write. Exits as a run
    does: 0 PROMOTE, 5 BLOCK, 8 HOLD, 9 ERROR, 10 UNCOMPARED.
    """
    if out is not None and out.exists():
        raise ConfigError("it exists", code="TG0189", where=str(out), hint="name a folder that does not exist")
    checked = check_files(
        candidate=candidate,
        champion=champion,
        anchor=anchor,
        baselines=dict(_named(each) for each in baseline or ()),
        terms=declared_terms(rules=rules, pipeline=pipeline, config=config, without=without or ()),
        metric=metric,
        lower_is_better=lower_is_better or (),
        id_column=id_,
    )
    if out is not None:
        written = write_report(report_of(checked, command=shlex.join(["tunegate", *sys.argv[1:]])), "", out)
        note(f"written: {', '.join(str(path) for path in written.values())}")
    decision = checked.decision
    data = {
        "version": 1,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "exit_code": EXIT_CODES[decision.verdict],
        "gate": checked.terms.gates.model_dump(mode="json", exclude_defaults=True),
        "origin": checked.terms.origin,
        "files": {
            _arm(arm): {
                "path": str(file.path),
                "sha256": file.digest,
                "tool": file.tool,
                "model": file.model,
                "n_rows": len(file.rows),
                "n_items": len({row.item_id for row in file.rows}),
                "means": dict(checked.means.get(arm, {})),
            }
            for arm, file in checked.files.items()
        },
        "n_items": decision.n_items,
        "findings": [each.model_dump(mode="json") for each in decision.findings],
        "notes": list(remarks(checked)),
    }
    return Result(data, _text(checked), exit_code=EXIT_CODES[decision.verdict])


def _text(checked: CheckedFiles) -> Iterator[Any]:
    judged = [metric for metric in checked.terms.gates.judged_metrics() if metric in checked.means.get("tuned", {})]
    yield TextTable(
        [
            {
                "arm": _arm(arm),
                "file": file.path.name,
                "read as": file.tool,
                "model": file.model,
                "items": len({row.item_id for row in file.rows}),
                **{metric: cell(checked.means[arm].get(metric)) for metric in judged},
            }
            for arm, file in checked.files.items()
        ]
    )
    yield TextLine(f"gate: {checked.terms.origin}")
    for each in remarks(checked):
        yield TextLine(f"note: {each}", wraps=True)
    yield ""
    yield from findings_text("", checked.decision)


def _arm(arm: str) -> str:
    return "candidate" if arm == "tuned" else arm


def _named(given: str) -> tuple[str, str]:
    arm, is_given, path = given.partition("=")
    if not is_given:
        raise ConfigError(f"{given!r} is not ARM=FILE", code="TG0103", hint="--baseline few_shot=few_shot.jsonl")
    return arm, path
