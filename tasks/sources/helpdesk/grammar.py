"""Turn phrase patterns into sentences: `[a|b|]` is one of several, `{name}` is a slot; brackets nest.

`Dice` draws with `random.Random.random()` alone, the one method whose sequence Python promises to keep, so that equal
seeds give equal text on every version.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Seeded draws that are the same on every Python version."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # noqa: S311 (fiction, not a secret)

    def chance(self, probability: float) -> bool:
        """True with the given probability (0-1)."""
        return self._random() < probability

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self._random() * bound)

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return self._random()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as the others."""
        return options[int(self._random() * len(options))]

    def lean(self, options: Sequence[T]) -> T:
        """One of the options, earlier ones more often: of two the first in 7 of 10 draws, of twelve in 3."""
        return options[int(self._random() ** 2 * len(options))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """One of the keys, as likely as its weight says; weights need not sum to one."""
        left = self._random() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return option


@dataclass(frozen=True, slots=True)
class Choice:
    """A bracket of a pattern: exactly one of its branches is spoken."""

    branches: tuple[tuple[Choice | str, ...], ...]


@cache
def parse(pattern: str) -> tuple[Choice | str, ...]:
    """The pattern as text and choices, in order.

    Raises:
        ValueError: brackets do not match, or `|` is outside of them.
    """
    open_branches: list[list[list[Choice | str]]] = [[[]]]
    for piece in re.split(r"([\[\]|])", pattern):
        if piece == "[":
            open_branches.append([[]])
        elif piece == "]" and len(open_branches) > 1:
            branches = open_branches.pop()
            open_branches[-1][-1].append(Choice(tuple(tuple(branch) for branch in branches)))
        elif piece == "|" and len(open_branches) > 1:
            open_branches[-1].append([])
        elif piece in ("]", "|"):
            raise ValueError(f"stray {piece!r} in pattern {pattern!r}")
        elif piece:
            open_branches[-1][-1].append(piece)
    if len(open_branches) > 1:
        raise ValueError(f"a [ is never closed in pattern {pattern!r}")
    return tuple(open_branches[0][0])


def speak(pattern: str, dice: Dice, slots: Mapping[str, str]) -> str:
    """One sentence or more of the pattern: choices drawn, slots filled, spaces tidied, first letter large.

    >>> speak("[the {what}|the {what} ]flickers ,  [|]always.", Dice(1), {"what": "lamp "})
    'The lamp flickers, always.'

    Raises:
        KeyError: a slot has no value.
    """
    parts: list[str] = []
    _draw(parse(pattern), dice, parts)
    text = "".join(parts)
    if "{" in text:
        text = text.format_map(slots)
    text = re.sub(r"\s+([,.;:?!])", r"\1", re.sub(r"\s+", " ", text)).strip()
    return text[:1].upper() + text[1:]


def _draw(nodes: tuple[Choice | str, ...], dice: Dice, parts: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        else:
            _draw(dice.lean(node.branches), dice, parts)
