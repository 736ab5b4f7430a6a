"""Planted regressions in the toy world: each is stopped by the part of the gate meant for it, and the champion stays.

All scenes share one champion. Every step runs as usual, except that training is a fork of this process, which has
torch loaded, instead of a new process.
"""

from __future__ import annotations

from benchmarks.regressions import expected_rate


def test_the_expected_rate_of_a_neutral_candidate_is_within_the_error_probability() -> None:
    assert expected_rate(0.05, 0.05, n_items=240) <= 0.05
    assert expected_rate(0.2, 0.05, n_items=240) > 0.95
