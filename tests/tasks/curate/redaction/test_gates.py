"""The gates and the plain path agree: where a text lacks the bit of a type, no value of that type is found."""

import csv
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.curation_steps import NamesSpec, RedactionType, RedactStep
from tasks.curate.redact import redact_row, redact_tickets
from tasks.curate.redaction import announced, credentials
from tasks.curate.redaction.gates import ticket_bits
from tasks.curate.redaction.ticket import TicketRedactor
from tasks.curate.rows import read_rows

TEXTS = ("subject", "body", "reply", "messages")
STEP = RedactStep(
    uses="redact",
    types=tuple(type_ for type_ in get_args(RedactionType) if type_ != "name"),
    order_numbers=(r"\bNB-[0-9]{5}\b", "^#[0-9]+$"),
)
REDACTOR = TicketRedactor(STEP)
PIECES = [
    "ann@example.org", "ann (at) example [dot] org", "＠", "@", "https://x.example/a?b=c", "WWW.example.org", "://",
    "ftp://u:pw@h/x", "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxIn0.c2ln", "sk-abcdefghijklmnop0123",
    "ghp_abcdefghijklmnopqrst", "xoxb-123456789012-abcdefgh", "password: ", "pa\u017f\u017fword = ",
    "API KEY\u00a0is\u2003", "api\u212aey: ", "hunter2!x", "PIN is 4829", "cvv\u2003", "pw: ", "Bearer\u2003",
    "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END PRIVATE KEY-----",
    "DE89370400440532013000", "gb82 west 1234 5698 7654 32", "203.0.113.7", "v1.2.3.4", "2001:db8::1",
    "1:2:3:4:5:6:7:8", "::1", "4111 1111 1111 1111", "4111111111111111", "3782-822463-10005",
    "+49 (0)151 2345 6789", "0151\u00a02345678",
    "(905) 674-3793", "call 94727916", "9472", "7916", "460-89-9847", "SSN 460899847", "12345678Z", "X-1234567-L",
    "RSSMRA85T10A562S", "QQ 12 34 56 C", "AB123456C", "850709-9805", "850709+9805", "390.533.447-05", "2341 2341 2346",
    "NB-48213", "#4821", "2026-06-01 10:30:00", "[EMAIL_7]", "\ue000", "\ue001",
    " ", "\n", "\t", '"', "\\", "\\n", "\\u0040",
    "DOB: 12 March 1984", "passport C01X0006H", "driver's license: B1234567", "Kto.-Nr. 12345678", "code ", "482 913",
    "use 482913 to sign in", "00:1a:2b:3c:4d:5e", "12 Mill Lane, Leeds, LS1 4AP", "Hauptstraße 5, 50667 Köln",
    "12, rue de la Paix, 75002 Paris", "user/pass: ann/hunter2", "Authorization: Basic YW5uOmh1bnRlcjI=", "Kennwort ",
    "\u200b", "\u00ad", "\u2009", "&nbsp;", "&#64;", "&#x34;", "  ", "\r\n", "date of", "birth ", "born ",
    "password for my shop is ", "the pin", " was ", "Flat 3, ", "12 Rue", "12  Mill Lane", "LS1   4AP",
    "DATE   OF BIRTH ", "C01X0006H",
    "WLAN   KEY ", "geboren", "K-1234567", "12  34  56", "a1b2c3", "1a:2b", "-5e-", "2001:db8:1:2:3:4:5:6",
    "dave dot lee at gmail dot com", " at ", " dot ", " chiocciola libero.it", " (punto) it", "user: ", "login is ann",
    "@ann_lee", "on Instagram ", "sort code ", "12-34-56", "12345678", "senha é ", "wachtwoord ", "L01X00T471",
    "Perso ", "Via Garibaldi 22, ",
    "20121 Milano", "Kerkstraat 14a", "PLZ 10115", "4000_0566_5566_5556", "4 2 4 2 ", "NIF ",
    "1.43.08.01.238.171.42", "1200 County Road 12", "cap 20121",
    "order ", "is ", "a", "é", "漢", "1", "12", ".", "-", ":", "/", "(", ")", "+",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
ANY_JSON = st.recursive(TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("content"), inner))
MESSAGES = TEXT | ANY_JSON.map(json.dumps) | ANY_JSON.map(lambda value: json.dumps(value, ensure_ascii=False))
ROW = st.fixed_dictionaries(
    {"subject": st.none() | TEXT, "body": st.none() | TEXT, "reply": st.none() | TEXT, "messages": st.none() | MESSAGES}
)


