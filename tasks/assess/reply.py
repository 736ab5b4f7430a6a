"""The metric `reply`: is an answer anything like the replies of this desk, and the floor from which on it is.

A candidate with right labels may write anything after them. chrF to the reference tells a reply from no reply at any
length of the answer; whether it is the right one it tells only on average over many tickets.
"""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from schemas.artifacts import CheckEvidence, Splits
from schemas.metrics import ReplyMetric
from tasks.assess.fields import MAX_SCORED_CHARS, FieldPattern
from tasks.assess.items import ROW_CODES, reference_answer
from tasks.assess.metric import Answers, metric_of_all
from tasks.step import as_step
from tasks.storage.files import write_json
from tasks.tickets.draw import hash_rank
from tasks.tickets.row_fault import is_row_fault

REPLY_FLOOR = "reply_floor"
N_TICKETS = 64
"""Tickets on which the floor is measured."""
N_OTHERS = 4
"""Replies to other tickets that each of them is compared with."""
BELOW = 0.02
"""Share of those that may be below the floor. Even two equal models whose replies fit no better than those differ on
7 % of the items (Bitext): a margin of 0.1 holds 4 % of them at 100 items. With a share of 0.05 it held 17 %."""
NO_OTHERS = 0.5
"""The floor where all replies are the same text."""


def reply_of(text: str, fields: FieldPattern | None) -> str:
    """The answer without its fields."""
    return text[:MAX_SCORED_CHARS].strip() if fields is None else fields.without(text)


def overlap(text: str, reference: str) -> float:
    """chrF of a text against a reference, 0-1, as the metric `chrf`."""
    return float(_chrf().sentence_score(text, [reference]).score) / 100


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@metric_of_all(ReplyMetric, libraries=("sacrebleu",))
def reply(spec: ReplyMetric, answers: Answers) -> dict[str, float]:
    """Item id -> 1 if its answer reaches the floor. An item without a reference reply has 1, whatever is answered.

    An answer that was cut is compared with as many characters of the reference.
    """
    floor = answers.floor if spec.floor is None else spec.floor
    if floor is None:
        return {}
    values = {}
    for item in answers.items:
        name = str(item["item_id"])
        text, wanted = (reply_of(each, answers.fields) for each in (answers.texts[name], str(item["answer"] or "")))
        compared = wanted[: len(text)] if name in answers.cut else wanted
        values[name] = float(not wanted or (bool(text) and overlap(text, compared) >= floor))
    return values


@as_step(REPLY_FLOOR, libraries=("pyarrow", "numpy", "sacrebleu"))
def set_reply_floor(out: Path, *, splits: Splits, answer: str, fields: str | None) -> CheckEvidence:
    """Write `evidence.json`: the floor of the metric `reply`, 0-1, and what it was measured on.

    Replies to other train tickets are compared with those of validation tickets, which stand for new ones; a hash of
    the id draws both. Train tickets take the place of validation tickets that are missing. Test tickets are not read.

    Args:
        answer: Template of the reference answer.
        fields: Pattern of `evaluate.fields`, whose matches are no part of a reply; None for none.
    """
    pattern = FieldPattern(fields) if fields else None
    validation = list(_replies(splits.validation, answer, pattern, N_TICKETS)) if splits.n_validation else []
    train = list(_replies(splits.train, answer, pattern, N_TICKETS * (N_OTHERS + 1)))
    targets = [*validation, *train[: N_TICKETS - len(validation)]]
    others = train[len(targets) - len(validation) :] or train
    found = [
        overlap(other, reference)
        for place, reference in enumerate(targets)
        for other in (others[(N_OTHERS * place + step) % len(others)] for step in range(N_OTHERS))
        if other != reference
    ]
    values = {
        "floor": float(np.quantile(found, BELOW)) if found else NO_OTHERS,
        "median": float(np.median(found)) if found else None,
        "n_validation": float(len(validation)),
        "n_compared": float(len(found)),
    }
    write_json(out / "evidence.json", values)
    return CheckEvidence(root=out, check=REPLY_FLOOR, n_items=len(targets), values=values)


def _replies(split: Path, answer: str, fields: FieldPattern | None, most: float) -> Iterator[str]:
    """The first replies of a split by a hash of the ticket's id, without empty ones."""
    names = pq.read_table(split, columns=["ticket_id"]).column("ticket_id").to_pylist()
    first = sorted(names, key=lambda name: hash_rank(name, seed=0))[: math.ceil(1.5 * most)]
    rows = {row["ticket_id"]: row for row in pq.read_table(split, filters=[("ticket_id", "in", first)]).to_pylist()}
    n_found = 0
    for name in first:
        try:
            text = reply_of(reference_answer(answer, rows[name]), fields)
        except Exception as error:
            if not is_row_fault(error, ROW_CODES):
                raise
            continue
        if text and n_found < most:
            n_found += 1
            yield text
