"""`tunegate doctor`: is this machine fit, and is what lies here whole? The checks are in `flows/views/doctor.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from flows.commands.exposure import check_exposure, check_rights
from flows.commands.output import out, print_json
from flows.views import doctor as health
from flows.views.doctor import Check, Finding, Patient
from flows.workspace.disk import named_disk_errors
from flows.workspace.settings import load_settings
from schemas.errors import TunegateError


def rights(patient: Patient) -> Iterator[Finding]:
    """Who may look into the state folder?"""
    yield from check_rights(patient.settings, patient.config)


def exposure(patient: Patient) -> Iterator[Finding]:
    """Who else can reach the servers?"""
    yield from check_exposure(patient.settings, patient.config)


CHECKS: tuple[Check, ...] = (
    health.python, health.packages, health.name_clashes, health.torch, health.config, health.disk, health.clock,
    rights, health.locks, health.ledger, health.interrupted, health.warehouses, health.mlflow_store,
    health.champions, health.pending_sync,
    health.local_servers, health.prefect, health.mlflow, health.sources, health.cluster, exposure,
)  # fmt: skip


def doctor(*, config: Path, as_json: bool) -> int:
    """Print every finding; exit code 1 when one is bad."""
    patient = Patient(load_settings(config), config, os.environ)
    findings = [finding for check in CHECKS for finding in examine(check, patient)]
    fit = all(finding.state != "bad" for finding in findings)
    if as_json:
        print_json({"fit": fit, "findings": [asdict(finding) for finding in findings]})
    marks = {"ok": "ok  ", "warn": "warn", "bad": "bad "}
    for finding in findings if not as_json else []:
        fix = f"   -> {finding.fix}" if finding.fix else ""
        out().print(f"{marks[finding.state]} {finding.what:<14} {finding.told}{fix}", markup=False, soft_wrap=True)
    return 0 if fit else 1


def examine(check: Check, patient: Patient) -> Iterator[Finding]:
    """What one check finds; its error is a finding too, and ends no other check."""
    try:
        with named_disk_errors(patient.settings.home):
            yield from check(patient)
    except TunegateError as error:
        fix = error.hint or f"tunegate explain {error.code}"
        yield Finding(check.__name__, "bad", f"{error.code}: {error.message}", fix)
    except Exception as error:  # of what lies there, which may be damaged in any way; its words may quote a ticket
        told = f"cannot be checked ({type(error).__name__})"
        yield Finding(check.__name__, "bad", told, "put it back from a backup, or report this")