def bits_of(rows: list[dict[str, Any]], step: RedactStep) -> list[list[int]]:
    """The bits of each text of each row."""
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in TEXTS})
    return [[int(bit) for bit in bits] for bits in ticket_bits(table, step)]


def assert_nothing_found_is_stopped(rows: list[dict[str, Any]], all_bits: list[list[int]] | None = None) -> int:
    """Every type found in a text has its bit; returns the number of rows that the gate skips."""
    all_bits = bits_of(rows, STEP) if all_bits is None else all_bits
    for row, bits in zip(rows, all_bits, strict=True):
        assert REDACTOR.redact(row, REDACTOR.types_of(*bits))[0] == redact_row(row, STEP)[0], row
        for name, passed in REDACTOR.types_of(*bits).items():
            counts = redact_row({name: row.get(name)}, STEP)[1]
            assert set(counts) <= passed, (row, name, counts, passed)
    return sum(not any(bits) for bits in all_bits)


@given(st.lists(ROW, min_size=20, max_size=40))
@settings(suppress_health_check=[HealthCheck.data_too_large])
def test_each_type_that_is_found_in_a_ticket_has_its_bit(rows: list[dict[str, Any]]) -> None:
    assert_nothing_found_is_stopped(rows)


def rows_with(text: str) -> list[dict[str, Any]]:
    """The text in every column, among words, and in JSON's escapes."""
    return [
        *({name: text} for name in TEXTS),
        {"body": f"password is hunter22 {text} call {text}"},
        {"messages": json.dumps([{"role": "user", "content": f"one\n{text}\ttwo"}])},
        {"messages": json.dumps([{"role": "user", "content": text}]).replace("@", "\\u0040").replace("/", "\\/")},
    ]


@pytest.fixture(scope="module")
def bits_with() -> dict[str, list[list[int]]]:
    """The bits of the rows with each text, from one table: RE2 compiles the patterns anew for each."""
    rows = {text: rows_with(text) for text in PIECES}
    bits = iter(bits_of([row for each in rows.values() for row in each], STEP))
    return {text: list(islice(bits, len(each))) for text, each in rows.items()}


@pytest.mark.parametrize("text", PIECES)
def test_a_value_passes_the_gate_in_every_column_and_in_json_escapes(
    bits_with: dict[str, list[list[int]]], text: str
) -> None:
    assert_nothing_found_is_stopped(rows_with(text), bits_with[text])


def test_the_table_is_redacted_as_ticket_by_ticket_on_real_texts(
    make_tickets: Any, new_folder: Any, shared_data: Path, bitext: Any
) -> None:
    """Bug reports, synthetic personal data and shop questions; a large share of them is skipped by the gate."""
    csv.field_size_limit(10**9)
    with (shared_data / "gitbugs" / "hadoop_bugs.csv").open(newline="", encoding="utf-8") as stream:
        bugs = [(row["Summary"], row["Description"]) for row in csv.DictReader(stream)]
    personal = json.loads((shared_data / "presidio_pii" / "synth_dataset_v2.json").read_text(encoding="utf-8"))[::3]
    rows = [{"ticket_id": f"bug-{n:05d}", "subject": bug[0], "body": bug[1]} for n, bug in enumerate(bugs[:400])]
    rows += [{"ticket_id": f"pii-{n:05d}", "reply": item["full_text"]} for n, item in enumerate(personal)]
    rows += [
        {"ticket_id": f"chat-{n:05d}", "messages": json.dumps([{"role": "user", "content": item["full_text"]}])}
        for n, item in enumerate(personal)
    ]
    rows += bitext[:500]
    tickets = make_tickets(rows)
    result = redact_tickets(tickets=tickets, step=STEP, out=new_folder())
    expected, counts, n_changed = [], Counter[str](), 0
    for row in read_rows(tickets.tickets).to_pylist():
        texts, replaced = redact_row({name: row[name] for name in (*TEXTS, "reference")}, STEP)
        expected.append(row | texts)
        counts.update(replaced)
        n_changed += bool(replaced)
    assert read_rows(result.tickets).to_pylist() == expected
    assert result.notes == {f"redacted_{type_}": counts[type_] for type_ in STEP.types} | {
        "redacted_tickets": n_changed
    }
    assert n_changed > 300
    assert assert_nothing_found_is_stopped(rows) > 300


