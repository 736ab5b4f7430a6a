"""Label errors: contradicting labels of one question, and labels that other tickets make unlikely."""

import hashlib
import random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.curation_steps import LabelCheckStep
from tasks.curate.label_check import check_labels
from tasks.curate.label_suspects import N_FOLDS, choose_learned

LATE = "My parcel has not arrived and the tracking page shows nothing since Monday"
ROWS = [
    {"ticket_id": "a1", "body": "Where is my parcel?", "category": "delivery"},
    {"ticket_id": "a2", "body": "where IS my parcel", "category": "delivery"},
    {"ticket_id": "a3", "body": "Where is my parcel!!", "category": "billing"},
    {"ticket_id": "a4", "body": "Where is my parcel", "category": None},
    {"ticket_id": "b1", "body": "I want my money back", "category": "returns"},
    {"ticket_id": "b2", "body": "I want my money back.", "category": "billing"},
    {"ticket_id": "c1", "body": "The lamp is broken", "category": "technical"},
    {"ticket_id": "c2", "body": "The lamp is broken", "category": "technical"},
    {"ticket_id": "d1", "body": None, "category": "billing"},
    {"ticket_id": "d2", "body": "!!!", "category": "returns"},
    {"ticket_id": "e1", "body": LATE + " last week please help me now", "category": "delivery"},
    {"ticket_id": "e2", "body": LATE + " last week please help me soon", "category": "billing"},
    {"ticket_id": "f1", "subject": "The lamp", "body": "is broken", "category": "technical"},
]


def step(**options: Any) -> LabelCheckStep:
    return LabelCheckStep(uses="label_check", **({"mode": "contradiction"} | options))


def with_flips(rows: list[dict[str, Any]], *, share: float, seed: int) -> tuple[list[dict[str, Any]], set[str]]:
    """Rows of which a share has another category of the set, and the ids of these."""
    rng = random.Random(seed)
    names = sorted({row["category"] for row in rows})
    flipped = set(rng.sample([row["ticket_id"] for row in rows], round(share * len(rows))))
    return [
        row | {"category": rng.choice([name for name in names if name != row["category"]])}
        if row["ticket_id"] in flipped
        else row
        for row in rows
    ], flipped


def test_each_ticket_counts_the_other_labels_of_its_question(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    result = check_labels(tickets=make_tickets(ROWS), step=step(), out=new_folder())
    found = {name: row["label_conflict"] for name, row in rows_of(result.tickets).items()}
    assert found == {
        "a1": 1, "a2": 1, "a3": 2, "a4": 0, "b1": 1, "b2": 1, "c1": 0, "c2": 0, "d1": 0, "d2": 0, "e1": 0, "e2": 0,
        "f1": 0,
    }  # fmt: skip
    assert result.notes == {"conflicting_families": 2, "conflicting_tickets": 5}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (13, 13, 0)


def test_the_conflicts_are_listed_by_family(make_tickets: Any, new_folder: Any) -> None:
    result = check_labels(tickets=make_tickets(ROWS), step=step(), out=new_folder())
    listed = pq.read_table(result.root / "conflicts.parquet").to_pylist()
    assert [tuple(row.values()) for row in listed] == [
        ("a1", "a1", "category", "delivery", 3),
        ("a1", "a2", "category", "delivery", 3),
        ("a1", "a3", "category", "billing", 3),
        ("b1", "b1", "category", "returns", 2),
        ("b1", "b2", "category", "billing", 2),
    ]


@pytest.mark.parametrize(
    ("action", "dropped"), [("drop_minority", {"a3", "b1", "b2"}), ("drop_all", {"a1", "a2", "a3", "b1", "b2"})]
)
def test_contradicting_tickets_are_dropped_as_the_action_says(
    make_tickets: Any, new_folder: Any, rows_of: Any, action: Any, dropped: set[str]
) -> None:
    result = check_labels(tickets=make_tickets(ROWS), step=step(action=action), out=new_folder())
    removed = rows_of(result.removed)
    assert set(removed) == dropped
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("dropped", "label_conflict")}
    assert removed["a3"]["reason"] == "tickets of this question with another category: 2 of 3"
    assert (removed["a3"]["cluster_id"], removed["a3"]["source_line"]) == ("a1", 3)
    assert result.notes["dropped_label_conflict"] == len(dropped)
    assert result.rows.n_out == 13 - len(dropped)
    assert rows_of(result.tickets)["a4"]["label_conflict"] == 0


