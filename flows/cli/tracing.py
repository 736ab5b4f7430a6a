"""`tunegate data lineage` and `data forget`: what became of a ticket, a customer's tickets or a model, and the removal.

Versions that learned from what was removed are marked, in MLflow too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.champion.mlflow_sync import synchronise
from flows.cli.command import command
from flows.cli.options import CONFIG, By, Config, Reason, complete_pipeline, login
from flows.cli.output import Result, TextTable, note, warn
from flows.ledger.open import open_ledger
from flows.privacy.forget import CERTIFICATES, certificate_text, forget_again, plan_forgetting
from flows.privacy.forget import forget as forget_customer
from flows.views.lineage import NamedLineage, find_lineage
from flows.workspace.settings import Settings, load_settings
from schemas.counted import counted
from schemas.errors import SecurityError
from schemas.forget import ForgetCertificate, Holdings
from schemas.load import load_file
from schemas.pipeline import DataPipeline, model_of
from tasks.curate.warehouse_query import Lineage

COLUMNS = ("kind", "place", "n_rows", "fate", "note")
VERSION_COLUMNS = ("name", "version", "how", "n_rows", "is_champion", "run_id")
SHOWN_TICKETS = 20


@command(example="tunegate data lineage T-000004 --pipeline support-replies")
def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|TICKET|CUSTOMER",
            help="NAME/VERSION or NAME of a model, a ticket's id, or a customer's, as in the source.",
            show_default=False,
        ),
    ],
    pipeline: Annotated[
        str | None,
        typer.Option(help="Only this pipeline; else all that have a warehouse.", autocompletion=complete_pipeline),
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Trace a ticket, a customer's tickets or a model.

    What became of the tickets and which models learned from them, or what a model was made from.
    """
    found = find_lineage(what, load_file(config), load_settings(config), pipeline=pipeline)
    tickets = {"ticket_id": what, "pipelines": {name: asdict(each) for name, each in found.tickets.items()}}
    data = {**(tickets if found.tickets else {}), "model": found.model, "customer": found.customer}
    return Result(data, _lineage_lines(found))


@command(example="tunegate data forget CUSTOMER --plan")
def forget(
    customer: Annotated[
        str | None, typer.Argument(help="The customer's id, as in the source.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is held where; remove nothing.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it, and keep the customer out from now on.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat every earlier removal, after a backup was restored.")
    ] = False,
    reason: Reason = "",
    by: By = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Keep out a customer of whom nothing is held, too.")
    ] = False,
    config: Config = CONFIG,
) -> Result:
    """Find or remove everything that is held of a customer.

    The models that learned from it are marked. One of --plan, --apply and --again is needed.
    """
    if plan + apply + again != 1 or (customer is None) != again:
        raise SecurityError(
            "say one of: CUSTOMER --plan, CUSTOMER --apply, --again", code="TG0833", where="forget",
            hint="tunegate data forget CUSTOMER --plan",
        )  # fmt: skip
    loaded, settings = load_file(config), load_settings(config)
    specs = [loaded.find(name) for name in sorted(loaded.pipelines)]
    if plan:
        held = plan_forgetting(settings, specs, customer or "", root=loaded.root)
        return Result(held.model_dump(mode="json"), holdings_text(held))
    if again:
        done = list(forget_again(settings, specs))
    else:
        done = [
            forget_customer(
                settings, specs, customer or "", root=loaded.root, reason=reason, actor=by or login(), unknown=unknown
            )
        ]
    if any(certificate.versions for certificate in done):
        late = synchronise(open_ledger(settings), settings)
        if late is not None:
            warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    return Result([certificate.model_dump(mode="json") for certificate in done], _done_text(done, settings, specs))


def holdings_text(held: Holdings) -> Iterator[Any]:
    """The places that hold something of a customer, and the versions that learned from it."""
    if not held.held and not held.versions:
        yield "nothing is held of this customer"
        return
    yield TextTable([each.model_dump() for each in held.held], COLUMNS)
    if held.versions:
        yield "\nlearned by:"
        yield TextTable([each.model_dump() for each in held.versions], VERSION_COLUMNS)
    tickets, places = counted(held.n_tickets, "ticket"), counted(len(held.to_do), "place")
    yield f"\n{tickets}; {places} to clear; `--apply --reason TEXT` does it"