def test_a_gate_for_no_type_skips_every_row() -> None:
    assert bits_of([{"body": "ann@example.org"}], RedactStep(uses="redact", types=())) == [[0, 0, 0, 0]]


def test_only_the_texts_that_may_hold_something_are_searched() -> None:
    row = {"subject": "late", "body": "ann@example.org", "reply": "please call (905) 674-3793", "messages": "[]"}
    step = RedactStep(uses="redact")
    [bits] = bits_of([row], step)
    assert TicketRedactor(step).types_of(*bits) == {
        "subject": frozenset(),
        "body": {"email"},
        "reply": {"phone"},
        "messages": frozenset(),
    }


def test_names_are_sought_in_all_texts_or_in_none() -> None:
    step = RedactStep(uses="redact", types=("email", "name"), names=NamesSpec(mode="gate"))
    rows = [{"subject": "late", "body": "Dear Ann, where is it", "reply": "a@b"}, {"body": "where is it"}]
    assert bits_of(rows, step) == [[2, 2, 3, 2], [0, 0, 0, 0]]


def test_names_are_found_in_messages_with_escapes_as_in_those_without() -> None:
    step = RedactStep(uses="redact", types=("name",), names=NamesSpec(mode="rules"))
    messages = [{"role": "user", "content": "It broke.\n\nViele Grüße\nŁukasz Wiśniewski"}]
    for ensure_ascii in (True, False):
        row = {"messages": json.dumps(messages, ensure_ascii=ensure_ascii)}
        [bits] = bits_of([row], step)
        redacted, found = TicketRedactor(step).redact(row, TicketRedactor(step).types_of(*bits))
        assert found.counts == {"name": 1}, redacted


PASSWORD_PIECES = (
    *credentials.NAMES, *credentials.CODES, *credentials.PAIRS,
    "Password", "PASSPHRASE", "passwd", "key", "KEY", "Bearer", "ſecret",
    "密码", " is ", "word", " ", "_", "-", ":", "=", "\n", '"', "&", "&x=", "abcd", "hunter2", "S3cr3t!", "4711",
    "code", "number", "x", "İ", "[", ";", ".",
)  # fmt: skip


@given(st.lists(st.sampled_from(PASSWORD_PIECES), max_size=14).map("".join))
@example("passcode 1234 password: abcd1")
@example("token=token=abcdef1 pw:pw:pwpw1")
def test_secrets_are_looked_for_only_where_a_word_stands_and_found_as_everywhere(text: str) -> None:
    everywhere = credentials.find_named_secrets(f"{text}\nſ")  # with this letter no word is looked for
    assert list(credentials.find_named_secrets(text)) == list(everywhere)


CODES = ("use ", "enter the ", "type ", "code ", "G-", "482 913", "4829", "123", " ", "\n", "is your ", "is my ", "is ",
         "login code", "pin", "otp", "to sign", "when you log", "to ", "-", ".")  # fmt: skip


@given(st.lists(st.sampled_from(CODES), max_size=8).map("".join))
def test_codes_before_their_words_are_found_as_without_the_cheaper_search(text: str) -> None:
    everywhere = [(match.start("code"), match.end("code")) for match in announced._CODE_FIRST.finditer(text.lower())]
    found = {(start, end) for start, end, _ in announced.find_announced(text, "secret")}
    assert found.issuperset(everywhere)
