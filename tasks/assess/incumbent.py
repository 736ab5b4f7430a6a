"""What the gate says of an incumbent that is an endpoint: whether it answered whole, what it costs, how it was timed.

`tasks/assess/endpoint_arm.py` measures. A missing measurement is ERROR. Seconds are kept outside the store, so that
equal inputs give equal decisions.
"""

from collections.abc import Iterator, Sequence

from schemas.artifacts import CheckEvidence
from schemas.counted import counted
from schemas.gates import GatesSpec
from schemas.verdicts import INCUMBENT, Finding, Part, Verdict
from tasks.assess.check import measured
from tasks.assess.measured_checks import SHOWN


def incumbent_findings(evidence: Sequence[CheckEvidence], gates: GatesSpec, name: str) -> Iterator[Finding]:
    """Yield two findings if a rule compares with an endpoint: whether its answers are whole, and its price.

    Args:
        name: Of the endpoint's model.
    """
    if not gates.has_incumbent:
        return
    rule = f"endpoint ({name}) answers every item whole"
    found = [each for each in evidence if each.check == INCUMBENT]
    values = [measured(found[0], key) for key in ("empty", "cut", "allowed")] if len(found) == 1 else [None]
    if None in values or found[0].n_items < 1:
        yield _finding("check", rule, "ERROR", None, n_items=0, reason="its answers were not counted; run again.")
        return
    n_items = found[0].n_items
    empty, cut, allowed = (value or 0.0 for value in values)
    share = (empty + cut) / n_items
    verdict: Verdict = "PROMOTE" if share <= allowed else "HOLD"
    reason = f"{n_items:,} answers, of which {empty:.0f} are empty or refused, and {cut:.0f} cut"
    if verdict == "HOLD":
        reason += (
            f": more than {allowed:g} of them (evaluate.endpoint.max_incomplete), so that it would lose items without "
            "being worse; raise evaluate.max_new_tokens for those that are cut"
        )
    yield _finding("check", rule, verdict, share, n_items=n_items, reason=f"{reason}.", limit=allowed)
    usd, n_in, n_out = (measured(found[0], key) for key in ("usd_per_1k", "prompt_tokens", "new_tokens"))
    if n_in is None or n_out is None:
        reason = f"the server counts no tokens; {SHOWN}."
    else:
        mean = f"{n_in / n_items:,.4g} tokens in and {counted(round(n_out / n_items), 'token')} out an answer"
        price = "no prices are declared (evaluate.endpoint.prices)" if usd is None else f"{usd:.4g} USD"
        reason = f"{price}, at {mean}; {SHOWN} of both models."
    yield _finding(
        "cost", f"cost of 1,000 answers of endpoint ({name})", "HOLD", usd, n_items=n_items, reason=reason,
        decides=False,
    )  # fmt: skip


def _finding(
    part: Part, rule: str, verdict: Verdict, value: float | None, *, n_items: int, reason: str,
    limit: float | None = None, decides: bool = True,
) -> Finding:  # fmt: skip
    """A finding about the endpoint, whose value is that of the reference."""
    return Finding(
        rule=rule, metric=INCUMBENT, verdict=verdict, n_items=n_items, candidate=None, reference=value, limit=limit,
        method="count", reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip
