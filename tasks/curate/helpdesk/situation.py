"""What a customer can write about: one situation of a category, with its phrasings. Filled by `phrases_*.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["have", "wait", "any"]
"""`have`: the product stands at the customer's home and works as far as the text says; `wait`: it has not arrived;
`any`: neither may be taken for granted. Decides which side remarks fit."""


@dataclass(frozen=True)
class Situation:
    """One concern, phrased in several ways."""

    step: str
    """Next step of the reply: a key of `replies.STEPS`."""
    subjects: tuple[str, ...]
    texts: tuple[str, ...]
    state: State = "any"
    products: tuple[str, ...] = ()
    """Products it can happen to; empty: all."""
    happy: bool = False
    """Praise: told with joy, answered with joy, never urgent."""
    urgent: bool = False
    """The concern itself is a danger: priority is high without a further cue."""


def situation(
    step: str,
    subjects: str,
    texts: str,
    *,
    state: State = "any",
    products: tuple[str, ...] = (),
    happy: bool = False,
    urgent: bool = False,
) -> Situation:
    """A situation from readable blocks: subjects parted by ` / `, texts one per `- `, wrapped lines joined.

    >>> situation("trace", "Late / Where is it?", '''
    ... - It is
    ...   late.
    ... - Where is it?
    ... ''').texts
    ('It is late.', 'Where is it?')
    """
    phrased = tuple(" ".join(text.split()) for text in ("\n" + texts).split("\n- ")[1:])
    return Situation(step, tuple(subjects.split(" / ")), phrased, state, products, happy, urgent)
