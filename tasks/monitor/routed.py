"""Routed tickets in service: how often their label was right in each week, and whether the certificate still holds.

The test may be read after every ticket, for as long as a version serves: the chance that it ever warns of a certificate
that holds is at most the declared error. It reads no clock and no ledger.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from schemas.artifacts import ServedCertificate
from schemas.feedback import RoutedVersion, RoutedWeek
from tasks.assess.certify import BETS
from tasks.assess.compare import clopper_pearson_interval
from tasks.monitor.feedback import CONFIDENCE, RoutedTicket, routed_tickets

MAX_LOG = 700.0
"""Nats up to which evidence is told apart: its exponential is still a number."""


def evidence_against(right: Sequence[bool], target: float) -> float:
    """How strongly routed tickets speak against being right as often as `target`, at the worst moment so far.

    A gambler stakes 1 on wrong labels: a wrong one multiplies a bet of size b by 1 + b * target, a right one by
    1 - b * (1 - target). If labels are right at least as often as `target`, whatever came before, no bet gains in
    expectation, nor does the mean over several sizes; so the chance that the stake is ever 1 / error or more is at most
    `error`, however often one looks (Ville's inequality). Exact for any number of tickets.
    Source: Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting, arXiv 2010.09686.

    Args:
        right: Of each ticket, in the order in which they became known.

    >>> round(evidence_against([True] * 50, 0.95), 2)
    1.0
    >>> evidence_against([True, True, False] * 5, 0.95) > 1 / 0.05
    True
    """
    wins = target - np.asarray(right, np.float64)
    logs = np.log1p(np.multiply.outer(BETS / (1 - target), wins)).cumsum(axis=1)
    if not logs.size:
        return 1.0
    peaks = logs.max(axis=0)
    stakes = peaks + np.log(np.exp(logs - peaks).mean(axis=0))
    return math.exp(min(max(0.0, float(stakes.max())), MAX_LOG))


def watch_certificates(
    database: Path, certificates: Mapping[str, ServedCertificate], *, error: float, upto: int
) -> tuple[RoutedVersion, ...]:
    """What feedback says of the routed tickets of each version with a certificate, the oldest version first.

    Args:
        certificates: Of versions.
        error: Chance of a warning about one that holds.
        upto: The last row of the feedback to use.
    """
    found: dict[str, list[RoutedTicket]] = {}
    for ticket in routed_tickets(database, upto=upto):
        if ticket.version in certificates:
            found.setdefault(ticket.version, []).append(ticket)
    return tuple(_watched(certificates[version], tickets, error) for version, tickets in found.items())


def _watched(certificate: ServedCertificate, tickets: Sequence[RoutedTicket], error: float) -> RoutedVersion:
    evidence = evidence_against([ticket.right for ticket in tickets], certificate.target)
    weeks: dict[date, list[bool]] = {}
    for ticket in tickets:
        weeks.setdefault(ticket.week, []).append(ticket.right)
    return RoutedVersion(
        version=tickets[0].version,
        target=certificate.target,
        n=len(tickets),
        n_right=sum(ticket.right for ticket in tickets),
        evidence=evidence,
        holds=evidence < 1 / error,
        weeks=tuple(_week(monday, weeks[monday]) for monday in sorted(weeks)),
    )


def _week(monday: date, right: Sequence[bool]) -> RoutedWeek:
    bounds = clopper_pearson_interval(sum(right), len(right), confidence=CONFIDENCE)
    return RoutedWeek(
        monday=monday, n=len(right), n_right=sum(right), lower=float(bounds.lower), upper=float(bounds.upper)
    )
