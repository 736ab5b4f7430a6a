"""The order in which tickets are taken when not all are: the newest first, and without times a stratified draw.

Exports are often sorted by label, so that ids and lines say something about it. Whatever has no time to be ordered by
is therefore ordered by a hash of seed and ticket id, and the labels are spread evenly over that order.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

Times = Sequence[datetime | int | None]
GROUPS = 10
"""Groups of held-out items that are answered one after another if the gate looks at them (`gates.interim`)."""
LEAST_LOOKED_AT = 200
"""Fewer held-out items are one group: a tenth of them says nothing and does not fill a batch."""


def draw_order(
    ids: Sequence[str], times: Times, labels: Sequence[str | None], *, seed: int, cover: bool = False
) -> list[int]:
    """Return the places of the tickets in the order of preference: newest first, undated ones last.

    Of tickets with equal times, or without one, any first n hold about n/N of each label's tickets (systematic
    sampling over strata). Within a label the hash decides, so that other tickets do not change the choice.

    Args:
        ids: Ticket ids.
        times: None for a ticket without one.
        labels: What to spread; None counts as one label.
        seed: Another seed is another draw.
        cover: Take one ticket of every label before a second of any, for training; else each ticket has the same
            chance, for measuring.

    Source: Cochran, "Sampling Techniques", 3rd edition, Wiley 1977, chapters 5 and 8.

    >>> draw_order(["a", "b", "c"], [1, 3, 2], [None] * 3, seed=0)
    [1, 2, 0]
    >>> labels = ["x"] * 6 + ["y"] * 2 + ["z"]
    >>> order = draw_order(list("abcdefghi"), [None] * 9, labels, seed=0, cover=True)
    >>> [labels[place] for place in order[:6]]
    ['x', 'y', 'z', 'x', 'x', 'x']
    """
    strata: dict[tuple[object, str | None], list[int]] = defaultdict(list)
    for place, (time, label) in enumerate(zip(times, labels, strict=True)):
        strata[time, label].append(place)
    rank: list[tuple[float, int, tuple[bytes, str]]] = [(0.0, 0, (b"", ""))] * len(ids)
    for (_, label), places in strata.items():
        hashes = {place: hash_rank(ids[place], seed=seed) for place in places}
        start = 0.0 if cover else _uniform(f"{seed}:{label}")
        for nth, place in enumerate(sorted(places, key=hashes.__getitem__)):
            rank[place] = ((nth + start) / len(places), -len(places), hashes[place])
    order = sorted(range(len(ids)), key=rank.__getitem__)
    dated = [place for place in order if times[place] is not None]
    dated.sort(key=lambda place: times[place], reverse=True)  # type: ignore[arg-type, return-value]
    return dated + [place for place in order if times[place] is None]


def hash_rank(ticket_id: str, *, seed: int) -> tuple[bytes, str]:
    """Sort key that shuffles ids the same way in every run, whatever the other ids are."""
    return hashlib.sha256(f"{seed}:{ticket_id}".encode()).digest(), ticket_id


def group_ends(n_items: int, *, batch_size: int) -> tuple[int, ...]:
    """Return how many held-out items are answered after each group of about a tenth; the last are all.

    Groups are filled up to a multiple of `batch_size`, so that answering them one after another costs no time.

    >>> group_ends(400, batch_size=32)
    (64, 96, 128, 160, 224, 256, 288, 320, 384, 400)
    >>> group_ends(96, batch_size=32)
    (96,)
    """
    n_groups = GROUPS if n_items >= LEAST_LOOKED_AT else 1
    shares = (-(-part * n_items // n_groups) for part in range(1, n_groups + 1))
    return tuple(sorted({min(n_items, -(-share // batch_size) * batch_size) for share in shares}))


def look_ends(n_items: int, *, batches: int, batch_size: int) -> tuple[int, ...]:
    """Return the ends of groups that are ends of `batches` batches; the last are all items.

    >>> look_ends(400, batches=3, batch_size=32)
    (160, 288, 400)
    """
    ends = group_ends(n_items, batch_size=batch_size)
    wanted = (part * n_items / batches for part in range(1, batches + 1))
    return tuple(dict.fromkeys(next(end for end in ends if end >= each) for each in wanted))


def item_hash(item_id: str, *, salt: str) -> str:
    """Hash under which an item is recorded: it identifies equal items, and reveals no ticket."""
    return hashlib.sha256(f"{salt}\0{item_id}".encode()).hexdigest()[:12]


def _uniform(text: str) -> float:
    """A number in [0, 1) that only the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56
