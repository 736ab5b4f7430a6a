"""Say if a candidate gives one label to most tickets, or labels that no train ticket has.

Such answers are often one fault, such as a training that was too short, and look like many.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from schemas.counted import counted

UNKNOWN = "which no train ticket has"


def describe_same(labels: Sequence[str | None], known: Collection[str]) -> str:
    """Describe the one label of several answers; empty if they have none or different ones.

    Args:
        labels: Of each answer; None for an answer without one.
        known: Labels of the train tickets.

    >>> describe_same(["Account & Management"] * 5, {"billing"})
    'all 5 answers have the label Account & Management, which no train ticket has'
    """
    first = labels[0] if labels else None
    if len(labels) < 2 or first is None or len(set(labels)) > 1:
        return ""
    return f"all {len(labels)} answers have the label {first}{'' if first in known else f', {UNKNOWN}'}"


def describe_given(labels: Sequence[str | None], wanted: Sequence[str | None], known: Collection[str]) -> str:
    """Describe all answers of a candidate, without naming a label; empty if nothing is odd.

    One label for more than half of the answers is odd if at most half as many tickets have it.

    >>> describe_given(["a"] * 7 + ["b", "c", None], list("aabbccddee"), set("abcde"))
    '7 of 10 answers have one and the same label, which 2 tickets have'
    """
    given = Counter(label for label in labels if label is not None)
    found = []
    (first, n), *_ = given.most_common(1) or [("", 0)]
    n_wanted = sum(label == first for label in wanted)
    if 2 * n > len(labels) and 2 * n_wanted <= n:
        right = UNKNOWN if first not in known else f"which {counted(n_wanted, 'ticket has', 'tickets have')}"
        found.append(f"{n:,} of {len(labels):,} answers have one and the same label, {right}")
    unknown = sum(count for label, count in given.items() if label not in known)
    if unknown and not (found and first not in known and unknown == n):
        found.append(f"{unknown:,} of {len(labels):,} answers have labels that no train ticket has")
    return "; ".join(found)
