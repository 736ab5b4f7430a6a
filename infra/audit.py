"""`make audit`: known vulnerabilities of the locked packages, and the licences of the installed ones.

pip-audit answers "no known vulnerabilities" and ends with 0 also when it could ask about nothing: behind a mirror, say,
every package is skipped. Here what was not asked about is told and ends with 7. Exit codes: 0 all is well, 1 something
was found, 7 the service of advisories did not tell all.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.release.bill import Distribution, installed, read_lock, with_licences

PROJECT = Path(__file__).resolve().parents[1]
POLICY = Path(__file__).with_name("licences.toml")
TIMEOUT_S = 600
_TOKEN = re.compile(r"\(|\)|\bAND\b|\bOR\b")
Run = Callable[[list[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Policy:
    """`infra/licences.toml`."""

    allowed: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = POLICY) -> Policy:
        """The file; an unknown key is an error."""
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(**{**told, "allowed": frozenset(told["allowed"])})


@dataclass(frozen=True)
class Advice:
    """What pip-audit said: `found` and `unasked` are lines for a person."""

    n_asked: int
    found: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


def main() -> int:
    """Print what is wrong; returns the exit code."""
    policy, lock = Policy.read(), read_lock(PROJECT / "requirements.lock")
    here = with_licences(installed(lock))
    faults = list(licence_faults(here, policy))
    absent = {pin.name for pin in lock} - {each.name for each in here}
    _say(f"licences: {len(here) - len(faults)} of {len(here)} installed packages are allowed", faults)
    _say(f"not installed here, so not looked at: {', '.join(sorted(absent)) or 'none'}", [])
    advice = ask(PROJECT / "requirements.lock", accepted=policy.accepted)
    _say(f"advisories: asked about {advice.n_asked} packages, {len(advice.found)} known vulnerabilities", advice.found)
    if advice.unasked:
        _say(f"COULD NOT ASK about {len(advice.unasked)} packages: nothing is known of them", advice.unasked[:10])
    if faults or advice.found:
        return 1
    return 7 if advice.unasked or not advice.n_asked else 0


def licence_faults(distributions: Iterable[Distribution], policy: Policy) -> Iterator[str]:
    """One line for each package whose licence is not allowed."""
    for each in distributions:
        excused = each.name in policy.exceptions or each.name.startswith(tuple(policy.prefixes))
        if not excused and not is_allowed(each.licence, policy):
            yield f"{each.name} {each.version}: {each.licence or 'names no licence'}"


def is_allowed(expression: str, policy: Policy) -> bool:
    """Of an SPDX expression: all of AND, one of OR; a name without SPDX form goes through `names`.

    >>> is_allowed("MIT AND (GPL-3.0 OR ISC)", Policy(frozenset({"MIT", "ISC"})))
    True
    >>> is_allowed("MIT AND GPL-3.0", Policy(frozenset({"MIT"})))
    False
    """
    if expression in policy.names:
        return policy.names[expression] in policy.allowed
    if not expression:
        return False
    words, terms = [], []
    place = 0
    for token in [*_TOKEN.finditer(expression), None]:
        term = expression[place : token.start() if token else None].strip()
        if term:
            terms.append(policy.names.get(term, term) in policy.allowed)
            words.append("term")
        if token:
            words.append(token[0])
            place = token.end()
    values = iter(terms)
    found, rest = _any_of(words, values)
    return found and not rest


def _any_of(words: list[str], values: Iterator[bool]) -> tuple[bool, list[str]]:
    found, words = _all_of(words, values)
    while words[:1] == ["OR"]:
        more, words = _all_of(words[1:], values)
        found = found or more
    return found, words


def _all_of(words: list[str], values: Iterator[bool]) -> tuple[bool, list[str]]:
    found, words = _one(words, values)
    while words[:1] == ["AND"]:
        more, words = _one(words[1:], values)
        found = found and more
    return found, words


def _one(words: list[str], values: Iterator[bool]) -> tuple[bool, list[str]]:
    if words[:1] == ["("]:
        found, words = _any_of(words[1:], values)
        return (found, words[1:]) if words[:1] == [")"] else (False, ["("])
    return (next(values), words[1:]) if words[:1] == ["term"] else (False, ["?"])


def ask(lock: Path, *, accepted: Mapping[str, str], run: Run | None = None) -> Advice:
    """What is known of the locked packages; a package that was not asked about is never taken for a good one."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off", "--timeout", "20",
    ]  # fmt: skip
    try:
        done = (run or _run)(command)
        told = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired) as error:
        return Advice(0, unasked=(f"pip-audit did not end: {type(error).__name__}",))
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no answer"])[-1]
        return Advice(0, unasked=(last[:300],))
    asked = [entry for entry in told if "skip_reason" not in entry]
    found = [
        _line(entry, vuln) for entry in asked for vuln in entry.get("vulns", []) if not _is_accepted(vuln, accepted)
    ]
    unasked = [f"{entry['name']}: {entry['skip_reason']}" for entry in told if "skip_reason" in entry]
    return Advice(len(asked), tuple(sorted(found)), tuple(sorted(unasked)))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def _line(entry: Mapping[str, Any], vuln: Mapping[str, Any]) -> str:
    mended = ", ".join(vuln.get("fix_versions") or []) or "no version mends it yet"
    return f"{entry['name']} {entry['version']}: {vuln['id']} (mended in {mended})"


def _is_accepted(vuln: Mapping[str, Any], accepted: Mapping[str, str]) -> bool:
    return bool({vuln["id"], *vuln.get("aliases", [])} & accepted.keys())


def _say(head: str, lines: Iterable[str]) -> None:
    sys.stdout.write("\n".join([head, *(f"  {line}" for line in lines)]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
