"""In which order several workers of pytest-xdist take the tests. Called by tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
SLOW_ROOMS = ("tests/flows/", "tests/real/", "tests/tasks/cluster/", "tests/benchmarks/")
"""Their tests start servers, trainings and clusters, and wait for them."""


def dealt_out(items: Sequence[T], n_workers: int, *, file_of: Callable[[T], str]) -> list[T]:
    """The tests so that each worker begins with its share of the slow files, whole files together.

    xdist hands each worker a neighbouring part and lets those that are done take from the ends of others' parts. In the
    order of collection some of the slowest stand near the end: the last 4 % of the tests took 8 of 27 minutes.

    >>> dealt_out(["tests/a", "tests/flows/b", "tests/real/c", "tests/d", "tests/e"], 2, file_of=str)
    ['tests/flows/b', 'tests/a', 'tests/real/c', 'tests/d', 'tests/e']
    """
    slow: dict[str, list[T]] = {}
    quick = []
    for item in items:
        if file_of(item).startswith(SLOW_ROOMS):
            slow.setdefault(file_of(item), []).append(item)
        else:
            quick.append(item)
    hands: list[list[T]] = [[] for _ in range(n_workers)]
    for number, tests in enumerate(slow.values()):
        hands[number % n_workers] += tests
    out: list[T] = []
    for number, hand in enumerate(hands):
        n_taken = max(0, (len(items) - len(out)) // (n_workers - number) - len(hand))
        out += hand + quick[:n_taken]
        del quick[:n_taken]
    return out + quick
