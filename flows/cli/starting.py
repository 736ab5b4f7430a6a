"""`tunegate init` and `tunegate try`: from a file of tickets to a pipeline, checked and written, and to a first run."""

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Given, Json
from flows.cli.output import Result, note, render, talk, warn, write_file
from flows.cli.running import run_pipeline
from flows.context.request import RunRequest
from flows.forecast.plan import view_plan
from flows.views.arms import compare_examples
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, TunegateError
from schemas.load import load_file
from schemas.report import ArmLine
from schemas.tables import TicketColumn
from tasks.sources.readers.headers import shown
from tasks.start.labels import other_labels
from tasks.start.origin import TableChoice
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline
from tasks.start.small_budget import small_budget

_COLUMN = "Column or path"
_Body = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the customer's words.", show_default=False)]
_Reply = Annotated[
    str | None, typer.Option(help=f"{_COLUMN} of the answer; none: learn no answers.", show_default=False)
]
_Label = Annotated[
    str | None, typer.Option(help=f"{_COLUMN} of the routing label; none: route nothing.", show_default=False)
]
_Time = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the time.", show_default=False)]
_Table = Annotated[str | None, typer.Option(help="Table to read, of a database.", show_default=False)]
_Sql = Annotated[str | None, typer.Option(help="One SELECT, in a database.", show_default=False)]
_ROWS = (
    "CSV, JSON lines or Parquet (also .gz, .zst) of tickets or conversations; a DuckDB or SQLite file; or env:NAME, "
    "the variable with the address of a Postgres database."
)
_KEY_ENV = RedactStep(uses="redact").key_env
_Id = Annotated[str | None, typer.Option("--id", help=f"{_COLUMN} of the ticket's id.", show_default=False)]


