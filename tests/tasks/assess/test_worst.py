"""The items on which a candidate did worst, side by side with the reference."""

import shutil
from collections.abc import Callable, Sequence

import pytest

from schemas.artifacts import EvalSet, Predictions, Scores
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.worst import AnsweredArm, WorstItem, worst_items

MakeScores = Callable[..., Scores]


@pytest.fixture
def ask(
    make_scores: MakeScores, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions]
) -> Callable[..., tuple[WorstItem, ...]]:
    def run(
        candidate: Sequence[float | None],
        reference: Sequence[float] | None = None,
        *,
        n: int = 5,
        slices: Sequence[str] = (),
        slice_name: str | None = None,
        higher: bool = True,
        continuous: bool = False,
        metric: str = "exact",
        writes: bool = True,
    ) -> tuple[WorstItem, ...]:
        ids = [f"i{number:06d}" for number in range(len(candidate))]
        items = make_items([{"ticket_id": i, "subject": "S", "body": f"ask {i}", "answer": f"want {i}"} for i in ids])

        def arm(name: str, values: Sequence[float | None]) -> AnsweredArm:
            scores = make_scores(name, {"exact": values}, slices=slices if name == "tuned" else ())
            if name == "champion" and not writes:
                return AnsweredArm(scores, None)
            return AnsweredArm(scores, make_predictions([{"item_id": i, "text": f"{name} {i}"} for i in ids]))

        return worst_items(
            items=items, candidate=arm("tuned", candidate),
            reference=None if reference is None else arm("champion", reference),
            slice_name=slice_name, n_items=n,
            traits=MetricTraits(name=metric, higher_is_better=higher, continuous=continuous),
        )  # fmt: skip

    return run


Ask = Callable[..., tuple[WorstItem, ...]]


def test_items_lost_to_the_reference_come_with_both_answers(ask: Ask) -> None:
    found = ask([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0])
    assert [item.item_id for item in found] == ["i000001", "i000003"]
    assert found[0] == WorstItem(
        "i000001", (), 0.0, 1.0, "S\n\nask i000001", "want i000001", "tuned i000001", "champion i000001"
    )


def test_items_lost_to_a_classifier_come_with_one_answer(ask: Ask) -> None:
    (lost,) = ask([1.0, 0.0], [1.0, 1.0], writes=False)
    assert (lost.reference, lost.candidate_answer, lost.reference_answer) == (1.0, "tuned i000001", None)


def test_without_a_reference_the_worst_values_come_first_and_good_ones_not_at_all(ask: Ask) -> None:
    found = ask([0.9, 0.2, 0.5, 0.9], continuous=True, n=2)
    assert [item.candidate for item in found] == [0.2, 0.5]
    assert found[0].reference_answer is None
    assert [item.candidate for item in ask([0.9, 0.2, 0.5], higher=False, continuous=True, n=1)] == [0.9]
    assert [item.item_id for item in ask([1.0, 0.0, 1.0])] == ["i000001"]
    assert [item.item_id for item in ask([1.0, 0.0, 1.0], higher=False)] == ["i000000", "i000002"]
    assert len(ask([0.0, 0.0, 0.0])) == 3


def test_only_items_of_the_slice_and_only_as_many_as_requested(ask: Ask) -> None:
    slices = ["product=A", "product=B", "product=B", "product=B"]
    found = ask([0.0] * 4, [1.0] * 4, slices=slices, slice_name="product=B", n=2)
    assert [item.item_id for item in found] == ["i000001", "i000002"]
    assert found[0].slices == ("product=B",)


def test_a_value_that_is_no_number_is_left_out_and_a_metric_that_was_not_scored_is_named(ask: Ask) -> None:
    assert [item.item_id for item in ask([None, 0.0, 1.0], [1.0, 1.0, 1.0])] == ["i000001"]
    with pytest.raises(GateError, match="TG0603"):
        ask([1.0], metric="style")


def test_a_file_that_is_gone_is_an_error_without_text(
    make_scores: MakeScores, make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions]
) -> None:
    scores = make_scores("tuned", {"exact": [0.0, 1.0]})
    items = make_items([{"ticket_id": f"i{number:06d}", "answer": "secret"} for number in range(2)])
    shutil.rmtree(items.root)
    candidate = AnsweredArm(scores, make_predictions([{"item_id": "i000000", "text": "secret"}]))
    with pytest.raises(GateError, match="TG0603") as caught:
        worst_items(items=items, candidate=candidate, reference=None, traits=MetricTraits(name="exact"),
                    slice_name=None, n_items=3)  # fmt: skip
    assert "secret" not in str(caught.value)
