"""Held-out tickets of which a candidate learned something are left out when it is judged again."""

import random
from typing import Any

from schemas.curation import DecontaminateSpec
from tasks.curate.unseen import leave_out_learned


def text(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(100_000)}" for _ in range(40))


def row(ticket_id: str, body: str, **others: object) -> dict[str, object]:
    return {"ticket_id": ticket_id, "body": body, **others}


def test_tickets_that_the_candidate_knows_are_dropped_with_their_reason(
    make_splits: Any, new_folder: Any, rows_of: Any
) -> None:
    train = [
        row("mine", text(1), customer_id="c1"), row("asked", text(2)), row("moved", text(3)),
        *(row(f"other-{number}", text(100 + number)) for number in range(30)),
    ]  # fmt: skip
    learned = make_splits(train=train, validation=[row("chosen", text(4))], test=[row("old", text(5))])
    learned = learned.model_copy(update={"group_by": ("customer_id",)})
    edited = text(2).split()
    edited[7] = "changed"
    today = make_splits(
        train=[row("later", text(6))],
        test=[
            row("old", text(5)),  # held out then, and now
            row("fresh", text(7), customer_id="c2"),
            row("moved", text(3)),  # from train to test
            row("chosen", text(4)),  # a validation ticket, with which the training was chosen
            row("same-customer", text(8), customer_id="c1"),
            row("copy", text(2)),
            row("near", " ".join(edited)),  # one train ticket gives both away
        ],
    )
    found = leave_out_learned(learned=learned, today=today, spec=DecontaminateSpec(), out=new_folder())
    assert set(rows_of(found.test)) == {"old", "fresh"}
    removed = rows_of(found.removed)
    assert {name: (each["code"], each["kept_id"]) for name, each in removed.items()} == {
        "moved": ("leak_item", "moved"),
        "chosen": ("leak_item", "chosen"),
        "same-customer": ("leak_customer_id", None),
        "copy": ("leak_exact", "asked"),
        "near": ("leak_near", "asked"),
    }
    assert all(each["outcome"] == "dropped" for each in removed.values())
    assert found.train.read_bytes() == learned.train.read_bytes()
    assert found.validation.read_bytes() == learned.validation.read_bytes()
    assert (found.rows.n_in, found.rows.n_out, found.n_test, found.n_train) == (7, 2, 2, 33)
    assert found.notes == {"fresh_test_rows": 1}


def test_a_held_out_ticket_that_was_edited_is_compared_again(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    train = [row("asked", text(2)), *(row(f"other-{number}", text(100 + number)) for number in range(30))]
    learned = make_splits(train=train, test=[row("old", text(5)), row("kept", text(9))])
    today = make_splits(train=train, test=[row("old", text(2)), row("kept", text(9))])
    found = leave_out_learned(learned=learned, today=today, spec=DecontaminateSpec(), out=new_folder())
    assert set(rows_of(found.test)) == {"kept"}
    assert {name: each["code"] for name, each in rows_of(found.removed).items()} == {"old": "leak_exact"}
