"""Choices of earlier versions stay readable."""

from schemas.trials import TrialRow


def test_the_summary_of_an_earlier_version_is_read() -> None:
    earlier = TrialRow.model_validate_json(
        '{"name": "rung_a", "number": 1, "met": true, "told": "met: the mean is 0.9"}'
    )
    assert earlier.summary == "met: the mean is 0.9"
    assert TrialRow.model_validate_json(earlier.model_dump_json()) == earlier
    assert "told" not in earlier.model_dump()
