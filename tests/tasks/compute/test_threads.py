"""Slices cover all of the work, whatever the number of threads."""

from tasks.compute.threads import in_slices, n_threads


def test_slices_cover_everything_in_order() -> None:
    assert in_slices(lambda low, high: list(range(low, high)), [0, 3, 4, 9]) == [[0, 1, 2], [3], [4, 5, 6, 7, 8]]
    assert in_slices(lambda low, high: (low, high), [0, 5]) == [(0, 5)]
    assert n_threads() >= 1