def _done_text(done: Sequence[ForgetCertificate], settings: Settings, specs: Sequence[DataPipeline]) -> Iterator[str]:
    """The certificates; what to do next goes to stderr."""
    yield from map(certificate_text, done)
    yield f"{settings.forgotten / CERTIFICATES}" if done else "nothing of any forgotten customer is held"
    names = {version.name for certificate in done for version in certificate.versions}
    for spec in specs:
        if model_of(spec) in names:
            note(f"a retrain is ordered: the next tick of {spec.name} runs, or `tunegate run {spec.name}`")


def _lineage_lines(found: NamedLineage) -> Iterator[str]:
    """Everything that was found, the model first."""
    if found.model:
        yield from _model_lines(found.model)
    for name, each in found.tickets.items():
        yield f"{name}  snapshot {each.snapshot_id}"
        yield from (f"  {line}" for line in _fate_lines(each))
    if found.customer:
        yield from _customer_lines(found.customer)


def _model_lines(model: Mapping[str, Any]) -> list[str]:
    title = f"{model['name']} v{model['version']}{', champion' if model['is_champion'] else ''}: {model['verdict']}"
    examples, tickets, trained = model["examples"], model["tickets"], model["trained"]
    gone = "not in the store any more"
    lines = [
        f"{title} in run {model['run_id']} of {model['pipeline']}",
        f"snapshot {model['snapshot_id'] or gone}",
        f"tickets {_counts(tickets) if tickets else gone}",
        f"examples {_counts(examples) if examples else gone}",
        f"base {model['base']['uri']} ({model['base']['digest'][:16]})",
        f"trained {trained['method']}, {trained['steps']:,} steps ({trained['digest'][:16]})",
        f"continues from {', '.join(model['goes_on_from']) or 'no other training'}",
        f"bundle {model['bundle'][:16]}",
    ]
    return [*lines, *model["marked"]]


def _customer_lines(customer: Mapping[str, Any]) -> Iterator[str]:
    if customer["forgotten_at"]:
        yield f"forgotten at {customer['forgotten_at']}"
    for name, fates in customer["pipelines"].items():
        counts = Counter(fate["split"] or f"{fate['outcome']} by {fate['step']}" for fate in fates)
        summary = ", ".join(f"{n:,} {where}" for where, n in sorted(counts.items()))
        yield f"{name}  {counted(len(fates), 'ticket')}: {summary}"
        for fate in fates[:SHOWN_TICKETS]:
            where = f"in {fate['split']}" if fate["split"] else f"{fate['outcome']} by {fate['step']} as {fate['code']}"
            yield f"  {fate['ticket_id']} from {fate['source']}:{fate['source_line']}, {where}"
        if len(fates) > SHOWN_TICKETS:
            yield f"  and {len(fates) - SHOWN_TICKETS:,} more"
    for version in customer["learned_by"]:
        n_rows = counted(version["n_rows"], "example")
        yield f"{version['name']} v{version['version']} learned {version['how']} from {n_rows}"
    if not customer["learned_by"]:
        yield "no registered model learned from them"


def _fate_lines(found: Lineage) -> list[str]:
    lines = []
    for fate in found.fates:
        lines.append(f"read from {fate['source']}:{fate['source_line']}")
        lines.append(_ending(fate, found.steps))
    for each in found.corrections:
        what = {"set": f"set {each['field']}", "keep": f"kept it in spite of {each['rule']}", "drop": "dropped it"}
        lines.append(f"correction: {each['by']} {what[each['do']]} on {each['at'][:10]}, {each['state']}")
    if found.merged_into_it:
        members = ", ".join(f"{row['ticket_id']} ({row['score']:.3f})" for row in found.merged_into_it[:10])
        more = len(found.merged_into_it) - 10
        lines.append(f"kept in place of {members}{f' and {more} more' if more > 0 else ''}")
    return lines


def _ending(fate: dict[str, Any], steps: tuple[str, ...]) -> str:
    if fate["step"] is None:
        return f"passed {', '.join(steps)}; it is in {fate['split']}"
    passed = steps[: steps.index(fate["step"])]
    way = f"passed {', '.join(passed)}; " if passed else ""
    kept = f"; the other ticket is {fate['kept_id']}" if fate["kept_id"] else ""
    score = f" (similarity {fate['score']:.3f})" if fate["score"] is not None else ""
    return f"{way}{fate['outcome']} by {fate['step']} as {fate['code']}: {fate['reason']}{kept}{score}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())
