"""The probe: whether words predict a label, judged by tickets that the classifier has not seen."""

import random

import pyarrow as pa
import pytest

from tasks.assess.learnable import Probe, probe_labels

WORDS = {"billing": ("invoice", "refund", "charge", "bank"), "delivery": ("parcel", "courier", "depot", "van")}
PLAIN = tuple(f"word{a}{b}" for a in "abcdefgh" for b in "ijklmnop")


def tickets(bodies: list[str], **columns: list[str]) -> pa.Table:
    return pa.table({"subject": pa.nulls(len(bodies), pa.string()), "body": bodies, **columns})


def sentences(n: int, draw: random.Random) -> list[str]:
    return [" ".join(draw.sample(PLAIN, 8)) for _ in range(n)]


def test_labels_that_the_words_show_need_no_model_and_others_are_not_predictable() -> None:
    draw = random.Random(1)
    labels = draw.choices(list(WORDS), k=400)
    bodies = [f"{' '.join(draw.sample(WORDS[label], 2))} {sentences(1, draw)[0]}" for label in labels]
    chance = draw.choices(("red", "green", "blue"), k=400)
    found = probe_labels(tickets(bodies), {"team": labels, "colour": chance, "one": ["x"] * 400})
    assert found.keys() == {"team", "colour"}
    assert (found["team"].n_tickets, found["team"].n_labels, found["team"].is_enough) == (400, 2, True)
    assert "routing needs no language model" in found["team"].finding("team")
    assert not found["colour"].is_predictable
    assert found["colour"].finding("colour").startswith("colour is not predictable from the text: TF-IDF reaches 0.")


def test_copies_of_a_text_do_not_show_its_label() -> None:
    draw = random.Random(2)
    labels = draw.choices(("red", "green", "blue"), k=200)
    bodies = [f"{text} 1{n}" for text in sentences(200, draw) for n in range(5)]
    found = probe_labels(tickets(bodies), {"colour": [label for label in labels for _ in range(5)]})
    assert (found["colour"].n_tickets, found["colour"].is_predictable) == (200, False)


@pytest.mark.parametrize("owner", ["customer_id", "thread_id"])
def test_the_words_of_a_customer_do_not_show_the_label_of_the_customers_other_tickets(owner: str) -> None:
    draw = random.Random(3)
    bodies, labels, owners = [], [], []
    for number in range(60):
        own, label = " ".join(draw.sample(PLAIN, 3)), draw.choice(("red", "green", "blue"))
        for text in sentences(5, draw):
            bodies.append(f"{own} {own.replace('word', 'name')} {text}")
            labels.append(label)
            owners.append(f"c{number}")
    assert probe_labels(tickets(bodies), {"colour": labels})["colour"].right > 0.7
    found = probe_labels(tickets(bodies, **{owner: owners}), {"colour": labels})
    assert found["colour"].right < 0.6
    same = probe_labels(tickets(bodies, **{owner: ["c0"] * 300}), {"colour": labels})
    assert same["colour"].right > 0.7, "one customer for all is no customer"


def test_few_tickets_say_nothing_and_tickets_without_a_label_do_not_count() -> None:
    draw = random.Random(4)
    bodies, labels = sentences(120, draw), draw.choices(("a", "b"), k=120)
    assert probe_labels(tickets(bodies[:40]), {"x": labels[:40]}) == {}
    half = [label if n % 2 else None for n, label in enumerate(labels)]
    assert probe_labels(tickets(bodies), {"x": half})["x"].n_tickets == 60


def test_a_model_has_something_to_gain_between_the_two() -> None:
    probe = Probe(n_tickets=1000, n_labels=5, right=0.8, majority=0.3)
    assert (probe.is_predictable, probe.is_enough, probe.finding("x")) == (True, False, "")
    assert probe.figures == "TF-IDF is right in 0.80, the commonest label in 0.30"
