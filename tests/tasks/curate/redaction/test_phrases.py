"""Recall and false finds on the phrases of `make bench-redact`, and texts whose numbers have unusual separators."""

from collections import Counter

import pyarrow as pa
import pytest

from benchmarks.personal_phrases import decoy_texts, labelled_texts, separated_texts, separator_decoys
from schemas.curation_steps import NamesSpec, RedactStep
from tasks.curate.redact import redact_row, redact_strings
from tasks.curate.redaction.name_rules import find_names_by_rules
from tasks.curate.redaction.personal import find_personal

STEP = RedactStep(uses="redact")
N_TEXTS = 200


def redact_text(text: str, step: RedactStep) -> tuple[str | None, Counter[str]]:
    redacted, counts = redact_row({"body": text}, step)
    return redacted["body"], counts


def spans_of(text: str) -> list[tuple[int, int, str]]:
    return [(found.start, found.end, found.type) for found in find_personal(text, STEP.types)]


def covered(text: str, start: int, end: int) -> bool:
    return any(first <= start and last >= end for first, last, _ in spans_of(text))


@pytest.mark.parametrize(
    ("kind", "least_recall", "most_wrong"),
    [
        ("phone", 0.98, 9),
        ("birth_date", 0.95, 0),
        ("passport", 0.95, 0),
        ("driving_licence", 0.99, 0),
        ("account", 0.96, 0),
        ("code", 0.99, 0),
        ("mac", 0.99, 0),
        ("address", 0.99, 6),
        ("secret", 0.91, 0),
    ],
)
def test_recall_on_phrases_does_not_fall_and_decoys_stay(kind: str, least_recall: float, most_wrong: int) -> None:
    type_ = "secret" if kind == "code" else kind
    texts = labelled_texts(kind, n_texts=N_TEXTS)
    n_found = sum(covered(text, start, end) for text, [(start, end, _)] in texts)
    wrong = [text for text, _ in decoy_texts(kind, n_texts=100) for *_, found in spans_of(text) if found == type_]
    assert n_found / len(texts) >= least_recall
    assert len(wrong) <= most_wrong, wrong


@pytest.mark.parametrize("kind", ["card", "phone", "national_id", "iban", "email"])
def test_a_value_is_found_whole_whatever_separates_its_groups(kind: str) -> None:
    missed = [
        text
        for text, [(start, end, _)] in separated_texts(kind)
        if not any((first, last, type_) == (start, end, kind) for first, last, type_ in spans_of(text))
    ]
    assert missed == []


def test_columns_and_amounts_with_the_same_separators_stay() -> None:
    assert [text for text, _ in separator_decoys() if spans_of(text)] == []


def test_the_rest_of_the_text_keeps_its_characters() -> None:
    before, after = "caf\u00e9\u00a0a\u200bb &amp; &nbsp;\t", "  &nbsp;x\u00ady\n"
    text = f"{before}4111&nbsp;1111\u20091111 \u200b1111{after}"
    assert redact_text(text, STEP)[0] == f"{before}[CARD_1]{after}"


def test_one_value_has_one_number_however_it_is_separated() -> None:
    text = "john.smith@example.com, john.smith&#64;example.com, 4111 1111 1111 1111, 4111\u00a01111\n1111\t1111"
    assert redact_text(text, STEP)[0] == "[EMAIL_1], [EMAIL_1], [CARD_1], [CARD_1]"


def test_strings_of_a_column_are_redacted_one_by_one() -> None:
    texts = pa.chunked_array(
        [["billing", None, "ann@example.org"], ["ann@example.org", "4111&nbsp;1111 1111 1111", ""]]
    )
    redacted, counts = redact_strings(texts.combine_chunks(), STEP)
    assert redacted.to_pylist() == ["billing", None, "[EMAIL_1]", "[EMAIL_1]", "[CARD_1]", ""]
    assert counts == {"email": 2, "card": 1}
    assert redact_strings(pa.array([None, ""], pa.string()), STEP)[0].to_pylist() == [None, ""]


def test_rules_find_names_in_greetings_signatures_and_introductions() -> None:
    texts = labelled_texts("name", n_texts=N_TEXTS)
    n_found = sum(
        any(first <= start and last >= end for first, last, _ in find_names_by_rules(text))
        for text, [(start, end, _)] in texts
    )
    assert n_found / len(texts) >= 0.98
    assert [text for text, _ in decoy_texts("name", n_texts=30) if list(find_names_by_rules(text))] == []


def test_names_by_rules_need_no_model_and_pass_the_gate() -> None:
    step = RedactStep(uses="redact", types=("name",), names=NamesSpec(mode="rules"))
    texts = [text for text, _ in labelled_texts("name", n_texts=N_TEXTS)]
    redacted, counts = redact_strings(pa.array(texts), step)
    assert counts["name"] == sum(redact_text(text, step)[1]["name"] for text in texts) >= len(texts)
    assert redact_text("Sehr geehrte Frau Dr. Keller,\nAnn Lee war da.", step)[0] == (
        "Sehr geehrte Frau Dr. [NAME_1],\nAnn Lee war da."
    )
    assert len(redacted) == len(texts)


def test_strings_pass_the_gate_for_every_type_that_is_found_in_them() -> None:
    kinds = ("phone", "birth_date", "passport", "driving_licence", "account", "code", "mac", "address", "secret")
    texts = [text for kind in kinds for text, _ in labelled_texts(kind, n_texts=40)]
    for type_ in STEP.types:
        step = RedactStep(uses="redact", types=(type_,))
        redacted, _ = redact_strings(pa.array(texts), step)
        assert redacted.to_pylist() == [redact_text(text, step)[0] for text in texts], type_
