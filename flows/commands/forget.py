"""`tunegate forget`: where a customer's tickets are, their removal, and the removal again after a restored backup."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path

from flows.commands.output import out, print_json, print_rows, talk
from flows.ledger.opened import open_ledger
from flows.privacy.forget import CERTIFICATES, certificate_text, forget_again, plan_forgetting
from flows.privacy.forget import forget as forget_customer
from flows.workspace.settings import Settings, load_settings
from schemas.errors import SecurityError
from schemas.forget import Certificate, Holdings
from schemas.load import load_file
from schemas.pipeline import PipelineSpec

COLUMNS = ("kind", "place", "n_rows", "fate", "told")
VERSION_COLUMNS = ("name", "version", "how", "n_rows", "is_champion", "run_id")


def forget(
    *,
    customer: str | None,
    plan: bool,
    apply: bool,
    again: bool,
    reason: str,
    by: str | None,
    unknown: bool,
    config: Path,
    as_json: bool,
) -> int:
    """Say what is held of a customer (`plan`), remove it (`apply`), or apply every earlier removal anew (`again`).

    Raises:
        SecurityError: TG0833, not exactly one of the three was asked for, or no customer was given.
    """
    if plan + apply + again != 1 or (customer is None) != again:
        raise SecurityError(
            "say one of: CUSTOMER --plan, CUSTOMER --apply, --again",
            code="TG0833",
            where="forget",
            hint="tunegate forget CUSTOMER --plan",
        )
    loaded, settings = load_file(config), load_settings(config)
    specs = [loaded.get(name) for name in sorted(loaded.pipelines)]
    if plan:
        return _show(plan_forgetting(settings, specs, customer or ""), as_json=as_json)
    if again:
        done: Sequence[Certificate] = forget_again(settings, specs)
    else:
        done = [forget_customer(settings, specs, customer or "", reason=reason, actor=by or _me(), unknown=unknown)]
    _tell_mlflow(settings, done)
    if as_json:
        print_json([certificate.model_dump(mode="json") for certificate in done])
        return 0
    for certificate in done:
        out().print(certificate_text(certificate), markup=False, soft_wrap=True)
    if not done:
        out().print("nothing of any forgotten customer is held")
    else:
        out().print(f"{settings.forgotten / CERTIFICATES}", markup=False, soft_wrap=True)
    _say_what_is_next(specs, done)
    return 0


def _show(held: Holdings, *, as_json: bool) -> int:
    if as_json:
        print_json(held.model_dump(mode="json"))
        return 0
    if not held.held and not held.versions:
        out().print("nothing is held of this customer")
        return 0
    print_rows([each.model_dump() for each in held.held], COLUMNS)
    if held.versions:
        out().print("\nlearned by:")
        print_rows([each.model_dump() for each in held.versions], VERSION_COLUMNS)
    n_places = len(held.to_do)
    out().print(
        f"\n{held.n_tickets:,} tickets; {n_places:,} places to clear; `--apply --reason TEXT` does it", markup=False
    )
    return 0


def _tell_mlflow(settings: Settings, done: Sequence[Certificate]) -> None:
    if not any(certificate.versions for certificate in done):
        return
    from flows.champion.mlflow_sync import synchronise

    late = synchronise(open_ledger(settings), settings)
    if late is not None:
        talk().print(f"warning MLflow sync pending: {late.message}; `tunegate reconcile` later", markup=False)


def _say_what_is_next(specs: Sequence[PipelineSpec], done: Sequence[Certificate]) -> None:
    names = {version.name for certificate in done for version in certificate.versions}
    for spec in specs:
        if spec.registry.name in names:
            talk().print(f"note a retrain is ordered: the next tick of {spec.name} runs, or `tunegate run {spec.name}`",
                         markup=False)  # fmt: skip


def _me() -> str:
    """The login's name; in a container there may be none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "command line"
