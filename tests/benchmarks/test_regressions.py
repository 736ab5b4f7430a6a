"""The rate at which a neutral candidate may be promoted."""

from benchmarks.regressions import expected_rate


def test_the_expected_rate_of_a_neutral_candidate_is_within_the_error_probability() -> None:
    assert expected_rate(0.05, 0.05, n_items=240) <= 0.05
    assert expected_rate(0.2, 0.05, n_items=240) > 0.95
