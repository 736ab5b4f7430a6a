"""Makes functions of `tasks/assess` a check of the gate: one measures, in a step of its own, and one judges.

    class ReplyLengthSpec(Spec):
        longest: int = 400

    def judge_length(evidence: CheckEvidence, spec: ReplyLengthSpec) -> Iterator[Finding]:
        longest = measured(evidence, "longest")
        met = longest is not None and longest <= spec.longest
        yield finding("check", "replies are short", "PROMOTE" if met else "BLOCK", n_items=evidence.n_items, ...)

    @gate_check("reply_length", ReplyLengthSpec, judge=judge_length)
    @as_step("reply_length", libraries=("pyarrow",))
    def measure_length(out: Path, *, predictions: Predictions) -> CheckEvidence:

The settings are the key `gates.reply_length` from then on. The step takes, by the names of its parameters, what
`flows/gate_checks.py` offers and settings of its own; a limit that only the judge reads measures nothing again. Knows
none of the checks: `checks.py` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from schemas.evidence import CheckEvidence
from schemas.gates import GATE_SECTIONS, GatesSpec
from schemas.spec import Spec
from schemas.verdicts import Finding, Part, Verdict

P = ParamSpec("P")
S = TypeVar("S", bound=Spec)
D = TypeVar("D")


@dataclass(frozen=True)
class Check:
    """A check whose evidence is judged by itself."""

    name: str
    """The key under `gates`, and `check` of the evidence."""
    part: Part
    """What its findings are about; it decides their place in the verdict."""
    declared: Callable[[GatesSpec], Any]
    """What the judge needs of the settings; None where the check is not declared."""
    judge: Callable[[CheckEvidence, Any], Iterator[Finding]]
    measure: Callable[..., CheckEvidence] | None = None
    """The step that measures; None where `flows/gate_checks.py` adds it, because it takes more than one step."""


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
    """Register the judge of a check whose settings are in `schemas/gates.py`; arguments as the fields of `Check`."""

    def register(
        judge: Callable[[CheckEvidence, D], Iterator[Finding]],
    ) -> Callable[[CheckEvidence, D], Iterator[Finding]]:
        _CHECKS[name] = Check(name, part, declared, judge)
        return judge

    return register


def declared_checks(gates: GatesSpec) -> tuple[Check, ...]:
    """The checks that these gates declare, in the order in which they were registered."""
    return tuple(check for check in _CHECKS.values() if check.declared(gates) is not None)


def remove_check(name: str) -> None:
    """Take a check out again, as if its file had not been imported."""
    del _CHECKS[name]
    GATE_SECTIONS.remove(name)


def check_findings(evidence: Sequence[CheckEvidence], gates: GatesSpec) -> Iterator[Finding]:
    """The findings of each declared check. One whose evidence is missing or doubled is ERROR, never passed over."""
    for check in declared_checks(gates):
        found = [each for each in evidence if each.check == check.name]
        if len(found) == 1:
            yield from check.judge(found[0], check.declared(gates))
        else:
            yield finding(
                check.part, f"gates.{check.name}", "ERROR", n_items=0, value=None, method="none",
                reason=f"{len(found)} results of the check arrived at the gate, and one is needed; run again.",
            )  # fmt: skip


def finding(
    part: Part,
    rule: str,
    verdict: Verdict,
    *,
    n_items: int,
    value: float | None,
    method: str,
    reason: str,
    limit: float | None = None,
    reference: float | None = None,
    metric: str = "",
    decides: bool = True,
) -> Finding:
    """A finding about one measured value, without bounds."""
    return Finding(
        rule=rule, metric=metric or part, verdict=verdict, n_items=n_items, candidate=value, reference=reference,
        difference=None if value is None or limit is None else value - limit, limit=limit, method=method,
        reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip


def measured(evidence: CheckEvidence, name: str) -> float | None:
    """A finite value, else null."""
    value = evidence.values.get(name)
    return value if value is not None and math.isfinite(value) else None
