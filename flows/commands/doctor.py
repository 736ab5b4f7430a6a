"""`tunegate doctor`: is this machine fit, and is what lies here whole?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from flows.commands.exposure import check_exposure, check_rights
from flows.commands.findings import Finding
from flows.commands.output import out, print_json
from flows.engine.clock import VARIABLE, present
from flows.engine.ledger import Ledger
from flows.servers import running
from flows.settings import Settings, load_settings
from schemas.errors import TunegateError
from schemas.load import load_file
from tasks.files import verify

MIN_FREE_GB = 5.0
OUR_PACKAGES = ("flows", "tasks", "schemas")


def doctor(*, config: Path, as_json: bool) -> int:
    """Print every finding; exit code 1 when one is bad."""
    settings = load_settings(config)
    checks: tuple[Callable[[Settings, Path], Iterator[Finding]], ...] = (
        _python, _packages, _config, _disk, _clock, _ledger, _champions, _servers,
        check_rights, check_exposure,
    )  # fmt: skip
    findings = [finding for check in checks for finding in _guarded(check, settings, config)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    marks = {"ok": "ok  ", "warn": "warn", "bad": "bad "}
    for finding in findings if not as_json else []:
        fix = f"   -> {finding.fix}" if finding.fix else ""
        out().print(f"{marks[finding.state]} {finding.what:<14} {finding.told}{fix}", markup=False)
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _guarded(
    check: Callable[[Settings, Path], Iterator[Finding]], settings: Settings, config: Path
) -> Iterator[Finding]:
    try:
        yield from check(settings, config)
    except TunegateError as error:
        yield Finding(
            check.__name__.removeprefix("check_").strip("_"), "bad", f"{error.code}: {error.message}", error.hint or ""
        )


def _python(_settings: Settings, _config: Path) -> Iterator[Finding]:
    fit = (3, 11) <= sys.version_info[:2] <= (3, 14)
    told = f"{sys.version.split()[0]}, {os.cpu_count()} cores"
    yield Finding("python", "ok" if fit else "bad", told, "" if fit else "use Python 3.11 to 3.14")


def _packages(_settings: Settings, _config: Path) -> Iterator[Finding]:
    """No other distribution may ship our top-level names: its files would shadow ours."""
    owners = metadata.packages_distributions()
    for name in OUR_PACKAGES:
        others = sorted(set(owners.get(name, [])) - {"tunegate"})
        if others:
            yield Finding("packages", "bad", f"{', '.join(others)} also ships `{name}`", f"uninstall {others[0]}")
    for name in ("torch", "transformers", "duckdb", "prefect", "mlflow"):
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "bad", "not installed", "make install")


def _config(_settings: Settings, config: Path) -> Iterator[Finding]:
    names = sorted(load_file(config).pipelines)
    yield Finding("config", "ok", f"{config}: {', '.join(names)}")


def _disk(settings: Settings, _config: Path) -> Iterator[Finding]:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    state = "ok" if free >= MIN_FREE_GB else "warn"
    yield Finding("disk", state, f"{free:.1f} GB free at {settings.home}", "" if state == "ok" else "make room")
    if not os.access(folder, os.W_OK):
        yield Finding("home", "bad", f"{folder} is not writable", "set TUNEGATE_HOME")


def _clock(_settings: Settings, _config: Path) -> Iterator[Finding]:
    if os.environ.get(VARIABLE):
        told = f"{VARIABLE} is set: it is {present().isoformat(timespec='seconds')} for every tick and cooldown"
        yield Finding("clock", "warn", told, f"unset {VARIABLE}")


def _ledger(settings: Settings, _config: Path) -> Iterator[Finding]:
    if not (settings.home / "ledger.sqlite").exists():
        yield Finding("ledger", "ok", "no run yet")
        return
    ledger = Ledger(settings.home)
    events = ledger.history()
    interrupted = ledger.mark_interrupted()
    yield Finding("ledger", "ok", f"{len(events)} moves of a champion, history whole")
    for row in interrupted:
        yield Finding("run", "warn", f"{row.run_id} was interrupted", f"tunegate run {row.pipeline}")
    pending = len(ledger.pending_projections())
    if pending:
        yield Finding("mlflow", "warn", f"{pending} changes not told", "tunegate reconcile")


def _champions(settings: Settings, _config: Path) -> Iterator[Finding]:
    if not (settings.home / "ledger.sqlite").exists():
        return
    for champion in Ledger(settings.home).champions():
        for artifact in (champion.bundle, champion.trained, champion.model):
            verify(artifact.root)
        yield Finding("champion", "ok", f"{champion.name} v{champion.version}: every file has its sha256")


def _servers(settings: Settings, _config: Path) -> Iterator[Finding]:
    for server in running(settings.home):
        yield Finding("server", "ok", f"{server.kind} at {server.url}")
