"""Place tickets in train, validation and test: by time and customer, continuing an earlier split.

Numbers only: no file, text or column.

Owners (customers, threads) have a side, and a ticket goes where its owners are. Owners that no earlier split has placed
are free; free owners that share a ticket are one group, and a group that shares a ticket with a placed owner follows
it. So old tickets never move because new ones have joined their groups.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.curation import SplitSpec

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
TRAIN, VALIDATION, TEST, EARLY, LATE, BOTH_SIDES, NO_TIME = range(7)
PLACES = (
    "train",
    "validation",
    "test",
    "straddles_cut_early",
    "straddles_cut_late",
    "straddles_sides",
    "no_created_at",
)
"""Name of each place; from EARLY on the ticket is dropped under it."""
STRADDLER_GOAL = 0.5
"""Share of the window's tickets for which groups on both sides of the cut are held out."""
STRADDLER_COST = 0.5
"""Largest share of the free tickets before the cut that may be dropped for it."""
FREE = -1
NEVER = np.iinfo(np.int64).min
"""The time of a ticket without a time; the cut where there is none."""
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Owners:
    """Two owners per ticket, equal where it has only one; a ticket without customer and thread owns itself."""

    first: Ints
    second: Ints
    names: pa.Array
    """Name per owner, ascending: `COLUMN=VALUE`."""

    @property
    def n_owners(self) -> int:
        return len(self.names)

    def connect(self, links: Flags) -> Ints:
        """Return per owner the smallest owner of its connected component, if only these tickets link their owners."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ends = (self.first[links], self.second[links])
        graph = coo_array((np.ones(ends[0].shape[0], np.int8), ends), shape=(self.n_owners, self.n_owners))
        _, component = connected_components(graph, directed=False)
        smallest = np.full(self.n_owners, self.n_owners, np.int64)
        np.minimum.at(smallest, component, np.arange(self.n_owners))
        group: Ints = smallest[component]
        return group


def owners_of(table: pa.Table, group_by: Sequence[str]) -> Owners:
    """Return the owners of each row by its columns `group_by` (at most two); null and '' are no owner.

    >>> table = pa.table({"ticket_id": ["a", "b"], "customer_id": ["7", ""], "thread_id": ["9", None]})
    >>> owners = owners_of(table, ("customer_id", "thread_id"))
    >>> owners.names.to_pylist(), owners.first.tolist(), owners.second.tolist()
    (['customer_id=7', 'thread_id=9', 'ticket_id=b'], [0, 2], [1, 2])
    """
    columns = [_named(table, name) for name in group_by]
    itself = pc.binary_join_element_wise("ticket_id", table["ticket_id"].combine_chunks(), "=")
    first = pc.coalesce(*columns, itself)
    second = pc.coalesce(*reversed(columns), itself)
    both = pa.concat_arrays([_whole(first), _whole(second)])
    names = pc.unique(both)
    names = names.take(pc.sort_indices(names))
    numbers = pc.index_in(both, value_set=names).to_numpy().astype(np.int64)
    return Owners(numbers[: table.num_rows], numbers[table.num_rows :], names)


def _named(table: pa.Table, name: str) -> pa.Array:
    values = table[name].combine_chunks()
    filled = pc.if_else(pc.equal(values, ""), None, values)
    return pc.binary_join_element_wise(name, filled, "=")


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


@dataclass(frozen=True)
class EarlierSplit:
    """What an earlier split decided, one entry per current ticket; times in microseconds since 1970."""

    is_known: Flags
    place: Ints
    """TRAIN, VALIDATION or TEST; FREE for tickets that are new or were dropped."""
    since: Ints
    retired: Flags
    cut: int


@dataclass(frozen=True)
class Straddlers:
    """Groups on both sides of the cut that were placed now, and their tickets on each side."""

    n_groups: int = 0
    n_early: int = 0
    """Tickets before the cut: all of them are dropped with `keep_late`."""
    n_late: int = 0
    """Tickets after it: all of them are dropped with `keep_early`."""


@dataclass(frozen=True)
class Placement:
    """One entry per ticket."""

    place: Ints
    since: Ints
    """Cut of the split that placed the ticket there."""
    retired: Flags
    cut: int
    straddlers: Straddlers
    n_retired: int
    """Held-out tickets that were moved to train now."""


def nothing_known(n_tickets: int) -> EarlierSplit:
    """Before the first split."""
    no = np.zeros(n_tickets, bool)
    return EarlierSplit(no, np.full(n_tickets, FREE, np.int64), np.full(n_tickets, NEVER, np.int64), no, NEVER)


def place_tickets(*, owners: Owners, created: Ints, known: EarlierSplit, split: SplitSpec, by_time: bool) -> Placement:
    """Place every ticket.

    Args:
        owners: The owners of each ticket.
        created: Microseconds since 1970; `NEVER` for a ticket without a time.
        known: The earlier split; `nothing_known` for none.
        by_time: Hold out the newest tickets; else groups in the order of their hash.
    """
    cut = NEVER
    n_retired = 0
    if by_time:
        old = _old_enough(owners, created, known, split)
        cut = _choose_cut(created, known, split, n_leaving=int(np.count_nonzero(old)))
        known, n_retired = _retire(owners, created, known, old, cut)
    side, since, group = _sides_of_owners(owners, known)
    is_free = side == FREE
    free_groups = np.where(is_free[owners.first], group[owners.first], group[owners.second])
    free = is_free[owners.first] & is_free[owners.second]
    straddlers = Straddlers()
    if by_time:
        unplaced = _Unplaced(owners, created, free_groups, free, follows_test=side[owners.first] == TEST)
        chosen, straddlers = _hold_out_by_time(unplaced, cut, split)
    else:
        goal = split.test_fraction * created.shape[0] - np.count_nonzero(known.place == TEST)
        chosen = _choose(owners, free_groups[free], goal, split.seed, "test", first=not known.is_known.any())
    held_out = np.isin(group, sorted(chosen)) & is_free
    side, since = np.where(held_out, TEST, np.where(is_free, TRAIN, side)), np.where(held_out, cut, since)
    place = np.where(side[owners.first] == side[owners.second], side[owners.first], BOTH_SIDES)
    place = np.where((known.place != FREE) & (known.place != place), BOTH_SIDES, place)
    if by_time:
        since_both = np.maximum(since[owners.first], since[owners.second])
        place = _drop_by_time(place, created, known, since_both, cut)
    place = _set_validation_aside(owners, place, known, free_groups, free, split)
    stays = known.place == place
    kept_since = np.where(stays, known.since, np.maximum(since[owners.first], since[owners.second]))
    new_since = np.where(place == TEST, kept_since, np.where(stays, known.since, cut))
    return Placement(place, new_since, known.retired & (place < EARLY), cut, straddlers, n_retired)


def _choose_cut(created: Ints, known: EarlierSplit, split: SplitSpec, *, n_leaving: int) -> int:
    """Choose the time from which tickets are held out; never earlier than that of the previous split.

    The newest of the new tickets are held out: with all earlier windows they make up `test_fraction` of all tickets,
    and as many more replace those that may retire.
    """
    timed = created != NEVER
    n_before = np.count_nonzero(timed & known.is_known)
    fresh = np.sort(created[timed & ~known.is_known])
    if not fresh.shape[0]:
        return known.cut
    n_window = round((n_before + fresh.shape[0]) * split.test_fraction)
    if known.cut == NEVER:
        return int(fresh[-max(1, n_window)])
    n_window += n_leaving - round(n_before * split.test_fraction)
    cut = fresh[-min(n_window, fresh.shape[0])] if n_window > 0 else fresh[-1] + 1
    return max(known.cut, int(cut))


def _old_enough(owners: Owners, created: Ints, known: EarlierSplit, split: SplitSpec) -> Flags:
    """Held-out tickets that, like all tickets connected to them, are older than `retire_after_days`."""
    held = known.place == TEST
    if split.retire_after_days is None or not held.any():
        return np.zeros(created.shape[0], bool)
    group = owners.connect(held)[owners.first]
    newest = np.full(owners.n_owners, NEVER, np.int64)
    np.maximum.at(newest, group[held], created[held])
    old: Flags = held & (newest[group] <= created.max() - split.retire_after_days * _DAY)
    return old


def _retire(owners: Owners, created: Ints, known: EarlierSplit, old: Flags, cut: int) -> tuple[EarlierSplit, int]:
    """Move to train, group by group, what is old enough and was held out by an earlier cut."""
    group = owners.connect(known.place == TEST)[owners.first]
    current = np.zeros(owners.n_owners, bool)
    current[group[(known.place == TEST) & ((known.since >= cut) | (created >= cut))]] = True
    leaves = old & ~current[group]
    place, since = np.where(leaves, TRAIN, known.place), np.where(leaves, cut, known.since)
    return replace(known, place=place, since=since, retired=known.retired | leaves), int(np.count_nonzero(leaves))


def _sides_of_owners(owners: Owners, known: EarlierSplit) -> tuple[Ints, Ints, Ints]:
    """Per owner its side (FREE if its group touches no placed owner), since when, and its group.

    An owner with known tickets on several sides (its ids have changed) is on the last of train, validation, test.
    """
    side, since = np.full(owners.n_owners, FREE, np.int64), np.full(owners.n_owners, NEVER, np.int64)
    for ends in (owners.first, owners.second):
        np.maximum.at(side, ends, known.place)
        np.maximum.at(since, ends, np.where(known.place == TEST, known.since, NEVER))
    placed = side != FREE
    group = owners.connect(~placed[owners.first] & ~placed[owners.second])
    lowest, highest = np.full(owners.n_owners, BOTH_SIDES, np.int64), np.full(owners.n_owners, FREE, np.int64)
    latest = np.full(owners.n_owners, NEVER, np.int64)
    for ends, others in ((owners.first, owners.second), (owners.second, owners.first)):
        pulls = ~placed[ends] & placed[others]
        np.minimum.at(lowest, group[ends[pulls]], side[others[pulls]])
        np.maximum.at(highest, group[ends[pulls]], side[others[pulls]])
        np.maximum.at(latest, group[ends[pulls]], since[others[pulls]])
    follows = np.where(lowest == highest, highest, np.where(highest == FREE, FREE, BOTH_SIDES))
    return np.where(placed, side, follows[group]), np.where(placed, since, latest[group]), group


@dataclass(frozen=True)
class _Unplaced:
    """The tickets and which of them belong to no owner that has been placed."""

    owners: Owners
    created: Ints
    group: Ints
    """Of each ticket."""
    is_free: Flags
    follows_test: Flags
    """Tickets of an owner who is held out already."""


def _hold_out_by_time(tickets: _Unplaced, cut: int, split: SplitSpec) -> tuple[set[int], Straddlers]:
    """Choose free groups to hold out: those only after the cut, and straddlers by `split.straddlers`."""
    owners, group = tickets.owners, tickets.group
    timed = tickets.created != NEVER
    after = timed & (tickets.created >= cut)
    late = np.bincount(group[tickets.is_free & after], minlength=owners.n_owners)
    early = np.bincount(group[tickets.is_free & timed & ~after], minlength=owners.n_owners)
    held_out = set(np.flatnonzero((late > 0) & (early == 0)).tolist())
    straddlers = np.flatnonzero((late > 0) & (early > 0)).tolist()
    counts = Straddlers(len(straddlers), int(early[straddlers].sum()), int(late[straddlers].sum()))
    if split.straddlers == "keep_late":
        return held_out | set(straddlers), counts
    if split.straddlers == "keep_early":
        return held_out, counts
    names = dict(zip(straddlers, _names(owners, straddlers), strict=True))
    straddlers.sort(key=lambda each: (early[each] / late[each], _hash(split.seed, "test", names[each])))
    n_held_out = int(late[sorted(held_out)].sum()) + int(np.count_nonzero(tickets.follows_test & after))
    n_given_up = 0
    for straddler in straddlers:
        if n_held_out >= STRADDLER_GOAL * np.count_nonzero(after):
            break
        if n_given_up + early[straddler] <= STRADDLER_COST * early.sum():
            held_out.add(straddler)
            n_held_out += late[straddler]
            n_given_up += early[straddler]
    return held_out, counts


def _drop_by_time(place: Ints, created: Ints, known: EarlierSplit, since: Ints, cut: int) -> Ints:
    """Drop what is on the wrong side of its cut, and what has no time.

    Args:
        since: Of each ticket the cut from which its owners are held out.
    """
    place = np.where((place == TEST) & (known.place != TEST) & (created < since), EARLY, place)
    place = np.where((place <= VALIDATION) & (created >= cut), LATE, place)
    return np.where(created == NEVER, NO_TIME, place)


def _set_validation_aside(
    owners: Owners, place: Ints, known: EarlierSplit, groups: Ints, free: Flags, split: SplitSpec
) -> Ints:
    goal = split.validation_fraction * np.count_nonzero(place <= VALIDATION) - np.count_nonzero(place == VALIDATION)
    mine = free & (place == TRAIN)
    first = not known.is_known.any()
    chosen = _choose(owners, groups[mine], goal, split.seed, "validation", first=first)
    return np.where(mine & np.isin(groups, sorted(chosen)), VALIDATION, place)


def _choose(owners: Owners, groups: Ints, goal: float, seed: int, purpose: str, *, first: bool) -> set[int]:
    """Choose groups in the order of their hash that fit into `goal` tickets.

    Args:
        groups: The group of each ticket that may be chosen.
        first: The first split: if none fits take the smallest, and never take all, so that neither side is empty.
    """
    chosen: set[int] = set()
    if goal <= 0:
        return chosen
    numbers, sizes = np.unique(groups, return_counts=True)
    hashes = [_hash(seed, purpose, name) for name in _names(owners, numbers.tolist())]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    room = goal
    for k in order:
        if sizes[k] <= room:
            chosen.add(int(numbers[k]))
            room -= sizes[k]
    if not first:
        return chosen
    if not chosen and order:
        chosen.add(int(numbers[min(order, key=lambda k: int(sizes[k]))]))
    return chosen if len(chosen) < len(order) else set()


def _names(owners: Owners, numbers: Sequence[int]) -> list[str]:
    names: list[str] = owners.names.take(np.array(numbers, np.int64)).to_pylist()
    return names


def _hash(seed: int, purpose: str, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{group}".encode()).digest()
