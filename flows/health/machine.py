"""Checks of the machine: Python, packages, torch and its devices, disk, clock.

Called by `flows/commands/doctor.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

from flows.commands.findings import Finding
from flows.engine.clock import VARIABLE, present
from flows.health.patient import Patient
from schemas.load import load_file

MIN_FREE_GB = 5.0
OUR_PACKAGES = ("flows", "tasks", "schemas")
NEEDED = ("torch", "transformers", "duckdb", "prefect", "mlflow")


def python(_patient: Patient) -> Iterator[Finding]:
    """Its version, and what the processor has."""
    fit = (3, 11) <= sys.version_info[:2] <= (3, 14)
    told = f"{sys.version.split()[0]}, {os.cpu_count()} cores"
    yield Finding("python", "ok" if fit else "bad", told, "" if fit else "use Python 3.11 to 3.14")


def packages(_patient: Patient) -> Iterator[Finding]:
    """Is everything installed that a run imports?"""
    for name in NEEDED:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "bad", "not installed", "make install")


def name_clashes(_patient: Patient) -> Iterator[Finding]:
    """No other distribution may ship our top-level names: its files would shadow ours."""
    owners = metadata.packages_distributions()
    clashes = [(name, other) for name in OUR_PACKAGES for other in sorted(set(owners.get(name, [])) - {"tunegate"})]
    for name, other in clashes:
        yield Finding("names", "bad", f"{other} also ships `{name}`", f"uninstall {other}")
    if not clashes:
        yield Finding("names", "ok", f"no other distribution ships {', '.join(OUR_PACKAGES)}")


def torch(_patient: Patient) -> Iterator[Finding]:
    """Its arithmetic, threads and devices; imports it, which takes seconds."""
    from tasks.model.machine import torch_facts

    facts = torch_facts()
    n_cores = os.cpu_count() or 1
    told = f"{facts.n_threads} threads, {'bfloat16' if facts.bfloat16 else 'float32: no bfloat16 products in hardware'}"
    crowded = facts.n_threads > n_cores
    yield Finding(
        "arithmetic", "warn" if crowded else "ok", told,
        f"set OMP_NUM_THREADS to at most {n_cores}" if crowded else "",
    )  # fmt: skip
    for device in facts.devices:
        yield Finding("device", "ok", device)


def config(patient: Patient) -> Iterator[Finding]:
    """Does the loader take the file?"""
    names = sorted(load_file(patient.config).pipelines)
    yield Finding("config", "ok", f"{patient.config}: {', '.join(names)}")


def disk(patient: Patient) -> Iterator[Finding]:
    """Is there room, and may it be written to? For the state folder and for the cache."""
    for what, place in (("disk", patient.settings.home), ("cache", patient.settings.cache)):
        folder = place
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        roomy = free >= MIN_FREE_GB
        yield Finding(
            what, "ok" if roomy else "warn", f"{free:.1f} GB free at {place}",
            "" if roomy else f"make room: {MIN_FREE_GB:g} GB hold a base model and a few runs",
        )  # fmt: skip
        if not os.access(folder, os.W_OK):
            variable = "TUNEGATE_HOME" if what == "disk" else "TUNEGATE_CACHE"
            yield Finding(what, "bad", f"{folder} is not writable", f"set {variable}")


def clock(_patient: Patient) -> Iterator[Finding]:
    """Is a test's clock left behind?"""
    if os.environ.get(VARIABLE):
        told = f"{VARIABLE} is set: it is {present().isoformat(timespec='seconds')} for every tick and cooldown"
        yield Finding("clock", "warn", told, f"unset {VARIABLE}")