def test_below_a_threshold_of_one_nearly_equal_questions_are_compared(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    # e1 and e2: 16 shingles each, 15 of them shared: J = 15/17 = 0.88.
    found = {
        threshold: rows_of(
            check_labels(tickets=make_tickets(ROWS), step=step(threshold=threshold), out=new_folder()).tickets
        )
        for threshold in (0.95, 0.85)
    }
    assert [found[threshold]["e1"]["label_conflict"] for threshold in (0.95, 0.85)] == [0, 1]
    assert [found[threshold]["a3"]["label_conflict"] for threshold in (0.95, 0.85)] == [2, 2]


def test_families_are_connected_and_not_only_pairs(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    words = [f"w{number}" for number in range(30)]
    # Each differs from the next by its last words; the first and the last are not similar themselves.
    bodies = [" ".join(words[: 30 - n] + [f"x{number}" for number in range(n)]) for n in (0, 4, 8)]
    rows = [
        {"ticket_id": f"t{number}", "body": body, "priority": f"p{number}"}
        for number, body in enumerate(bodies)
    ]  # fmt: skip
    result = check_labels(tickets=make_tickets(rows), step=step(field="priority", threshold=0.6), out=new_folder())
    assert [row["label_conflict"] for row in rows_of(result.tickets).values()] == [2, 2, 2]
    assert result.notes == {"conflicting_families": 1, "conflicting_tickets": 3}


def test_answers_are_compared_in_normal_form_and_listed_without_their_text(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = [
        {"ticket_id": "a", "body": "Can I return it?", "reply": "Yes, within 30 days."},
        {"ticket_id": "b", "body": "Can I return it?", "reply": "yes - within 30 days"},
        {"ticket_id": "c", "body": "can i return it", "reply": "No."},
        {"ticket_id": "d", "body": "can i return it", "reply": None},
        {"ticket_id": "e", "body": "can i return it", "reply": "..."},
    ]
    result = check_labels(tickets=make_tickets(rows), step=step(field="reply"), out=new_folder())
    assert [row["label_conflict"] for row in rows_of(result.tickets).values()] == [1, 1, 2, 0, 0]
    listed = pq.read_table(result.root / "conflicts.parquet").to_pylist()
    assert [row["value"] for row in listed] == [
        hashlib.sha256(text.encode()).hexdigest() for text in ("yes within 30 days", "yes within 30 days", "no")
    ]


def test_real_questions_have_the_conflicts_that_grouping_by_text_finds(
    make_tickets: Any, new_folder: Any, rows_of: Any, banking77: list[dict[str, Any]]
) -> None:
    rows = [*banking77[:1500], *({**row, "ticket_id": f"copy-{row['ticket_id']}"} for row in banking77[:300])]
    rows += [{**row, "ticket_id": f"other-{row['ticket_id']}", "category": "other"} for row in banking77[:200]]
    result = check_labels(tickets=make_tickets(rows), step=step(), out=new_folder())
    texts: dict[str, list[Any]] = {}
    for row in rows:
        words = "".join(c if c.isalnum() else " " for c in row["body"].lower()).split()
        texts.setdefault(" ".join(words), []).append(row["category"])
    wanted = [group for group in texts.values() if len(set(group)) > 1]
    assert result.notes["conflicting_families"] == len(wanted) >= 190
    assert result.notes["conflicting_tickets"] == sum(map(len, wanted))


@pytest.fixture(scope="module")
def flipped_questions(banking77: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], set[str]]:
    """Questions of twelve categories of banking77, 3 % of them with another category."""
    names = sorted({row["category"] for row in banking77})[::6][:12]
    return with_flips([row for row in banking77 if row["category"] in names], share=0.03, seed=1)


def test_flipped_labels_are_found_listed_by_confidence_and_dropped(
    make_tickets: Any, new_folder: Any, rows_of: Any, flipped_questions: tuple[list[dict[str, Any]], set[str]]
) -> None:
    rows, flipped = flipped_questions
    result = check_labels(tickets=make_tickets(rows), step=step(mode="confidence", action="drop"), out=new_folder())
    listed = pq.read_table(result.root / "label_suspects.parquet").to_pylist()
    suspects = {row["ticket_id"] for row in listed}
    assert len(suspects & flipped) >= 0.8 * len(flipped)
    assert len(suspects & flipped) >= 0.5 * len(suspects)
    assert [row["confidence"] for row in listed] == sorted(row["confidence"] for row in listed)
    given = {row["ticket_id"]: row["category"] for row in rows}
    assert all(row["value"] == given[row["ticket_id"]] != row["suggested"] for row in listed)
    assert all(0 <= row["confidence"] <= row["suggested_confidence"] <= 1 for row in listed)
    removed = rows_of(result.removed)
    assert removed.keys() == suspects
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("dropped", "label_suspect")}
    assert result.notes["label_suspects"] == result.notes["dropped_label_suspect"] == len(suspects)
    assert {row["label_conflict"] for row in rows_of(result.tickets).values()} == {0}


@pytest.mark.campaign
def test_of_all_flipped_labels_of_banking77_four_fifths_are_found_at_half_precision(
    make_tickets: Any, new_folder: Any, banking77: list[dict[str, Any]]
) -> None:
    rows, flipped = with_flips(banking77, share=0.03, seed=0)
    result = check_labels(tickets=make_tickets(rows), step=step(mode="confidence"), out=new_folder())
    suspects = set(pq.read_table(result.root / "label_suspects.parquet")["ticket_id"].to_pylist())
    assert len(suspects & flipped) >= 0.8 * len(flipped)
    assert len(suspects & flipped) >= 0.5 * len(suspects)


def test_a_copy_of_a_ticket_does_not_confirm_its_label(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    words = {"billing": "invoice charged card refund total", "delivery": "parcel courier street late lost"}
    rng = random.Random(3)
    rows = [
        {"ticket_id": f"{name}-{n:02d}", "body": " ".join(rng.choices(text.split(), k=6)) + f" x{n}", "category": name}
        for name, text in words.items()
        for n in range(40)
    ]
    wrong = [{"ticket_id": f"w{n}", "body": "parcel courier street", "category": "billing"} for n in range(5)]
    rows += [*wrong, {"ticket_id": "none", "body": "parcel", "category": None}]
    rows += [{"ticket_id": "rare", "body": "parcel lamp", "category": "rare"}]
    result = check_labels(tickets=make_tickets(rows), step=step(mode="confidence"), out=new_folder())
    found = {name for name, row in rows_of(result.tickets).items() if row["label_conflict"]}
    assert found == {row["ticket_id"] for row in wrong}
    assert result.notes == {"label_suspects": 5, "unchecked_labels": 2}
    assert result.rows.n_dropped == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(N_FOLDS, 12), min_size=2, max_size=77), st.integers(0, 400), st.integers(0, 2**32 - 1))
