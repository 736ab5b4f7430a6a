"""The generated help desk: repeatable, true to the house style, faulty where and as often as it says."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pytest

from schemas.evaluation import EvaluateSpec
from schemas.load import load_file
from schemas.source import GeneratedSource
from tasks.assess.style import HouseStyle
from tasks.curate.redaction.personal import find_personal
from tasks.sources import helpdesk
from tasks.sources.helpdesk import generate_tickets
from tasks.sources.helpdesk.company import CATEGORIES, PRODUCTS, reference_of
from tasks.sources.helpdesk.defects import SWAPPED, WAYS, similarity
from tasks.sources.helpdesk.grammar import Dice, parse, speak
from tasks.sources.helpdesk.phrases import PHRASES
from tasks.sources.helpdesk.tickets import EVERY, HelpDesk, Ticket
from tasks.sources.helpdesk.writer import make_up

COLUMNS = [
    "ticket_id", "customer_id", "thread_id", "created_at", "updated_at", "product", "channel",
    "subject", "body", "reply", "category", "priority", "reference",
]  # fmt: skip
PRIORITIES = ("low", "normal", "high")
Defect = Literal["none", "swapped_labels", "broken_format"]


def source(n_tickets: int = 3000, *, seed: int = 20260601, defect: Defect = "none") -> GeneratedSource:
    return GeneratedSource(kind="generated", n_tickets=n_tickets, seed=seed, defect=defect)


@pytest.fixture(scope="module")
def tickets() -> list[Ticket]:
    return list(HelpDesk(source()).tickets())


@pytest.fixture(scope="module")
def clean(tickets: Sequence[Ticket]) -> list[Ticket]:
    return [ticket for ticket in tickets if ticket.kind == "clean"]


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return list(generate_tickets(source()))


@pytest.fixture(scope="module")
def evaluate(project: Path) -> EvaluateSpec:
    return load_file(project / "pipelines.yaml", environ={}).get("support-replies").evaluate


def week_of(ticket: Ticket) -> int:
    return (ticket.created_at.date() - datetime.fromisoformat("2026-06-01").date()).days // 7


DIGESTS = [
    ({}, "59047576798465951fed4a92d02bd07ae72722dd92d907b34e63a96f4ec633e7"),
    ({"n_tickets": 200}, "2d7d99dbcfc5a192942970d8df99d5d762669433107657f0c367eb5c0c75e7af"),
    ({"n_tickets": 50, "seed": 1}, "682370b29d00aa3dcc64ab25847a80667c8fc8f98a718b23719e05588b1122e7"),
    (
        {"n_tickets": 1000, "n_customers": 130, "defect": "broken_format"},
        "087422fb0304355fbd2abe6b32045ddb09c82862094d3aba98a501881e691e07",
    ),
    (
        {"n_tickets": 1000, "n_customers": 150, "n_weeks": 4, "seed": 11},
        "288670cfbc4b1a571e15d13a0f2f8bb150a6644b5f2a6e54f5b93e840fcb04b6",
    ),
]


@pytest.mark.parametrize(("settings", "digest"), DIGESTS)
def test_equal_settings_give_equal_bytes_on_every_platform(settings: dict[str, Any], digest: str) -> None:
    lines = b"".join(generate_tickets(GeneratedSource(kind="generated", **settings)))
    assert hashlib.sha256(lines).hexdigest() == digest


def test_the_table_of_kinds_in_the_documentation_is_what_comes_out(tickets: Sequence[Ticket]) -> None:
    rows = re.findall(r"^\| (\w+) +\| +([\d,]+) \|", helpdesk.__doc__ or "", re.MULTILINE)
    assert {kind: int(n.replace(",", "")) for kind, n in rows} == Counter(ticket.kind for ticket in tickets)


def test_each_kind_comes_as_often_as_it_says_whatever_the_seed() -> None:
    counts = Counter(ticket.kind for ticket in HelpDesk(source(seed=5)).tickets())
    assert counts["clean"] == 3000
    for kind, every in EVERY.items():
        assert abs(counts[kind] - 3000 / every) <= 1, kind


def test_times_rise_through_all_weeks_and_ids_with_them(tickets: Sequence[Ticket]) -> None:
    times = [ticket.created_at for ticket in tickets]
    assert times == sorted(times)
    assert [ticket.ticket_id for ticket in tickets] == [f"T-{n:06d}" for n in range(1, len(tickets) + 1)]
    assert all(ticket.updated_at > ticket.created_at for ticket in tickets)
    per_week = Counter(map(week_of, tickets))
    assert sorted(per_week) == list(range(8))
    assert per_week[7] > 1.2 * per_week[0]


def test_every_week_has_every_category_priority_and_product(clean: Sequence[Ticket]) -> None:
    for week in range(8):
        found = [ticket for ticket in clean if week_of(ticket) == week]
        assert {ticket.category for ticket in found} == set(CATEGORIES)
        assert {ticket.priority for ticket in found} == set(PRIORITIES)
        assert {ticket.product for ticket in found} == {product.name for product in PRODUCTS}


def test_every_clean_reply_keeps_the_house_style_and_routes_as_its_columns_say(
    clean: Sequence[Ticket], evaluate: EvaluateSpec
) -> None:
    style = HouseStyle(evaluate.style)
    reader = re.compile(evaluate.fields)
    for ticket in clean:
        assert ticket.reply is not None
        assert set(style.score(ticket.reply).values()) == {1.0}
        found = reader.search(ticket.reply)
        assert found is not None
        assert found.groupdict() == {
            "category": ticket.category,
            "priority": ticket.priority,
            "reference": ticket.reference,
        }
        assert len(ticket.reply.split("\n")) == 3
        assert "your Northbeam" in ticket.reply
        assert "client" not in ticket.reply.lower()


def test_the_prompt_names_the_one_reference_the_answer_must_repeat(clean: Sequence[Ticket]) -> None:
    for ticket in clean:
        assert set(re.findall(r"NB-\d{5}", f"{ticket.subject}\n{ticket.body}")) == {ticket.reference}
    places = Counter((str(t.reference) in t.subject, str(t.reference) in t.body) for t in clean)
    assert places[True, False] > 600
    assert places[False, True] > 600


def test_references_do_not_repeat() -> None:
    assert len({reference_of(number, 7) for number in range(90_000)}) == 90_000


def test_no_pattern_leaves_a_bracket_a_slot_or_a_doubled_space(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        text = f"{ticket.subject}\n{ticket.body}"
        assert not re.search(r"[\[\]{}\x00-\x09\x0b-\x1f]|  | [,.;:?!](?!\w)|\ba (?!us|one)[aeiou]\w", text), text


def test_each_category_has_ten_situations_with_several_phrasings_and_a_known_step() -> None:
    for category, situations in PHRASES.situations.items():
        assert len(situations) >= 10, category
        for situation in situations:
            assert len(situation.texts) >= 3
            assert len(situation.subjects) >= 4
            assert situation.step in PHRASES.steps
            for pattern in situation.texts:
                assert len(parse(pattern)) > 1, pattern


def test_a_pattern_with_unmatched_brackets_is_refused() -> None:
    for pattern in ("[a|b", "a]", "a|b"):
        with pytest.raises(ValueError, match="pattern"):
            speak(pattern, Dice(1), {})


def test_broken_rows_come_in_every_way_and_no_line_else_is_broken(
    tickets: Sequence[Ticket], lines: Sequence[bytes]
) -> None:
    assert len(lines) == len(tickets)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    ways: Counter[str] = Counter()
    ids: set[str] = set()
    for ticket, line in zip(tickets, lines, strict=True):
        way = fault_of(line, ids)
        assert (way is not None) == (ticket.kind == "broken"), ticket.ticket_id
        ways.update([way] if way else [])
    assert set(ways) == set(WAYS)
    assert max(ways.values()) - min(ways.values()) <= 1
    assert 0.005 < ways.total() / len(lines) < 0.04


def fault_of(line: bytes, ids: set[str]) -> str | None:
    """What a careful reader finds wrong with the line; ids grows by the id of a whole row."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return "truncated" if error.pos >= len(text) - 1 else "invalid_json"
    assert list(row) == COLUMNS
    if row["body"] is None:
        return "missing_body"
    if not isinstance(row["body"], str):
        return "wrong_type"
    if not row["customer_id"]:
        return "missing_customer"
    if len(row["body"]) > 4000:
        return "too_long"
    if row["category"] not in (None, *CATEGORIES):
        return "unknown_category"
    if row["priority"] not in (None, *PRIORITIES):
        return "unknown_priority"
    try:
        datetime.fromisoformat(row["created_at"])
    except ValueError:
        return "impossible_date"
    if row["ticket_id"] in ids:
        return "conflicting_id"
    ids.add(row["ticket_id"])
    return None


def test_copies_are_equal_or_nearly_equal_to_a_clean_ticket(tickets: Sequence[Ticket]) -> None:
    clean = {ticket.reference: ticket for ticket in tickets if ticket.kind == "clean"}
    n_same_customer = 0
    for ticket in tickets:
        if ticket.kind not in ("exact_copy", "near_copy"):
            continue
        original = clean[ticket.reference]
        one, other = (f"{t.subject} {t.body}" for t in (ticket, original))
        assert (one == other) == (ticket.kind == "exact_copy")
        assert similarity(one, other) >= 0.8
        assert (ticket.category, ticket.priority) == (original.category, original.priority)
        assert ticket.thread_id != original.thread_id
        n_same_customer += ticket.customer_id == original.customer_id
    n_copies = sum(ticket.kind.endswith("_copy") for ticket in tickets)
    assert 0.6 * n_copies < n_same_customer < n_copies


def test_two_clean_tickets_are_never_nearly_equal_by_chance(clean: Sequence[Ticket]) -> None:
    by_run: dict[tuple[str, ...], list[int]] = {}
    texts = [f"{ticket.subject} {ticket.body}" for ticket in clean[:1200]]
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        for start in range(len(words) - 9):
            by_run.setdefault(tuple(words[start : start + 10]), []).append(number)
    pairs = {(a, b) for numbers in by_run.values() for a in numbers for b in numbers if a < b}
    assert pairs
    assert max(similarity(texts[a], texts[b]) for a, b in pairs) < 0.7


def test_a_follow_up_stays_in_thread_customer_and_order_with_other_words(tickets: Sequence[Ticket]) -> None:
    clean = {ticket.thread_id: ticket for ticket in tickets if ticket.kind == "clean"}
    follow_ups = [ticket for ticket in tickets if ticket.kind == "follow_up"]
    for ticket in follow_ups:
        first = clean[ticket.thread_id]
        assert (ticket.customer_id, ticket.reference) == (first.customer_id, first.reference)
        assert (ticket.category, ticket.priority) == (first.category, first.priority)
        assert ticket.created_at > first.created_at
        assert similarity(ticket.body, first.body) < 0.8
    assert {thread for thread, n in Counter(t.thread_id for t in tickets).items() if n > 1} == {
        ticket.thread_id for ticket in follow_ups
    }


def test_some_held_out_texts_are_borrowed_from_earlier_customers(tickets: Sequence[Ticket]) -> None:
    borrowed = [ticket for ticket in tickets if ticket.kind == "borrowed"]
    clean = [ticket for ticket in tickets if ticket.kind == "clean"]
    for ticket in borrowed[:20]:
        scores = [(similarity(ticket.body, other.body), other) for other in clean if other.category == ticket.category]
        score, original = max(scores, key=lambda pair: pair[0])
        assert 0.4 < score < 0.9
        assert original.reference != ticket.reference
        assert original.created_at < ticket.created_at


def test_personal_data_is_in_every_seventh_ticket_and_all_of_it_can_be_found(clean: Sequence[Ticket]) -> None:
    types = ("email", "phone", "card", "iban", "ip", "url", "secret")
    found = [{one.type for one in find_personal(f"{t.body}\n{t.reply}", types)} for t in clean]
    assert 0.12 < sum(map(bool, found)) / len(found) < 0.2
    assert set().union(*found) == set(types)
    dice = Dice(3)
    for kind, patterns in PHRASES.personal_data.items():
        for pattern in patterns * 20:
            text = speak(pattern, dice, make_up(kind, "Nadia", dice))
            assert [one.type for one in find_personal(text, types)] == [kind], text


@pytest.mark.parametrize("defect", ["swapped_labels", "broken_format"])
def test_a_defect_changes_the_labels_of_its_weeks_and_nothing_else(
    defect: Defect, tickets: Sequence[Ticket], lines: Sequence[bytes], evaluate: EvaluateSpec
) -> None:
    defective = list(HelpDesk(source(defect=defect)).tickets())
    reader = re.compile(evaluate.fields)
    style = HouseStyle(evaluate.style)
    n_touched = 0
    for whole, line, bad, bad_line in zip(
        tickets, lines, defective, generate_tickets(source(defect=defect)), strict=True
    ):
        assert bad.body == whole.body
        if week_of(whole) >= 6:
            assert bad_line == line
            continue
        assert without_labels(bad) == without_labels(whole)
        if whole.kind != "clean":
            continue
        n_touched += 1
        assert whole.reply is not None
        assert bad.reply is not None
        sentences, _, signature = whole.reply.split("\n")
        assert bad.reply.split("\n")[::2] == [sentences, signature]
        assert set(style.score(bad.reply).values()) == {1.0}
        found = reader.search(bad.reply)
        if defect == "broken_format":
            assert found is None
            assert bad.category == whole.category
        else:
            assert found is not None
            assert found["category"] == bad.category == SWAPPED[str(whole.category)]
            assert found["priority"] == whole.priority
    assert n_touched > 1800


