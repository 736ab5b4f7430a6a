"""The pace of answers that a pipeline declares, next to the one that was measured."""

import pytest

from flows.forecast.pace import answers_advice
from tests.support.specs import pipeline_spec


@pytest.mark.parametrize(("measured", "said"), [(None, False), (100.0, False), (140.0, False), (40.0, True)])
def test_a_pace_far_from_the_declared_one_is_named_with_the_minutes_that_it_makes(
    measured: float | None, said: bool
) -> None:
    spec = pipeline_spec(evaluate={"answer_minutes": 15, "answers_per_minute": 110, "slices": []})
    advice = answers_advice(spec, measured)
    assert (advice is not None) == said
    assert advice is None or "825 items take candidate and champion about 41 minutes" in advice
