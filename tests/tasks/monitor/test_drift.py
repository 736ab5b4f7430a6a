"""Reports real drift, and no drift for mere chance."""

import numpy as np

from schemas.schedule import DriftSpec
from schemas.ticks import Shift
from tasks.monitor.drift import Window, measure_drift

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
