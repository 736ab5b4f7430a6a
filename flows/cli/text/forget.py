"""What `tunegate data forget` found or removed, for people; MLflow gets the marks of the versions."""

from __future__ import annotations

from collections.abc import Sequence

from flows.cli.output import note, out, print_json, print_rows, warn
from flows.ledger.opened import open_ledger
from flows.privacy.forget import CERTIFICATES, certificate_text
from flows.workspace.settings import Settings
from schemas.forget import Certificate, Holdings
from schemas.pipeline import PipelineSpec

COLUMNS = ("kind", "place", "n_rows", "fate", "note")
VERSION_COLUMNS = ("name", "version", "how", "n_rows", "is_champion", "run_id")


def print_holdings(held: Holdings) -> None:
    """The places that hold something of a customer, and the versions that learned from it."""
    if not held.held and not held.versions:
        out().print("nothing is held of this customer")
        return
    print_rows([each.model_dump() for each in held.held], COLUMNS)
    if held.versions:
        out().print("\nlearned by:")
        print_rows([each.model_dump() for each in held.versions], VERSION_COLUMNS)
    n_places = len(held.to_do)
    out().print(
        f"\n{held.n_tickets:,} tickets; {n_places:,} places to clear; `--apply --reason TEXT` does it", markup=False
    )


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
