"""What `tunegate ops doctor` examines: is this machine fit, and is the state folder whole? The checks are in
`flows/views/doctor.py` and `flows/views/exposure.py`."""

from __future__ import annotations

from collections.abc import Iterator

from flows.views import doctor as health
from flows.views.doctor import Check, Finding, Patient
from flows.views.exposure import exposure, rights
from flows.workspace.disk import named_disk_errors
from schemas.errors import TunegateError

CHECKS: tuple[Check, ...] = (
    health.python, health.packages, health.name_clashes, health.torch, health.config, health.disk, health.clock,
    rights, health.locks, health.ledger, health.interrupted, health.warehouses, health.mlflow_store,
    health.champions, health.pending_sync,
    health.local_servers, health.prefect, health.mlflow, health.sources, health.cluster, exposure,
)  # fmt: skip


def examine(check: Check, patient: Patient) -> Iterator[Finding]:
    """What one check finds; its error is a finding too, and ends no other check."""
    try:
        with named_disk_errors(patient.settings.home):
            yield from check(patient)
    except TunegateError as error:
        fix = error.hint or f"tunegate explain {error.code}"
        yield Finding(check.__name__, "bad", f"{error.code}: {error.message}", fix)
    except Exception as error:  # files may be damaged in any way; the message may quote a ticket
        message = f"cannot be checked ({type(error).__name__})"
        yield Finding(check.__name__, "bad", message, "restore it from a backup, or report this")
