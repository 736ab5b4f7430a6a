"""Read a report's figures from the files of stored results: training curves, lengths of examples."""

import math
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import DatasetRef
from schemas.report import Curve
from tasks.tickets.encoded import read_encoded

N_BINS = 16
PERCENTILE = 90
TRAINING = ("loss", "learning_rate", "grad_norm")


def read_curves(path: Path) -> tuple[Curve, ...]:
    """The series of a `curves.parquet`: those of training, and `validation_*` if measured."""
    table = pq.read_table(path)
    steps = table.column("step").to_pylist()
    found = []
    for name in table.column_names:
        if name not in TRAINING and not name.startswith("validation_"):
            continue
        pairs = [
            (step, float(value))
            for step, value in zip(steps, table.column(name).to_pylist(), strict=True)
            if value is not None and math.isfinite(value)
        ]
        if pairs:
            xs, ys = zip(*pairs, strict=True)
            found.append(Curve(name=name, steps=xs, values=ys))
    return tuple(found)


def token_lengths(folder: Path) -> tuple[tuple[str, int], ...]:
    """Number of examples by range of tokens, in an encoded split (a folder of Arrow files)."""
    lengths: list[int] = []
    for batch in read_encoded(folder):
        lengths += pc.list_value_length(batch.column("input_ids")).to_pylist()
    if not lengths:
        return ()
    width = max(1, -(-(max(lengths) + 1) // N_BINS))
    counts = [0] * (max(lengths) // width + 1)
    for length in lengths:
        counts[length // width] += 1
    first = next(place for place, n in enumerate(counts) if n)
    return tuple((f"{place * width}-{(place + 1) * width - 1}", n) for place, n in enumerate(counts) if place >= first)


def reply_tokens(folder: Path) -> list[int]:
    """Tokens of the last answer of each example of an encoded split, its end included."""
    found = []
    for batch in read_encoded(folder):
        for mask in batch.column("loss_mask").to_pylist():
            answer = mask[::-1]
            start = answer.index(1) if 1 in answer else len(answer)
            rest = answer[start:]
            found.append(rest.index(0) if 0 in rest else len(rest))
    return found


def cut_replies(dataset: DatasetRef, *, max_new_tokens: int) -> str | None:
    """A warning if the limit is under the 90th percentile of the encoded replies; None if it is not.

    Args:
        max_new_tokens: Longest answer, in tokens.
    """
    lengths = sorted(reply_tokens(dataset.root / "train"))
    if not lengths:
        return None
    usual = lengths[min(len(lengths) - 1, PERCENTILE * len(lengths) // 100)]
    if usual <= max_new_tokens:
        return None
    share = sum(length > max_new_tokens for length in lengths) / len(lengths)
    return (
        f"evaluate.max_new_tokens {max_new_tokens} cuts {share:.0%} of the replies: their 90th percentile is {usual} "
        "tokens, and an answer of this length is never finished"
    )
