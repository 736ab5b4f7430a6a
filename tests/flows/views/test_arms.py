"""The sentence after a try: what the examples made, and what all tickets would."""

import pytest

from flows.views.arms import compare_examples
from schemas.report import ArmLine


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (
            [("tuned", 32, 0.21), ("tfidf_examples", 32, 0.31), ("tfidf", 1315, 0.9), ("few_shot", 3, 0.1)],
            "With 32 examples chrf is 0.21, against 0.31 of TF-IDF; TF-IDF with all 1,315: 0.90.",
        ),
        ([("tuned", 90, 0.8), ("tfidf", 90, 0.75)], "With 90 examples chrf is 0.80, against 0.75 of TF-IDF."),
        (
            [("zero_shot", 0, 0.1), ("few_shot", 3, 0.3), ("tuned", 1, 0.2)],
            "With 1 example chrf is 0.20, against 0.30 of few_shot.",
        ),
        ([("tuned", 32, 0.2)], ""),
        ([("tuned", 32, None), ("tfidf", 90, 0.75)], ""),
    ],
)
def test_a_candidate_is_compared_at_equal_examples(arms: list[tuple[str, int, float | None]], sentence: str) -> None:
    lines = [ArmLine(arm=arm, n_items=50, n_examples=n, means={"chrf": mean}) for arm, n, mean in arms]
    assert compare_examples(lines, "chrf") == sentence
