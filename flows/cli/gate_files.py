"""`tunegate gate check`: the gate over results that were made elsewhere."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.findings import findings_text
from flows.cli.options import CONFIG, Against, Config, Markdown, NoWeaker, Wait, login
from flows.cli.output import Result, TextLine, TextTable, cell, note, warn, write_file
from flows.context.outcome import EXIT_CODES, Outcome
from flows.ledger.promotions import Waits
from flows.registry.state import waits_of
from flows.run.checked_run import NAME, CheckRequest, check_with_ledger
from flows.views.gate_check import CheckedFiles, check_files, declared_terms, mlflow_of, remarks, report_of, weakened
from flows.views.report_files import summary_for_pull_request, weaker_lines, write_report
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError, GateError, TunegateError
from schemas.gate_result import CheckedFile, GateCheckResult, RecordedCheck
from schemas.load import load_file
from tasks.tickets.visible import literal


@command(example="tunegate gate check --champion champion.jsonl --candidate candidate.jsonl")
def check(
    candidate: Annotated[
        str, typer.Option(metavar="FILE", show_default=False, help="Per-item results; PATH@LABEL of promptfoo.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", show_default=False, help="Judge against this name's champion, and record the verdict."
        ),
    ] = None,
    champion: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Results of the champion; with NAME those that are kept."
        ),
    ] = None,
    version_of: Annotated[
        str, typer.Option(metavar="REF", show_default=False, help="With NAME: the model or commit that was evaluated.")
    ] = "",
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
    wait: Wait = 0.0,
    against: Against = None,
    no_weaker: NoWeaker = False,
    markdown: Markdown = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default=False, help="Write report.html, .md, .json, junit.xml."),
    ] = None,
) -> Result:
    """Judge a candidate's results against the champion's, from files.

    With NAME the ledger counts looks and candidates, keeps the champion's results, and moves the champion: `tunegate
    model history NAME`, `promote`, `approve`, `rollback` and `gate explain RUN` work as for pipelines.

    Reads JSON Lines, CSV and Parquet, and what lm-eval, Inspect, DeepEval, promptfoo and MLflow write. In place of a
    file, `models:/NAME@ALIAS` names a version in MLflow, of which the evaluation's table is read. Exits as a run does:
    0 PROMOTE, 5 BLOCK, 8 HOLD, 9 ERROR, 10 UNCOMPARED.
    """
    if out is not None and out.exists():
        raise ConfigError("it exists", code="TG0189", where=str(out), hint="name a folder that does not exist")
    weaker: list[str] = []
    with summary_without_verdict(markdown, name, weaker):
        terms = declared_terms(rules=rules, pipeline=pipeline, config=config, without=without or ())
        baselines = dict(_named(each) for each in baseline or ())
        weaker += named_weaker(against, no_weaker=no_weaker, rules=rules, pipeline=pipeline, config=config)
        if no_weaker:
            refuse_weaker(weaker, against, where=rules or config)
        if name is not None:
            request = CheckRequest(
                name=name, candidate=candidate, champion=champion, anchor=anchor, baselines=baselines, terms=terms,
                metric=metric, lower_is_better=lower_is_better or (), id_column=id_, version_of=version_of,
                waits=waits_of(load_file(config).get(pipeline)) if pipeline is not None else Waits(),
                config=config, actor=login(), wait_s=wait,
            )  # fmt: skip
            checked = check_with_ledger(request, load_settings(config))
            if isinstance(checked, Outcome):
                return _skipped(checked, weaker, markdown)
        elif champion is None or version_of:
            missing = "--champion FILE" if champion is None else "NAME, which --version-of needs"
            raise ConfigError(
                f"no {missing}", code="TG0139", where="gate check", hint="NAME keeps the champion's results in a ledger"
            )
        else:
            checked = check_files(
                candidate=candidate, champion=champion, anchor=anchor, baselines=baselines, terms=terms, metric=metric,
                lower_is_better=lower_is_better or (), id_column=id_, mlflow=mlflow_of(terms, load_settings(config)),
            )  # fmt: skip
    report = report_of(checked, command=shlex.join(["tunegate", *sys.argv[1:]]))
    if markdown is not None:
        write_file(markdown, summary_for_pull_request(report, weaker).encode(), replace=True)
    if out is not None:
        written = write_report(report, "", out)
        note(f"written: {', '.join(str(path) for path in written.values())}")
    decision, outcome = checked.decision, checked.outcome
    verdict = decision.verdict if outcome is None or outcome.verdict == "DONE" else outcome.verdict
    data = GateCheckResult(
        verdict=verdict,
        reason=decision.reason if outcome is None else outcome.reason,
        exit_code=EXIT_CODES[verdict],
        recorded=_recorded(outcome),
        weaker=tuple(weaker),
        gate=checked.terms.gates.model_dump(mode="json", exclude_defaults=True),
        origin=checked.terms.origin,
        files={
            _arm(arm): CheckedFile(
                path=str(file.path),
                sha256=file.digest,
                tool=file.tool,
                model=file.model,
                n_rows=len(file.rows),
                n_items=len({row.item_id for row in file.rows}),
                means=dict(checked.means.get(arm, {})),
            )
            for arm, file in checked.files.items()
        },
        n_items=decision.n_items,
        use=decision.use,
        findings=decision.findings,
        notes=tuple(remarks(checked)),
    )
    return Result(data.model_dump(mode="json"), _text(checked), exit_code=data.exit_code)


def named_weaker(
    against: str | None,
    *,
    no_weaker: bool,
    rules: Path | None = None,
    pipeline: str | None,
    config: Path,
    given: Sequence[str] = (),
) -> list[str]:
    """Warn of each setting by which the declared gate is weaker than at a commit, and return them.

    Args:
        against: The commit; None compares with none.
        given: Settings of this call alone, as of `--set`.

    Raises:
        ConfigError: TG0139, `--no-weaker` without a commit; others as in `weakened`.
    """
    if against is None:
        if no_weaker:
            raise ConfigError(
                "it needs a commit to compare with", code="TG0139", where="--no-weaker", hint="--against REF"
            )
        return []
    weaker = weakened(against, rules=rules, pipeline=pipeline, config=config, given=given)
    for each in weaker:
        warn(f"the gate is weaker than in {against}: {each}")
    return weaker


def refuse_weaker(weaker: Sequence[str], against: str | None, *, where: Path) -> None:
    """Raise GateError (TG0626) if the gate is weaker in anything."""
    if weaker:
        raise GateError(
            f"the gate is weaker than in {against}: {'; '.join(weaker)}", code="TG0626", where=str(where),
            hint="make it as strict again, or let a person merge the gate first",
        )  # fmt: skip


@contextmanager
def summary_without_verdict(markdown: Path | None, name: str | None, weaker: list[str]) -> Iterator[None]:
    """Write the summary of a verdict that fails: else the comment of an earlier one would stay, perhaps with PROMOTE.

    Args:
        weaker: In what the gate is weaker, as far as it is known when it fails.
    """
    try:
        yield
    except TunegateError as error:
        if markdown is not None:
            marker = name if name is not None and NAME.fullmatch(name) else "gate-check"
            why = [] if error.code == "TG0626" else [literal(f"{error.code}: {error.message}"), ""]
            lines = [f"<!-- tunegate: {marker} -->", *weaker_lines(weaker), "## No verdict", "", *why]
            write_file(markdown, ("\n".join([*lines, "Nothing was judged."]) + "\n").encode(), replace=True)
        raise


def _recorded(outcome: Outcome | None) -> RecordedCheck | None:
    """What the ledger has of the check."""
    if outcome is None:
        return None
    return RecordedCheck(
        name=outcome.pipeline, run_id=outcome.run_id, candidate=outcome.version, champion=outcome.champion,
        waits=outcome.waits,
    )  # fmt: skip


def _skipped(outcome: Outcome, weaker: list[str], markdown: Path | None) -> Result:
    """The candidate is champion already, and nothing was judged."""
    if markdown is not None:
        head = [f"<!-- tunegate: {outcome.pipeline} -->", *weaker_lines(weaker)]
        summary = [*head, f"## SKIP: {outcome.pipeline}", "", outcome.reason, ""]
        write_file(markdown, "\n".join(summary).encode(), replace=True)
    data = GateCheckResult(
        verdict="SKIP", reason=outcome.reason, exit_code=outcome.exit_code, recorded=_recorded(outcome),
        weaker=tuple(weaker), gate={}, origin="", files={}, n_items=0, use=None, findings=(), notes=(),
    )  # fmt: skip
    text = [f"{outcome.run_id}  SKIP  {outcome.reason}"]
    return Result(data.model_dump(mode="json"), text, exit_code=outcome.exit_code)


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
    outcome = checked.outcome
    yield from findings_text("" if outcome is None else outcome.run_id, checked.decision)
    if outcome is not None:
        yield ""
        if outcome.verdict != checked.decision.verdict:
            yield TextLine(f"{outcome.verdict}  {outcome.reason}", wraps=True)
        mine = "" if outcome.version is None else f"the candidate is version {outcome.version}; "
        champion = "there is no champion" if outcome.champion is None else f"champion is version {outcome.champion}"
        yield TextLine(f"{outcome.pipeline}: {mine}{champion}; run {outcome.run_id}", wraps=True)


def _arm(arm: str) -> str:
    return "candidate" if arm == "tuned" else arm


def _named(given: str) -> tuple[str, str]:
    arm, is_given, path = given.partition("=")
    if not is_given:
        raise ConfigError(f"{given!r} is not ARM=FILE", code="TG0103", hint="--baseline few_shot=few_shot.jsonl")
    return arm, path
