"""`make audit`: licences of what is installed, and advisories that are never taken for granted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.audit import Policy, ask, is_allowed, licence_faults, main
from tasks.release.bill import Distribution, installed, read_lock, with_licences

POLICY = Policy(frozenset({"MIT", "ISC", "Apache-2.0"}), names={"MIT License": "MIT"}, prefixes={"nvidia-": "own"})


def test_everything_that_is_installed_has_an_allowed_licence(project: Path) -> None:
    policy = Policy.read()
    here = [each for each in with_licences(installed(read_lock(project / "requirements.lock"))) if each.hashes]
    assert len(here) > 150
    assert list(licence_faults(here, policy)) == []


def test_every_exception_is_still_needed(project: Path) -> None:
    policy = Policy.read()
    pins = {pin.name for pin in read_lock(project / "requirements.lock")}
    assert set(policy.exceptions) <= pins
    assert all(any(name.startswith(prefix) for name in pins) for prefix in policy.prefixes)
    assert all(why for why in [*policy.exceptions.values(), *policy.prefixes.values(), *policy.accepted.values()])
    bare = Policy(policy.allowed, policy.names, prefixes=policy.prefixes)
    here = with_licences(Distribution(name, "0") for name in policy.exceptions)
    excused = {fault.split()[0] for fault in licence_faults(here, bare)}
    assert excused == set(policy.exceptions)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("MIT License", True), ("GPL-3.0", False), ("", False), ("MIT AND ISC", True),
        ("MIT AND GPL-3.0", False), ("GPL-3.0 OR MIT", True), ("GPL-3.0 AND MIT OR ISC", True),
        ("GPL-3.0 AND (MIT OR ISC)", False), ("(MIT)", True), ("(MIT", False), ("MIT AND", False), ("MIT)", False),
        ("MIT OR OR ISC", False), ("MIT WITH Odd-exception", False), ("((MIT OR GPL-3.0)) AND ISC", True),
    ],
)  # fmt: skip
def test_an_expression_is_read_as_spdx_means_it(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, POLICY) is allowed


def test_a_package_without_an_allowed_licence_is_named() -> None:
    pins = [Distribution("good", "1", licence="MIT"), Distribution("bad", "2", licence="AGPL-3.0"),
            Distribution("mute", "3"), Distribution("nvidia-x", "4", licence="own")]  # fmt: skip
    assert list(licence_faults(pins, POLICY)) == ["bad 2: AGPL-3.0", "mute 3: names no licence"]


def _says(dependencies: list[dict[str, Any]] | None, *, code: int = 0, error: str = "") -> Any:
    out = "" if dependencies is None else json.dumps({"dependencies": dependencies})
    return lambda command, **_options: subprocess.CompletedProcess(command, code, out, error)


FINE = {"name": "a", "version": "1", "vulns": []}
SICK = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-9"], "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_what_was_skipped_is_not_taken_for_good(project: Path) -> None:
    advice = ask(project, accepted={}, run=_says([FINE, SKIPPED]))
    assert (advice.n_asked, advice.found, advice.unasked) == (1, (), ("c: not found",))


def test_a_vulnerability_is_named_with_what_mends_it_unless_it_is_accepted_with_a_reason(project: Path) -> None:
    assert ask(project, accepted={}, run=_says([FINE, SICK], code=1)).found == ("b 2: PYSEC-1 (mended in 3)",)
    assert ask(project, accepted={"CVE-9": "not reached"}, run=_says([FINE, SICK], code=1)).found == ()


@pytest.mark.parametrize("answer", [_says(None, code=1, error="a\nConnectionError"), _says(None), _says([])])
def test_no_answer_is_no_good_answer(project: Path, answer: Any) -> None:
    advice = ask(project, accepted={}, run=answer)
    assert advice.n_asked == 0
    assert not advice.found


@pytest.mark.parametrize(
    ("dependencies", "code"), [([FINE], 0), ([FINE, SICK], 1), ([FINE, SKIPPED], 7), ([SKIPPED], 7), ([], 7), (None, 7)]
)
def test_the_exit_code_fails_closed(
    dependencies: list[dict[str, Any]] | None, code: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("subprocess.run", _says(dependencies, error="no route"))
    monkeypatch.setattr("infra.audit.licence_faults", lambda *_: iter(()))
    assert main() == code
    assert ("COULD NOT ASK" in capsys.readouterr().out) == (code == 7 and dependencies != [])
