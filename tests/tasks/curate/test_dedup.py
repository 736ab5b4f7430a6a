"""Near duplicates equal comparing all pairs, whatever the order of rows; each removed ticket has a direct witness."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.curation_steps import DedupStep
from schemas.errors import DataError
from tasks.curate.dedup import drop_duplicates
from tasks.curate.similarity import shingles

START = datetime(2026, 6, 1)


def near(threshold: float = 0.8, **settings: Any) -> DedupStep:
    return DedupStep(uses="dedup", threshold=threshold, **settings)


def words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def shingles_in(text: str, n_words: int) -> frozenset[tuple[str, ...]]:
    listed = words(text)
    return frozenset(tuple(listed[i : i + n_words]) for i in range(len(listed) - n_words + 1))


def by_brute_force(
    rows: Sequence[dict[str, Any]], step: DedupStep
) -> tuple[dict[str, tuple[str, float]], dict[str, str]]:
    """(removed id -> kept id and score, id -> cluster id) by comparing all pairs of ASCII tickets."""
    order = sorted(rows, key=lambda row: row["ticket_id"])
    if step.prefer == "newest":
        order.sort(key=lambda row: row["created_at"], reverse=True)
    elif step.prefer == "oldest":
        order.sort(key=lambda row: row["created_at"])
    else:
        order.sort(key=lambda row: -len(row["reply"]))
    texts = {row["ticket_id"]: words(row["body"]) for row in order}
    sets = {row["ticket_id"]: shingles_in(row["body"], step.shingle_words) for row in order}

    def score(one: str, two: str) -> float:
        if texts[one] and texts[one] == texts[two]:
            return 1.0
        union = len(sets[one] | sets[two])
        jaccard = len(sets[one] & sets[two]) / union if step.near and union else 0.0
        return jaccard if sets[one] and sets[two] and jaccard >= step.threshold else 0.0

    kept: list[str] = []
    removed: dict[str, tuple[str, float]] = {}
    first: dict[tuple[str, ...], str] = {}  # equal questions are decided together, at the first of them
    for row in order:
        name = row["ticket_id"]
        same = first.setdefault(tuple(texts[name]) or (name,), name)
        scores = [(-score(name, other), place, other) for place, other in enumerate(kept) if score(name, other)]
        if same != name:
            removed[name] = removed.get(same, (same, 1.0))
        elif scores:
            removed[name] = (min(scores)[2], -min(scores)[0])
        else:
            kept.append(name)
    cluster = {name: name for name in texts}
    for one, two in combinations(texts, 2):
        if score(one, two):
            old, new = sorted((cluster[one], cluster[two]), reverse=True)
            cluster = {name: new if of == old else of for name, of in cluster.items()}
    return removed, cluster


def check_against_brute_force(
    rows: Sequence[dict[str, Any]], step: DedupStep, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    step = step.model_copy(update={"ignore": ()})  # brute force compares whole questions
    result = drop_duplicates(tickets=make_tickets(rows), step=step, out=new_folder())
    expected, clusters = by_brute_force(rows, step)
    removed = rows_of(result.removed)
    assert {name: (row["kept_id"], row["score"]) for name, row in removed.items()} == expected
    assert {name: row["cluster_id"] for name, row in removed.items()} == {name: clusters[name] for name in removed}
    assert rows_of(result.tickets).keys() == {row["ticket_id"] for row in rows} - expected.keys()
    assert result.rows.n_merged == len(expected)


def random_rows(rng: random.Random, *, n_rows: int, n_vocabulary: int, n_words: int) -> list[dict[str, Any]]:
    """Texts from a small vocabulary, most of them edits of earlier ones."""
    rows: list[dict[str, Any]] = []
    for number in range(n_rows):
        text = [f"w{rng.randrange(n_vocabulary)}" for _ in range(rng.randrange(n_words + 1))]
        if rows and rng.random() < 0.7:
            text = rng.choice(rows)["body"].split()
            for _ in range(rng.randrange(4)):
                text.insert(rng.randrange(len(text) + 1), f"w{rng.randrange(n_vocabulary)}")
                if text and rng.random() < 0.5:
                    text.pop(rng.randrange(len(text)))
        rows.append(
            {
                "ticket_id": f"t{rng.randrange(10**6)}-{number}",
                "created_at": START + timedelta(days=rng.randrange(5)),
                "body": " ".join(text),
                "reply": "r" * rng.randrange(5),
            }
        )
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_random_families_of_edits_equal_brute_force(
    seed: int, make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rng = random.Random(seed)
    rows = random_rows(rng, n_rows=90, n_vocabulary=rng.choice((4, 30, 400)), n_words=rng.choice((6, 25)))
    step = near(
        rng.choice((0.3, 0.5, 0.7, 0.8, 0.9, 1.0)),
        shingle_words=rng.choice((1, 2, 3)),
        prefer=rng.choice(("newest", "oldest", "longest_reply")),
    )
    check_against_brute_force(rows, step, make_tickets, new_folder, rows_of)


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=14),
    st.sampled_from((1 / 3, 0.5, 0.6, 2 / 3, 0.7, 0.75, 0.8, 1.0)),
    st.integers(min_value=1, max_value=3),
)
@example(["a b c d e f g h i j", "a b c d e f g x"], 0.7, 1)
@example(["a b c d", "c d e f", "b c d e"], 0.5, 1)  # the removed one connects two kept ones
@example([], 0.8, 1)
def test_any_texts_of_few_words_equal_brute_force(
    make_tickets: Any, new_folder: Any, rows_of: Any, texts: list[str], threshold: float, n_words: int
) -> None:
    rows = [{"ticket_id": f"{number:02d}", "created_at": START, "body": text} for number, text in enumerate(texts)]
    check_against_brute_force(rows, near(threshold, shingle_words=n_words), make_tickets, new_folder, rows_of)


def test_a_real_set_equals_brute_force(
    banking77: list[dict[str, object]], make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = [row | {"created_at": START} for row in banking77 if str(row["body"]).isascii()][:400]
    check_against_brute_force(rows, near(0.5), make_tickets, new_folder, rows_of)


def test_punctuation_case_and_the_split_into_subject_and_body_make_no_difference(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = [
        {"ticket_id": "1", "subject": "Where is", "body": "my order?"},
        {"ticket_id": "2", "subject": None, "body": "WHERE is my   order"},
        {"ticket_id": "3", "subject": "Where", "body": "is my\u00a0order!!"},
    ]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(near=False), out=new_folder())
    removed = rows_of(result.removed)
    assert {name: row["kept_id"] for name, row in removed.items()} == {"2": "1", "3": "1"}
    assert removed["2"]["code"] == "exact_duplicate"
    assert (removed["2"]["outcome"], removed["2"]["score"], removed["2"]["cluster_id"]) == ("merged", 1.0, "1")
    assert result.notes == {"clusters": 1, "exact_duplicates": 2, "near_duplicates": 0, "empty_questions": 0}


def test_replies_are_never_compared(make_tickets: Any, new_folder: Any) -> None:
    reply = "We are sorry and will look into it at once, thank you for your patience."
    rows = [
        {"ticket_id": "1", "body": "my parcel was left in the rain", "reply": reply},
        {"ticket_id": "2", "body": "please cancel the subscription today", "reply": reply},
    ]
    assert drop_duplicates(tickets=make_tickets(rows), step=near(0.1), out=new_folder()).rows.n_merged == 0


def test_empty_questions_and_those_without_a_letter_are_never_merged(make_tickets: Any, new_folder: Any) -> None:
    rows = [{"ticket_id": str(number), "body": body} for number, body in enumerate(["", "", "???", "!!!", None])]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(), out=new_folder())
    assert result.rows.n_merged == 0
    assert result.notes["empty_questions"] == 5


def test_short_questions_are_merged_only_when_equal(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [{"ticket_id": str(number), "body": body} for number, body in enumerate(["help me", "Help me!", "help us"])]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(0.1), out=new_folder())
    assert list(rows_of(result.removed)) == ["1"]


def test_texts_without_spaces_are_compared_by_their_characters(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    rows = [
        {"ticket_id": "1", "body": "我的订单已经三天没有更新了，请帮我查一下现在到哪里了"},
        {"ticket_id": "2", "body": "我的订单已经三天没有更新了，请帮我查一下现在到哪里"},
        {"ticket_id": "3", "body": "请问怎么取消我的会员订阅，下个月不想再续费了谢谢"},
    ]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(), out=new_folder())
    assert list(rows_of(result.removed)) == ["2"]


@pytest.mark.parametrize(
    ("prefer", "kept"), [("newest", "b"), ("oldest", "a"), ("longest_reply", "c"), ("best_rated", "b")]
)
def test_the_preferred_member_is_kept(prefer: str, kept: str, make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [
        {"ticket_id": "a", "created_at": START, "reply": "xx"},
        {"ticket_id": "b", "created_at": START + timedelta(days=2), "reply": "x", "rating": 4.5},
        {"ticket_id": "c", "created_at": START + timedelta(days=1), "reply": "xxx", "rating": 4.5},
        {"ticket_id": "d", "created_at": None, "reply": None},
    ]
    rows = [row | {"body": "the same question of all"} for row in rows]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(prefer=prefer), out=new_folder())
    assert list(rows_of(result.tickets)) == [kept]
    assert {row["cluster_id"] for row in rows_of(result.removed).values()} == {"a"}


def test_question_and_answer_together_keep_one_question_with_two_answers(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    reply = "We sent it again today by another courier and you will have it on Friday"
    rows = [
        {"ticket_id": "1", "body": "where is my parcel please", "reply": reply},
        {"ticket_id": "2", "body": "Where is my parcel, please?", "reply": reply + "!"},
        {"ticket_id": "3", "body": "where is my parcel please", "reply": "It was returned to us, we refund the price"},
    ]
    tickets = make_tickets(rows)
    alone = drop_duplicates(tickets=tickets, step=near(), out=new_folder())
    both = drop_duplicates(tickets=tickets, step=near(compare="question_and_answer"), out=new_folder())
    assert list(rows_of(alone.removed)) == ["2", "3"]
    assert {name: row["reason"] for name, row in rows_of(both.removed).items()} == {
        "2": "the question with its answer repeats the kept ticket's"
    }


@pytest.mark.parametrize("how", ["a tiny budget", "one thread", "small batches"])
def test_memory_threads_and_batches_change_no_byte(
    how: str, bitext: list[dict[str, object]], make_tickets: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = make_tickets(bitext[:800])
    plain = drop_duplicates(tickets=tickets, step=near(0.6), out=new_folder())
    assert plain.rows.n_merged > 20
    if how == "one thread":
        monkeypatch.setattr(shingles, "n_threads", lambda: 1)
    elif how == "small batches":
        monkeypatch.setattr(shingles, "BATCH_ROWS", 50)
    budget = 100 if how == "a tiny budget" else None
    other = drop_duplicates(tickets=tickets, step=near(0.6), out=new_folder(), memory_budget=budget)
    assert plain.tickets.read_bytes() == other.tickets.read_bytes()
    assert plain.removed.read_bytes() == other.removed.read_bytes()
    assert {path.name for path in other.root.parent.iterdir() if path.is_file()} == set()


def test_a_chain_keeps_tickets_that_are_far_from_each_other(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    # Each text is similar to the next one only: connected components alone would leave one of the five.
    listed = [f"w{number}" for number in range(30)]
    rows = [
        {"ticket_id": str(step), "created_at": START - timedelta(days=step), "body": " ".join(listed[step * 3 :][:15])}
        for step in range(5)
    ]
    result = drop_duplicates(tickets=make_tickets(rows), step=near(0.6, shingle_words=1), out=new_folder())
    assert {name: row["kept_id"] for name, row in rows_of(result.removed).items()} == {"1": "0", "3": "2"}
    assert {row["cluster_id"] for row in rows_of(result.removed).values()} == {"0"}


def test_a_family_just_below_the_threshold_is_refused_by_name(make_tickets: Any, new_folder: Any) -> None:
    # The words that the alarms differ in are commoner than those they share; else rare words alone keep them apart.
    rows = [
        {"ticket_id": f"alarm-{number:03d}", "body": " ".join([*(f"w{i}" for i in range(8)), f"a{number} b{number}"])}
        for number in range(100)
    ]
    values = " ".join(f"{letter}{number}" for letter in "ab" for number in range(100))
    rows += [{"ticket_id": f"list-{number}", "body": f"{values} c{number}"} for number in range(120)]
    with pytest.raises(DataError, match=r"TG0250.*100 tickets like alarm-000 "):
        drop_duplicates(tickets=make_tickets(rows), step=near(shingle_words=1, max_comparisons=1000), out=new_folder())
    enough = near(shingle_words=1, max_comparisons=6000)
    assert drop_duplicates(tickets=make_tickets(rows), step=enough, out=new_folder()).rows.n_merged == 119


GREETED = "Hi Ann,\n{}\n\nBest regards\n{}\n\nOn 3 May 2026 at 10:12 {} wrote:\n> {}"


def test_greetings_signatures_and_quotes_neither_make_nor_hide_duplicates(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    lost, broken = "my parcel was promised for monday and is still not here", "the screen of my lamp stays dark"
    quoted = "we have changed nothing at all and will answer you as soon as we can, thank you for waiting so long"
    rows = [
        {"ticket_id": "plain", "body": lost},
        {"ticket_id": "mail", "body": GREETED.format(lost, "Bob Brown", "Ann", "an older word of ours")},
        {"ticket_id": "one", "body": GREETED.format(lost + " so i ask again", "Bob Brown", "Ann", quoted)},
        {"ticket_id": "two", "body": GREETED.format(broken, "Bob Brown", "Ann", quoted)},
    ]
    counted = drop_duplicates(
        tickets=make_tickets(rows), step=DedupStep(uses="dedup", threshold=0.5, ignore=()), out=new_folder()
    )
    assert {row["kept_id"] for row in rows_of(counted.removed).values()} == {"one"}  # what is quoted makes them alike
    assert set(rows_of(counted.removed)) == {"two"}
    ignored = drop_duplicates(tickets=make_tickets(rows), step=DedupStep(uses="dedup", threshold=0.6), out=new_folder())
    merged = {name: row["kept_id"] for name, row in rows_of(ignored.removed).items()}
    assert merged == {"plain": "mail", "one": "mail"}
    assert rows_of(ignored.removed)["plain"]["score"] == 1.0
