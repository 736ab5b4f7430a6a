"""The examples of a training that continues from the champion: what is new to it, and a share of what it learned.

`continue_examples` is a step of flows/finetune.py.
"""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from schemas.artifacts import DatasetRef, Splits
from schemas.errors import DataError, GateError
from schemas.training import ReplaySpec
from tasks.step import as_step
from tasks.storage.files import write_json
from tasks.tickets.draw import hash_rank

LEARNED = "learned.parquet"
"""Ids of all tickets that the trained weights have seen, over the whole chain of trainings."""
ORIGINS = "origins.parquet"
"""Of each example: its ticket id, and whether it is `new` or `replayed`."""


@as_step("encode", libraries=("datasets", "pyarrow", "transformers"))
def continue_examples(
    out: Path, *, pool: DatasetRef, learned: DatasetRef, splits: Splits, replay: ReplaySpec
) -> DatasetRef:
    """Select from today's train pool what the champion has not learned, and replay a share of what it has.

    Replayed tickets are those with the smallest hashes of seed and id. Both kinds come from `pool`, which has only
    train tickets of the present cut; the validation split is that of the pool.

    Args:
        out: An empty directory; gets the splits, `learned.parquet`, `origins.parquet` and `replay.json`.
        pool: All examples of the present train split.
        learned: The examples that the champion was trained on.
        splits: The present splits.
        replay: Share, limit and seed.

    Raises:
        DataError: TG0308, nothing is new.
        GateError: TG0623, the champion has learned a ticket that is held out now.
    """
    seen = learned_ids(learned)
    held_out = _ids(splits.test) | _ids(splits.validation)
    if leaked := sorted(seen & held_out):
        raise GateError(
            f"the champion has learned {len(leaked)} tickets that are held out now, e.g. {leaked[0]}: a training that "
            "continues from it would have seen its own test",
            code="TG0623",
            where="train.start",
            hint="use start: base, or a split whose held-out tickets are newer than what was trained on",
        )
    train = _ids(splits.train)
    names = _names(pool.root / "train")
    new = [name for name in names if name not in seen]
    if not train.intersection(new):
        raise DataError(
            "no train ticket is new since the champion's training",
            code="TG0308",
            where="train.start",
            hint="wait for new tickets, or use start: base",
        )
    older = [name for name in names if name in seen]
    if (most := _most_new(len(older), replay)) is not None:
        new = _newest(splits.train, new, most)
    replayed = sorted(older, key=lambda name: hash_rank(name, seed=replay.seed))[: _n_replayed(len(new), replay)]
    chosen = {*new, *replayed}
    _write_subset(pool.root / "train", chosen, out / "train")
    shutil.copytree(pool.root / "validation", out / "validation")
    if (pool.root / "removed.parquet").is_file():
        shutil.copyfile(pool.root / "removed.parquet", out / "removed.parquet")
    origins = [(name, "replayed" if name in seen else "new") for name in names if name in chosen]
    _write_columns(out / ORIGINS, ticket_id=[name for name, _ in origins], origin=[origin for _, origin in origins])
    _write_columns(out / LEARNED, ticket_id=sorted(seen | chosen))
    write_json(
        out / "replay.json",
        {
            "share": replay.share, "seed": replay.seed, "n_new": len(new), "n_replayed": len(replayed),
            "n_older": len(older), "n_learned_before": len(seen),
            # Removed since: deleted, a duplicate of another, or now too close to a held-out ticket.
            "n_learned_not_in_pool": len(seen - {*names}),
        },
    )  # fmt: skip
    return _describe(out, pool)


def learned_ids(dataset: DatasetRef) -> frozenset[str]:
    """Ids of the tickets that a training on this data set has learned, with those of the trainings before it."""
    import pyarrow.parquet as pq

    file = dataset.root / LEARNED
    if file.is_file():
        return frozenset(pq.read_table(file, columns=["ticket_id"]).column(0).to_pylist())
    return frozenset(_names(dataset.root / "train"))


def count_examples(n_new: int, n_older: int, replay: ReplaySpec) -> int:
    """How many examples `continue_examples` selects from this many new and learned ones.

    >>> count_examples(40, 360, ReplaySpec(share=0.2, max_examples=None, seed=0))
    50
    """
    most = _most_new(n_older, replay)
    n_new = n_new if most is None else min(n_new, most)
    return n_new + min(n_older, _n_replayed(n_new, replay))


def _most_new(n_older: int, replay: ReplaySpec) -> int | None:
    """The limit of new examples that leaves room for the replayed ones; None for no limit."""
    limit = replay.max_examples
    return None if limit is None else limit - min(int(replay.share * limit), n_older)


def _n_replayed(n_new: int, replay: ReplaySpec) -> int:
    return math.ceil(replay.share * n_new / (1 - replay.share) - 1e-9)


def _names(folder: Path) -> list[str]:
    from datasets import load_from_disk

    return [str(name) for name in load_from_disk(str(folder))["ticket_id"]]


def _ids(path: Path) -> set[str]:
    import pyarrow.parquet as pq

    return set(pq.read_table(path, columns=["ticket_id"]).column(0).to_pylist())


def _newest(path: Path, names: list[str], limit: int) -> list[str]:
    """The newest `limit` of these tickets, in the given order; those that the split does not have are kept."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["ticket_id", "created_at"]).to_pylist()
    times = {row["ticket_id"]: row["created_at"] for row in rows}
    dated = [name for name in names if name in times]
    dated.sort()
    dated.sort(key=lambda name: (times[name] is not None, times[name]), reverse=True)
    kept = {*dated[:limit], *(name for name in names if name not in times)}
    return [name for name in names if name in kept]


def _write_subset(source: Path, chosen: Iterable[str], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import load_from_disk

    from tasks.model.chat_format import write_examples

    table = load_from_disk(str(source)).data.table
    write_examples(table.filter(pc.is_in(table.column("ticket_id"), pa.array(sorted(chosen)))), out)


def _write_columns(path: Path, **columns: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, path, compression="zstd")


def _describe(out: Path, pool: DatasetRef) -> DatasetRef:
    from datasets import load_from_disk

    train = load_from_disk(str(out / "train"))
    lengths = [len(ids) for ids in train["input_ids"]]
    return DatasetRef(
        root=out,
        n_train=len(lengths),
        n_validation=pool.n_validation,
        n_tokens=sum(lengths),
        n_supervised=sum(sum(mask) for mask in train["loss_mask"]),
        n_dropped=pool.n_dropped,
        max_tokens=max(lengths),
    )
