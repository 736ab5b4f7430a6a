"""A limit of rows per key: which rows stay, rows without a key, and the same result in any order."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas.curation_steps import CapStep
from tasks.curate.cap import cap_rows

DAY = datetime(2026, 5, 1)


def at(hours: int) -> datetime:
    return DAY + timedelta(hours=hours)


ROWS = [
    {"ticket_id": "a1", "customer_id": "ann", "created_at": at(1)},
    {"ticket_id": "a2", "customer_id": "ann", "created_at": at(2)},
    {"ticket_id": "a3", "customer_id": "ann", "created_at": at(3)},
    {"ticket_id": "a4", "customer_id": "ann", "created_at": at(30)},
    {"ticket_id": "b1", "customer_id": "bob", "created_at": at(1)},
    {"ticket_id": "n1", "customer_id": None, "created_at": at(1)},
    {"ticket_id": "n2", "customer_id": None, "created_at": at(2)},
    {"ticket_id": "n3", "customer_id": "ann", "created_at": None},
]


@pytest.mark.parametrize(
    ("per", "max_rows", "prefer", "dropped", "uncapped"),
    [
        (("customer_id",), 2, "newest", {"a1", "a2", "n3"}, 2),
        (("customer_id",), 2, "oldest", {"a3", "a4", "n3"}, 2),
        (("customer_id", "day"), 1, "newest", {"a1", "a2"}, 3),
        (("customer_id", "day"), 2, "oldest", {"a3"}, 3),
        (("day",), 4, "newest", None, 1),
        (("product",), 1, "newest", set(), 8),
    ],
)
def test_the_preferred_rows_of_each_key_stay(
    make_tickets: Any,
    new_folder: Any,
    rows_of: Any,
    per: Any,
    max_rows: int,
    prefer: Any,
    dropped: set[str] | None,
    uncapped: int,
) -> None:
    step = CapStep(uses="cap", per=per, max_rows=max_rows, prefer=prefer)
    result = cap_rows(tickets=make_tickets(ROWS), step=step, out=new_folder())
    removed = rows_of(result.removed)
    code = "cap_" + "_".join(per)
    if dropped is None:  # three of the first hour tie: the hash decides which two are dropped
        assert len(removed) == 2
        assert set(removed) < {"a1", "b1", "n1"}
    else:
        assert set(removed) == dropped
    assert {row["code"] for row in removed.values()} <= {code}
    assert result.notes == {f"dropped_{code}": len(removed), "uncapped_null_key": uncapped}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (8, 8 - len(removed), len(removed))


def test_the_reason_names_the_key_and_no_value(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    step = CapStep(uses="cap", per=("customer_id", "day"), max_rows=2)
    removed = rows_of(cap_rows(tickets=make_tickets(ROWS), step=step, out=new_folder()).removed)
    assert removed["a1"]["reason"] == "more than 2 tickets of one customer_id and day"
    assert removed["a1"]["outcome"] == "dropped"


@pytest.mark.parametrize("seed", [0, 7])
def test_by_hash_the_smallest_digests_of_seed_and_id_are_kept(
    make_tickets: Any, new_folder: Any, rows_of: Any, seed: int
) -> None:
    rows = [{"ticket_id": f"t{number}", "channel": "mail", "created_at": at(number)} for number in range(30)]
    step = CapStep(uses="cap", per=("channel",), max_rows=5, prefer="hash", seed=seed)
    kept = rows_of(cap_rows(tickets=make_tickets(rows), step=step, out=new_folder()).tickets)

    def digest(number: int) -> str:
        return hashlib.sha256(f"{seed}:t{number}".encode()).hexdigest()

    assert set(kept) == {f"t{number}" for number in sorted(range(30), key=digest)[:5]}