def test_of_newer_tickets_at_most_a_quarter_as_many_are_learned_as_of_the_others(
    sizes: list[int], n_newer: int, seed: int
) -> None:
    known = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.concatenate([known, np.random.default_rng(seed).integers(len(sizes), size=n_newer)])
    newer = np.arange(len(labels)) >= len(known)
    learned = choose_learned(labels, ranks_of(labels), newer=newer)
    assert newer[learned].sum() == min(n_newer, len(known) // 4)
    assert (~newer[learned]).sum() == len(known)


def test_newer_tickets_are_learned_in_proportion_to_their_labels_unless_there_is_one_label_to_learn() -> None:
    labels = np.repeat([0, 1, 0, 1, 2], [120, 120, 200, 100, 100])
    newer = np.arange(len(labels)) >= 240
    learned = choose_learned(labels, ranks_of(labels), newer=newer)
    assert np.bincount(labels[learned][newer[learned]]).tolist() == [30, 15, 15]
    few = np.repeat([0, 1], 3)
    for n_known in (0, 3):
        assert len(choose_learned(few, ranks_of(few), newer=np.arange(6) >= n_known)) == 6


def ranks_of(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([(labels[:place] == label).sum() for place, label in enumerate(labels)], np.int64)


@pytest.mark.parametrize("rows", [[], [{"ticket_id": "a", "body": None, "category": "x"}], ROWS])
def test_too_few_labels_are_not_checked(make_tickets: Any, new_folder: Any, rows: Any) -> None:
    result = check_labels(tickets=make_tickets(rows), step=step(mode="confidence", action="drop"), out=new_folder())
    assert (result.rows.n_in, result.rows.n_dropped) == (len(rows), 0)
    assert result.notes["unchecked_labels"] == len(rows)
    assert pq.read_table(result.root / "label_suspects.parquet").num_rows == 0


def test_the_order_of_rows_changes_no_suspect(
    make_tickets: Any, new_folder: Any, flipped_questions: tuple[list[dict[str, Any]], set[str]]
) -> None:
    rows = [{"source": "test", "source_line": line, **row} for line, row in enumerate(flipped_questions[0][:400])]
    wanted = step(mode="confidence", action="drop")
    first = check_labels(tickets=make_tickets(rows), step=wanted, out=new_folder())
    second = check_labels(tickets=make_tickets(random.Random(4).sample(rows, len(rows))), step=wanted, out=new_folder())
    for name in ("tickets.parquet", "removed.parquet", "label_suspects.parquet"):
        assert (first.root / name).read_bytes() == (second.root / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "drop_all"}, "need `mode: contradiction`"),
        ({"mode": "confidence", "threshold": 0.8}, "need `mode: contradiction`"),
        ({"mode": "confidence", "field": "reply"}, "need `mode: contradiction`"),
        ({"mode": "contradiction", "action": "drop"}, "needs `mode: confidence`"),
    ],
)
def test_settings_of_the_other_mode_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelCheckStep(uses="label_check", **settings)
