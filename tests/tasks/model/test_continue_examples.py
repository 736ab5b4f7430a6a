"""What a training that continues learns: everything new, a seeded share of what is known, and nothing held out."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, RowCounts, Splits
from schemas.errors import DataError, GateError
from schemas.training import ReplaySpec
from tasks.model.chat_format import write_examples
from tasks.model.continue_examples import continue_examples, count_examples, learned_ids

NewFolder = Callable[[], Path]
START = datetime(2026, 6, 1, tzinfo=UTC)


def _names(numbers: Sequence[int]) -> list[str]:
    return [f"t{number:03}" for number in numbers]


def _dataset(root: Path, numbers: Sequence[int]) -> DatasetRef:
    for split, rows in (("train", _names(numbers)), ("validation", ["v1"])):
        ids = pa.array([[3, 4, 5]] * len(rows), pa.list_(pa.int32()))
        mask = pa.array([[0, 1, 1]] * len(rows), pa.list_(pa.int8()))
        write_examples(pa.table({"ticket_id": pa.array(rows), "input_ids": ids, "loss_mask": mask}), root / split)
    return DatasetRef(
        root=root, n_train=len(numbers), n_validation=1, n_tokens=3 * len(numbers), n_supervised=2, n_dropped=0,
        max_tokens=3,
    )  # fmt: skip


def _splits(root: Path, train: Sequence[int], test: Sequence[int]) -> Splits:
    for split, numbers in (("train", train), ("test", test), ("validation", ())):
        times = pa.array([START + timedelta(hours=number) for number in numbers], pa.timestamp("us", "UTC"))
        ids = pa.array(_names(numbers), pa.string())
        pq.write_table(pa.table({"ticket_id": ids, "created_at": times}), root / f"{split}.parquet")
    counts = RowCounts(n_in=len(train), n_out=len(train))
    return Splits(root=root, rows=counts, n_train=len(train), n_validation=0, n_test=len(test))


class World:
    """The champion has learned tickets 0 to 39; 40 to 59 are new, 60 to 69 held out."""

    def __init__(self, new_folder: NewFolder) -> None:
        self.new_folder = new_folder
        self.pool = _dataset(new_folder(), range(60))
        self.learned = _dataset(new_folder(), range(40))
        self.splits = _splits(new_folder(), range(60), range(60, 70))

    def go_on(self, share: float = 0.2, *, limit: int | None = None, seed: int = 0, **parts: DatasetRef) -> DatasetRef:
        given = {"pool": self.pool, "learned": self.learned, **parts}
        replay = ReplaySpec(share=share, max_examples=limit, seed=seed)
        return continue_examples(self.new_folder(), splits=self.splits, replay=replay, **given)


@pytest.fixture
def world(new_folder: NewFolder) -> World:
    return World(new_folder)


def _origins(dataset: DatasetRef) -> dict[str, str]:
    rows = pq.read_table(dataset.root / "origins.parquet").to_pylist()
    return {row["ticket_id"]: row["origin"] for row in rows}


@pytest.mark.parametrize(
    ("share", "limit", "n_new", "n_replayed"),
    [
        (0.0, None, 20, 0),
        (0.2, None, 20, 5),
        (0.5, None, 20, 20),
        (0.9, None, 20, 40),  # all there are
        (0.2, 10, 8, 2),
        (0.5, 12, 6, 6),
        (0.9, 10, 1, 9),
        (0.2, 100, 20, 5),
    ],
)
def test_the_share_of_replayed_examples_is_the_declared_one(
    world: World, share: float, limit: int | None, n_new: int, n_replayed: int
) -> None:
    origins = _origins(world.go_on(share, limit=limit))
    new = sorted(name for name, origin in origins.items() if origin == "new")
    assert new == _names(range(60 - n_new, 60))  # the newest
    replayed = {name for name, origin in origins.items() if origin == "replayed"}
    assert len(replayed) == n_replayed
    assert replayed <= {*_names(range(40))}
    assert count_examples(20, 40, ReplaySpec(share=share, max_examples=limit, seed=0)) == n_new + n_replayed


def test_the_draw_depends_on_the_seed_alone_and_is_recorded(world: World) -> None:
    first, again, other = world.go_on(), world.go_on(), world.go_on(seed=1)
    assert _origins(first) == _origins(again) != _origins(other)
    assert orjson.loads((first.root / "replay.json").read_bytes()) == {
        "share": 0.2, "seed": 0, "n_new": 20, "n_replayed": 5, "n_older": 40, "n_learned_before": 40,
        "n_learned_not_in_pool": 0,
    }  # fmt: skip
    assert (first.n_train, first.n_tokens, first.n_supervised) == (25, 75, 50)


def test_a_chain_remembers_everything_that_it_has_learned(world: World) -> None:
    second = world.go_on(0.0)
    assert learned_ids(second) == {*_names(range(60))}
    world.splits = _splits(world.new_folder(), range(65), range(65, 70))
    third = world.go_on(0.25, pool=_dataset(world.new_folder(), range(65)), learned=second)
    assert sorted(name for name, origin in _origins(third).items() if origin == "new") == _names(range(60, 65))


def test_nothing_held_out_is_replayed_and_a_champion_that_has_seen_some_is_refused(world: World) -> None:
    # Tickets 30 to 39 left the train pool: they are too close to a held-out one.
    pool = _dataset(world.new_folder(), [*range(30), *range(40, 60)])
    origins = _origins(world.go_on(0.9, pool=pool))
    assert not {*origins} & {*_names([*range(30, 40), *range(60, 70)])}
    world.splits = _splits(world.new_folder(), [*range(35), *range(40, 60)], range(35, 40))
    with pytest.raises(GateError, match=r"has learned 5 tickets that are held out now, e\.g\. t035"):
        world.go_on()


def test_without_new_tickets_there_is_nothing_to_continue_with(world: World) -> None:
    with pytest.raises(DataError, match="no train ticket is new"):
        world.go_on(learned=world.pool)