def without_labels(ticket: Ticket) -> dict[str, object]:
    return {name: value for name, value in vars(ticket).items() if name not in ("category", "reply")}


def test_the_swap_moves_every_category_to_another_one() -> None:
    assert sorted(SWAPPED) == sorted(SWAPPED.values()) == sorted(CATEGORIES)
    assert all(before != after for before, after in SWAPPED.items())


def test_words_alone_route_well_but_not_perfectly_and_one_keyword_does_not() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    found = [ticket for ticket in HelpDesk(source(1500)).tickets() if ticket.kind == "clean"]
    texts = [f"{ticket.subject}\n{ticket.body}" for ticket in found]
    labels = [str(ticket.category) for ticket in found]
    cut = 1200
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=500).fit(words.fit_transform(texts[:cut]), labels[:cut])
    right = model.predict(words.transform(texts[cut:])) == labels[cut:]
    assert 0.6 < right.mean() < 0.97
    assert one_keyword_each(texts[:cut], labels[:cut], texts[cut:], labels[cut:]) < 0.5


def test_with_two_topics_the_reply_and_the_labels_follow_the_open_one(evaluate: EvaluateSpec) -> None:
    two = GeneratedSource(kind="generated", n_tickets=600, n_topics=2)
    style, reader = HouseStyle(evaluate.style), re.compile(evaluate.fields)
    by_topic = {topic: category for category, topics in PHRASES.topics.items() for topic in topics}
    orders = Counter[bool]()
    for ticket in HelpDesk(two).tickets():
        if ticket.kind != "clean":
            continue
        places = {
            text.find(topic): topic for topic in by_topic for text in [ticket.body.lower()] if topic.lower() in text
        }
        assert len(places) == 2, ticket.body
        reply = str(ticket.reply)
        (answered,) = [topic for topic in places.values() if topic.replace("my ", "your ", 1) in reply]
        assert by_topic[answered] == ticket.category
        orders[places[min(places)] == answered] += 1
        assert set(style.score(reply).values()) == {1.0}
        found = reader.search(reply)
        assert found is not None
        assert found.groupdict() == {name: getattr(ticket, name) for name in ("category", "priority", "reference")}
        assert str(ticket.reference) in ticket.subject
    assert min(orders.values()) > 0.4 * orders.total()


def test_counts_of_words_know_the_two_topics_of_a_ticket_and_not_which_is_open() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    two = GeneratedSource(kind="generated", n_tickets=2500, n_topics=2)
    found = [ticket for ticket in HelpDesk(two).tickets() if ticket.kind == "clean"]
    texts = [f"{ticket.subject}\n{ticket.body}" for ticket in found]
    labels = [str(ticket.category) for ticket in found]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=500).fit(words.fit_transform(texts[:2000]), labels[:2000])
    best = model.classes_[model.predict_proba(words.transform(texts[2000:])).argsort(axis=1)[:, -2:]]
    assert sum(label == pair[1] for label, pair in zip(labels[2000:], best, strict=True)) / 500 < 0.7
    assert sum(label in pair for label, pair in zip(labels[2000:], best, strict=True)) / 500 > 0.9


def one_keyword_each(
    texts: Sequence[str], labels: Sequence[str], new_texts: Sequence[str], new_labels: Sequence[str]
) -> float:
    """Accuracy of the best keyword of each category (by F1), the most precise one deciding first."""
    seen = [set(re.findall(r"[a-z]+", text.lower())) for text in texts]
    n_texts = Counter(word for words in seen for word in words)
    keywords = []
    for category in CATEGORIES:
        own = Counter(word for words, label in zip(seen, labels, strict=True) if label == category for word in words)
        n_own = labels.count(category)
        best = max(own, key=lambda word: 2 * own[word] / (n_texts[word] + n_own))
        keywords.append((own[best] / n_texts[best], best, category))
    keywords.sort(reverse=True)
    n_right = 0
    for text, label in zip(new_texts, new_labels, strict=True):
        words = set(re.findall(r"[a-z]+", text.lower()))
        n_right += next((category for _, word, category in keywords if word in words), None) == label
    return n_right / len(new_texts)


def test_a_start_that_is_no_day_is_refused_with_the_settings() -> None:
    with pytest.raises(ValueError, match="not a calendar day"):
        GeneratedSource(kind="generated", start="2026-02-30")


def test_memory_stays_flat_because_tickets_are_made_as_they_are_read() -> None:
    many = generate_tickets(source(1_000_000))
    assert len(list(islice(many, 500))) == 500
