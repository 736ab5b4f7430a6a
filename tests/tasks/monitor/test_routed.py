"""Routed tickets by week, and a test of their certificate that may be read after every ticket."""

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.artifacts import ServedCertificate
from schemas.errors import ConfigError
from schemas.feedback import RoutedVersion
from tasks.monitor.feedback import FeedbackRules, feedback_state, ingest_feedback
from tasks.monitor.routed import evidence_against, watch_certificates

TARGET, ERROR = 0.95, 0.05
CERTIFICATE = ServedCertificate(
    field="category", pattern="", labels=("a", "b"), temperature=1.0, threshold=0.9, target=TARGET, confidence=0.95,
    coverage=0.6, n_calibration=800, sentence="",
)  # fmt: skip


def share_of_alarms(accuracy: float, n: int, *, runs: int = 600) -> float:
    """Share of simulated versions that are ever reported within n routed tickets."""
    right = np.random.default_rng(7).random((runs, n)) < accuracy
    return sum(evidence_against(each, TARGET) >= 1 / ERROR for each in right) / runs


def test_a_certificate_that_holds_is_reported_no_more_often_than_the_declared_error() -> None:
    assert 0 < share_of_alarms(TARGET, 2000) <= ERROR  # exactly at the target, where it is hardest
    assert share_of_alarms(0.97, 2000) < 0.01


def test_one_that_no_longer_holds_is_reported_within_the_tickets_that_the_guide_names() -> None:
    assert share_of_alarms(0.90, 700) > 0.9
    assert share_of_alarms(0.80, 100) > 0.9


def test_the_evidence_is_the_best_moment_of_a_mean_of_likelihood_ratios() -> None:
    right = [True, False, False, True, True, True]
    shares = np.geomspace(0.02, 0.95, 12)
    best = 1.0
    for n in range(1, len(right) + 1):
        ratios = [
            math.prod((1 - share) if each else 1 + share * TARGET / (1 - TARGET) for each in right[:n])
            for share in shares
        ]
        best = max(best, sum(ratios) / len(ratios))
    assert evidence_against(right, TARGET) == pytest.approx(best)
    assert evidence_against([], TARGET) == 1
    assert math.isfinite(evidence_against([False] * 5000, TARGET))


def line(ticket: str, **more: Any) -> bytes:
    row = {"ticket_id": ticket, "version": "2", "outcome": "accepted", "at": "2026-06-08T10:00:00Z", **more}
    return json.dumps(row).encode()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "feedback.duckdb"


def watched(database: Path, *lines: bytes) -> list[RoutedVersion]:
    rules = FeedbackRules(frozenset({"1", "2"}))
    ingest_feedback(lines, rules, source="file", database=database)
    state = feedback_state(database)
    assert state is not None
    return list(watch_certificates(database, {"2": CERTIFICATE}, error=ERROR, upto=state.last))


def test_only_routed_tickets_with_a_known_label_count_each_once_in_the_week_it_became_known(database: Path) -> None:
    [found] = watched(
        database,
        line("a", action="route", right=True),
        line("b", action="route", right=False, at="2026-06-14T23:00:00Z"),
        line("c", action="route", right=True, at="2026-06-15T00:30:00Z"),
        line("d", action="review", right=False),
        line("e", action="route"),
        line("f"),
        line("g", version="1", action="route", right=False),
        line("b", action="route", right=True, at="2026-06-20T10:00:00Z"),  # the label was right after all
        line("a", outcome="rejected", at="2026-06-21T10:00:00Z"),  # says nothing of the label
    )
    assert (found.version, found.target, found.n, found.n_right, found.holds) == ("2", TARGET, 3, 3, True)
    assert [(week.monday, week.n, week.n_right) for week in found.weeks] == [
        (date(2026, 6, 8), 2, 2), (date(2026, 6, 15), 1, 1),
    ]  # fmt: skip
    assert found.weeks[0].lower < 1 == found.weeks[0].upper
    assert found.warning() == ""


def test_wrong_labels_of_routed_tickets_break_the_certificate_and_it_stays_broken(database: Path) -> None:
    [found] = watched(database, *(line(f"w{number}", action="route", right=False) for number in range(4)))
    assert not found.holds
    [found] = watched(database, *(line(f"r{number}", action="route", right=True) for number in range(500)))
    assert found.n == 504
    assert not found.holds
    assert found.warning() == (
        "the certificate of version 2 no longer holds: 500 of 504 routed tickets were right, 0.95 of them should be"
    )


def test_a_label_without_the_action_of_its_answer_is_refused(database: Path) -> None:
    with pytest.raises(ConfigError, match="`right` needs the action of the answer"):
        watched(database, line("a", right=True))
