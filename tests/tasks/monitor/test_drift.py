"""Reports real drift, and no drift for mere chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from schemas.schedule import DriftSpec, Shift
from tasks.monitor.drift import Window, measure_drift, mix_distance

WORDS = tuple(f"word{number}" for number in range(60))
LABELS = ("billing | low", "returns | high", "delivery | normal")


def window(seed: int, *, n: int = 120, mix: tuple[float, ...] = (0.5, 0.3, 0.2), words: int = 40, length: int = 12,
           first: int = 0) -> Window:  # fmt: skip
    rng = np.random.default_rng(seed)
    texts = (" ".join(WORDS[first + place] for place in rng.integers(words, size=length + int(rng.integers(8))))
             for _ in range(n))  # fmt: skip
    return Window(tuple(LABELS[place] for place in rng.choice(3, size=n, p=mix)), tuple(texts))


def drifted(current: Window, reference: Window) -> dict[str, bool]:
    return {shift.kind: shift.drifted for shift in measure_drift(current, reference, DriftSpec())}


def test_each_kind_of_change_is_found_separately() -> None:
    same = {"routing": False, "length": False, "vocabulary": False}
    assert drifted(window(1), window(2)) == same
    assert drifted(window(1, mix=(0.1, 0.2, 0.7)), window(2)) == {**same, "routing": True}
    assert drifted(window(1, first=20), window(2)) == {**same, "vocabulary": True}
    assert drifted(window(1, length=30), window(2))["length"] is True


def test_chance_alone_is_not_drift() -> None:
    found = [any(drifted(window(seed), window(seed + 1000, n=60)).values()) for seed in range(12)]
    assert sum(found) <= 1  # `significance` allows one in a hundred; seed 8 is one


def test_a_small_window_shows_no_drift_and_equal_windows_give_equal_numbers() -> None:
    assert measure_drift(window(1, n=19), window(2), DriftSpec()) == ()
    first, second = (measure_drift(window(1), window(2), DriftSpec()) for _ in range(2))
    assert first == second
    assert all(isinstance(shift, Shift) and 0 < shift.p_chance <= 1 for shift in first)


def test_tickets_without_words_or_labels_are_compared_too() -> None:
    empty = Window.of([{"category": None, "priority": None, "subject": None, "body": ""}] * 30)
    assert not any(drifted(empty, empty).values())
    assert drifted(window(1), empty)["routing"] is True


@settings(max_examples=25, deadline=None)
@given(*[st.lists(st.sampled_from("abcd"), min_size=20, max_size=60)] * 2, st.integers(0, 3))
def test_the_mix_of_labels_has_the_p_value_of_permuted_tickets(
    current: list[str], reference: list[str], seed: int
) -> None:
    spec = DriftSpec(seed=seed)
    distance, p_chance = mix_distance(current, reference, spec)
    together, rng = np.array([*current, *reference]), np.random.default_rng(seed)
    orders = [np.arange(len(together)), *(rng.permutation(len(together)) for _ in range(3000))]
    counts = np.array([[(together[order[: len(current)]] == each).sum() for each in "abcd"] for order in orders])
    rest = np.array([(together == each).sum() for each in "abcd"]) - counts
    distances = np.nan_to_num(jensenshannon(counts, rest, axis=1, base=2))
    assert distance == pytest.approx(distances[0], abs=1e-9)
    # Both are drawn 3,000 times: five standard deviations of their difference.
    expected = (1 + (distances[1:] >= distances[0] - 1e-9).sum()) / 3001
    assert p_chance == pytest.approx(expected, abs=5 * (2 * max(expected * (1 - expected), 1e-3) / 3000) ** 0.5)
