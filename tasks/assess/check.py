"""Declare a check of the gate: a step that measures, and a function that judges what it measured.

    class ReplyLengthSpec(Spec):
        longest: int = 400

    def judge_length(evidence: CheckEvidence, spec: ReplyLengthSpec) -> Iterator[Finding]:
        longest = measured(evidence, "longest")
        met = longest is not None and longest <= spec.longest
        value = Measurement(longest, n_items=evidence.n_items, limit=spec.longest, method="count")
        yield finding("check", "replies are short", "PROMOTE" if met else "BLOCK", value, reason="...")

    @gate_check("reply_length", ReplyLengthSpec, judge=judge_length)
    @as_step("reply_length", libraries=("pyarrow",))
    def measure_length(out: Path, *, predictions: Predictions) -> CheckEvidence:

This adds the key `gates.reply_length`. The step's parameters are filled by name, from its settings and from what
`flows/gate_checks.py` offers. Changing a limit that only the judge reads does not measure again. `checks.py` lists the
checks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from schemas.artifacts import CheckEvidence
from schemas.gates import GATE_SECTIONS, GatesSpec
from schemas.spec import Spec
from schemas.verdicts import Finding, Part, Verdict

P = ParamSpec("P")
S = TypeVar("S", bound=Spec)
D = TypeVar("D")


@dataclass(frozen=True)
class Check:
    """A check that is judged on its own evidence."""

    name: str
    """The key under `gates`, and `check` of the evidence."""
    part: Part
    """What its findings are about, which decides their place in the verdict."""
    declared: Callable[[GatesSpec], Any]
    """Returns the settings that the judge needs; None if the check is not declared."""
    judge: Callable[[CheckEvidence, Any], Iterator[Finding]]
    measure: Callable[..., CheckEvidence] | None = None
    """The step that measures; None for a step in another package, which `flows/gate_checks.py` lists."""


_CHECKS: dict[str, Check] = {}


def gate_check(
    name: str, spec: type[S], *, judge: Callable[[CheckEvidence, S], Iterator[Finding]], part: Part = "check"
) -> Callable[[Callable[P, CheckEvidence]], Callable[P, CheckEvidence]]:
    """Register a step and its judge under the key `gates.<name>`."""

    def register(measure: Callable[P, CheckEvidence]) -> Callable[P, CheckEvidence]:
        GATE_SECTIONS.add(name, spec)
        _CHECKS[name] = Check(name, part, lambda gates: getattr(gates, name), judge, measure)
        return measure

    return register


def judge_of(
    name: str, part: Part, declared: Callable[[GatesSpec], D | None]
) -> Callable[[Callable[[CheckEvidence, D], Iterator[Finding]]], Callable[[CheckEvidence, D], Iterator[Finding]]]:
    """Register the judge of a check whose settings are in `schemas/gates.py`; arguments are fields of `Check`."""

    def register(
        judge: Callable[[CheckEvidence, D], Iterator[Finding]],
    ) -> Callable[[CheckEvidence, D], Iterator[Finding]]:
        _CHECKS[name] = Check(name, part, declared, judge)
        return judge

    return register


def declared_checks(gates: GatesSpec) -> tuple[Check, ...]:
    """The declared checks, in the order of their registration."""
    return tuple(check for check in _CHECKS.values() if check.declared(gates) is not None)


def check_findings(evidence: Sequence[CheckEvidence], gates: GatesSpec) -> Iterator[Finding]:
    """Yield the findings of each declared check; ERROR for one without exactly one piece of evidence."""
    for check in declared_checks(gates):
        found = [each for each in evidence if each.check == check.name]
        if len(found) == 1:
            yield from check.judge(found[0], check.declared(gates))
        else:
            reason = f"the gate got {len(found)} results of the check instead of one; run again."
            nothing = Measurement(None, n_items=0, method="none")
            yield finding(check.part, f"gates.{check.name}", "ERROR", nothing, reason=reason)


@dataclass(frozen=True)
class Measurement:
    """One measured value, without bounds."""

    value: float | None
    n_items: int
    method: str
    """How it was measured."""
    limit: float | None = None
    """Largest allowed value."""
    metric: str = ""
    """Name of the value; empty for that of the check."""


def finding(
    part: Part, rule: str, verdict: Verdict, measurement: Measurement, *, reason: str, decides: bool = True
) -> Finding:
    """A finding about one measured value."""
    value, limit = measurement.value, measurement.limit
    return Finding(
        rule=rule, metric=measurement.metric or part, verdict=verdict, n_items=measurement.n_items, candidate=value,
        difference=None if value is None or limit is None else value - limit, limit=limit, method=measurement.method,
        reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip


def measured(evidence: CheckEvidence, name: str) -> float | None:
    """The value if it is finite, else None."""
    value = evidence.values.get(name)
    return value if value is not None and math.isfinite(value) else None
