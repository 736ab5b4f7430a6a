"""What people see of `tunegate data forget`, which also marks versions in MLflow, and of `tunegate data lineage`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.cli.output import note, out, print_json, print_rows, warn
from flows.ledger.open import open_ledger
from flows.privacy.forget import CERTIFICATES, certificate_text
from flows.views.lineage import NamedLineage
from flows.workspace.settings import Settings
from schemas.counted import counted
from schemas.forget import Certificate, Holdings
from schemas.pipeline import PipelineSpec
from tasks.curate.warehouse_query import Lineage

COLUMNS = ("kind", "place", "n_rows", "fate", "note")
VERSION_COLUMNS = ("name", "version", "how", "n_rows", "is_champion", "run_id")
SHOWN_TICKETS = 20


def print_holdings(held: Holdings) -> None:
    """The places that hold something of a customer, and the versions that learned from it."""
    if not held.held and not held.versions:
        out().print("nothing is held of this customer")
        return
    print_rows([each.model_dump() for each in held.held], COLUMNS)
    if held.versions:
        out().print("\nlearned by:")
        print_rows([each.model_dump() for each in held.versions], VERSION_COLUMNS)
    tickets, places = counted(held.n_tickets, "ticket"), counted(len(held.to_do), "place")
    out().print(f"\n{tickets}; {places} to clear; `--apply --reason TEXT` does it", markup=False)


def print_done(
    done: Sequence[Certificate], settings: Settings, specs: Sequence[PipelineSpec], *, as_json: bool
) -> None:
    """The certificates; warnings and what to do next go to stderr."""
    _mark_in_mlflow(settings, done)
    if as_json:
        print_json([certificate.model_dump(mode="json") for certificate in done])
        return
    for certificate in done:
        out().print(certificate_text(certificate), markup=False, soft_wrap=True)
    if not done:
        out().print("nothing of any forgotten customer is held")
    else:
        out().print(f"{settings.forgotten / CERTIFICATES}", markup=False, soft_wrap=True)
    names = {version.name for certificate in done for version in certificate.versions}
    for spec in specs:
        if spec.registry.name in names:
            note(f"a retrain is ordered: the next tick of {spec.name} runs, or `tunegate run {spec.name}`")


def _mark_in_mlflow(settings: Settings, done: Sequence[Certificate]) -> None:
    if not any(certificate.versions for certificate in done):
        return
    from flows.champion.mlflow_sync import synchronise  # MLflow: only where there is something to mark

    late = synchronise(open_ledger(settings), settings)
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")


def lineage_lines(found: NamedLineage) -> Iterator[str]:
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