@command(example="tunegate init --from tickets.csv")
def init(
    source: Annotated[
        Path,
        typer.Option("--from", help=_ROWS, show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the pipeline; by the file's name if not given.", show_default=False)
    ] = None,
    body: _Body = None,
    reply: _Reply = None,
    label: _Label = None,
    time: _Time = None,
    id_: _Id = None,
    table: _Table = None,
    sql: _Sql = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a pipelines.yaml that exists.")] = False,
    config: Config = CONFIG,
) -> Result:
    """Propose a commented pipelines.yaml for a file of tickets.

    The file is checked by the loader before it is written. What was inferred, and how surely, is printed. A column that
    you name (`--body`, `--reply`, `--label`, `--time`, `--id`) may be a path into nested rows: `dialog[0].message`.
    """
    named = _named(body=body, reply=reply, category=label, created_at=time, ticket_id=id_)
    proposal = write_proposal(
        source,
        config,
        name=name,
        named=named,
        choice=TableChoice(table, sql),
        existing="replace" if force else "refuse",
    )
    return Result(proposal_json(proposal, config), _proposal_text(proposal, config, next_steps=True))


@command(example="tunegate try tickets.csv", computes=True)
def try_(
    file: Annotated[Path, typer.Argument(help=_ROWS, show_default=False)],
    body: _Body = None,
    reply: _Reply = None,
    label: _Label = None,
    time: _Time = None,
    id_: _Id = None,
    table: _Table = None,
    sql: _Sql = None,
    given: Given = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Go from a file of tickets to a first verdict in minutes.

    Writes pipelines.yaml as init does, and runs it once with few examples and items. No rule or limit is changed: HOLD
    is the usual answer, with the number of items that would decide. Which verdicts can be reached is said before the
    training.
    """
    # Killed and started again, it continues where it was, unless its key was lent.
    named = _named(body=body, reply=reply, category=label, created_at=time, ticket_id=id_)
    proposal = write_proposal(file, config, named=named, choice=TableChoice(table, sql), existing="accept")
    budget = small_budget(proposal, given or ())
    if not as_json:  # before the minutes that the run takes
        render(Result(None, _proposal_text(proposal, config)), as_json=False)
    note(f"{budget.summary}; gate and limits are those of {config}")
    note(budget.outlook)
    if proposal.needs_key:
        _lend_key()
    request = RunRequest(given=(*budget.settings, *(given or ())))
    result = run_pipeline(proposal.name, config, request, server="yours")
    if result.data is None:  # cancelled
        return result.exit_code
    arms = tuple(ArmLine.model_validate(each) for each in result.data["arms"])
    compared = " ".join(filter(None, (compare_examples(arms, proposal.metric), _whole_run(proposal.name, config))))
    render(replace(result, data={**result.data, "reachable": budget.verdicts, "compared": compared}), as_json=as_json)
    export = f"  {_export_key()}\n" if proposal.needs_key else ""
    talk().print(
        f"\nThis was a small try. {compared}\nLook at the report above, review {config}, then:\n"
        f"{export}"
        f"  tunegate plan {proposal.name}   what a run without the small budget takes\n"
        f"  tunegate run {proposal.name}    make it",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return result.exit_code


def _lend_key() -> None:
    """Set a random key for pseudonyms in this process if the user has none: a look must not need a secret first.

    No file keeps it, so whoever reads the results cannot try all ids, and a second try is another.
    """
    if not os.environ.get(_KEY_ENV):
        os.environ[_KEY_ENV] = secrets.token_hex(32)
        note(
            f"{_KEY_ENV} is not set: this try makes pseudonyms with a random key that is not kept; later runs need one"
        )


def _export_key() -> str:
    return f'export {_KEY_ENV}="$(openssl rand -hex 32)"  # keep it: with another key, ids no longer join'


def _whole_run(name: str, config: Path) -> str:
    """How long a run without the small budget takes, as `tunegate plan` says it."""
    with suppress(TunegateError):
        minutes = view_plan(name, config).figures["minutes"]
        if minutes is not None:
            about = "a minute" if minutes < 1.5 else f"{minutes:,.0f} minutes"
            return f"A whole run takes about {about}: `tunegate run {name}`."
    return f"`tunegate run {name}` trains on all."


def _named(**columns: str | None) -> dict[TicketColumn, str]:
    """Ticket column -> the column or path that the user names."""
    return {cast("TicketColumn", column): at for column, at in columns.items() if at}


def write_proposal(
    source: Path,
    config: Path,
    *,
    name: str | None = None,
    named: Mapping[TicketColumn, str] | None = None,
    choice: TableChoice | None = None,
    existing: Literal["refuse", "accept", "replace"] = "refuse",
) -> Proposal:
    """Propose a pipeline for the file, check it with the loader, and write it to `config`.

    Args:
        name: Of the pipeline; None for the file's.
        named: Ticket column -> column or path in the file that the user names.
        choice: Of a table or query, in a database.
        existing: What to do with a file that is there; `accept` takes it if it is what would be written.

    Raises:
        ConfigError: TG0189, the file is there already; and as `propose_pipeline`.
    """
    target = config.absolute()
    if target.exists() and existing == "refuse":
        raise _is_there(config, "--force replaces it, --config OTHER.yaml writes elsewhere")
    pace = _pace_in(target) if existing == "accept" and target.exists() else None
    proposal = propose_pipeline(source, name=name, root=target.parent, named=named, choice=choice, pace=pace)
    text = write_pipeline(proposal)
    with tempfile.TemporaryDirectory(prefix="tunegate-init-") as aside:
        path = Path(aside) / target.name
        path.write_text(text, encoding="utf-8")
        load_file(path)
    if target.exists() and existing == "accept":
        if target.read_bytes() == text.encode():
            return proposal
        raise _is_there(config, "--config OTHER.yaml writes elsewhere; `tunegate run NAME` runs what it declares")
    write_file(target, text.encode(), replace=True)
    return proposal


def _pace_in(path: Path) -> float | None:
    """The answers per minute that the file declares: another probe would find others, and it would seem edited."""
    with suppress(TunegateError):
        for pipeline in load_file(path).trained.values():
            return pipeline.evaluate.answers_per_minute
    return None


def _is_there(config: Path, hint: str) -> ConfigError:
    return ConfigError(f"{config} is there already", code="TG0189", where=str(config.absolute()), hint=hint)


def proposal_json(proposal: Proposal, config: Path) -> dict[str, object]:
    """As `tunegate init --json` prints it."""
    roles, sizes = proposal.roles, proposal.sizes
    return {
        "kind": "tickets", "file": str(config), "pipeline": proposal.name, "n_rows": proposal.profile.n_rows,
        "source": dict(proposal.origin.settings), "evidence": list(proposal.origin.evidence), "shape": roles.shape,
        "columns": {role.column: asdict(role) for role in roles.found},
        "left_out": list(roles.left_out),
        "faulty_share": proposal.faulty_share,
        "n_sampled": proposal.profile.n_sampled, "n_left": proposal.tickets.n_usable,
        "steps": [asdict(step) for step in proposal.tickets.steps],
        "probes": {
            name: {**asdict(probe), "is_predictable": probe.is_predictable, "is_enough": probe.is_enough}
            for name, probe in proposal.tickets.probes.items()
        },
        "warnings": list(proposal.warnings),
        "sizes": {**asdict(sizes), "gate_works": sizes.gate_works},
        "gate": [{**asdict(power), "underpowered": power.underpowered} for power in proposal.gate.power],
    }  # fmt: skip


def _proposal_text(proposal: Proposal, config: Path, *, next_steps: bool = False) -> Iterator[str]:
    """The columns and what they were taken for; what is doubtful goes to stderr."""
    sizes = proposal.sizes
    yield f"{config}: pipeline {proposal.name}, {proposal.profile.n_rows:,} rows ({proposal.roles.summary})"
    for line in proposal.origin.evidence:
        yield f"  (database)   {line}"
    for role in proposal.roles.found:
        yield f"  {role.column:<12} {'CHECK ' if role.guessed else ''}{role.name}: {role.evidence}"
    if proposal.routing is not None:
        for line in other_labels(proposal.roles, proposal.tickets.probes):
            yield f"  (--label)    {line}"
    tickets = proposal.tickets
    if proposal.routing is not None and (probe := tickets.probes.get(proposal.routing.name)):
        yield f"  probe        {shown(proposal.routing.name)}: {probe.figures}, in {probe.n_tickets:,} tickets"
    took = ", ".join(
        f"{step.name} takes {step.n_taken:,}" for step in tickets.steps if step.is_proposed and step.n_taken
    )
    left = f"{tickets.n_usable:,} of {proposal.profile.n_sampled:,} sampled rows are left"
    yield f"  curation     {left}; {took}" if took else f"  curation     {left}"
    for step in tickets.steps:
        if not step.is_proposed:
            warn(f"{step.name} is not proposed, because it takes too much: {step.note}")
    if sizes.gate_works:
        yield f"  gate         {proposal.metric}: {sizes.summary}"
    else:
        warn(sizes.summary)
    for warning in proposal.warnings:
        warn(warning)
    if proposal.undated:
        warn(f"{proposal.undated} of the rows have no time, and a split by time drops them")
    if proposal.stops:
        reasons = (*proposal.tickets.reasons, proposal.profile.why_unreadable)
        over = f"over the limit of {100 * proposal.table.fail_above:g} %"
        warn(f"{proposal.faulty_percent} of the rows are faulty, {over}, so a run stops: {reasons[0].rstrip('.')}")
    if next_steps:
        then = f"tunegate validate, then tunegate data curate {proposal.name}"
        if proposal.needs_key:
            then = f"{_export_key()}\n      {then}"
        talk().print(f"next: {then}", markup=False, soft_wrap=True)
