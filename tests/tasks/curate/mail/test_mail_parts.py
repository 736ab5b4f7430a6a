"""Greetings, signatures and quotes are recognised in four languages, and a sentence is never taken for one."""

import email
import re
import time
from collections.abc import Iterator
from email import policy
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.curation_steps import MailPart
from tasks.curate.mail.mail_parts import greeting_length, mark_parts, strip_column, strip_lines, strip_parts

ALL: tuple[MailPart, ...] = ("greeting", "signature", "quote")


def labels(text: str) -> str:
    """One letter per line: g, s, q, or `.` for text."""
    return "".join((part or ".")[0] for part in mark_parts(text.split("\n")).parts)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hi Ann,\nit broke.\n\nBest regards\nBob Lee", "it broke."),
        ("Guten Tag Herr Dr. Weber,\nsie ist kaputt.\n\nMit freundlichen Grüßen\nAnna Müller", "sie ist kaputt."),
        ("Sehr geehrte Damen und Herren,\nkaputt!\nMfG\nA. Müller\nTel.: 030 1234567", "kaputt!"),
        ("Bonjour,\nmon colis est perdu.\nCordialement,\nLéa Petit", "mon colis est perdu."),
        ("Madame, Monsieur,\nmon colis est perdu.\nMerci d'avance", "mon colis est perdu."),
        ("Estimados señores:\nno funciona.\nUn saludo,\nJosé", "no funciona."),
        ("Hola María, no funciona.\n\nMuchas gracias", "no funciona."),
        ("It broke.\nSent from my iPhone", "It broke."),
        ("Sie ist kaputt.\n\nVon meinem iPhone gesendet", "Sie ist kaputt."),
        ("Il est cassé.\n\nEnvoyé de mon iPhone", "Il est cassé."),
        ("It broke.\n-- \nBob\nHead of Lamps", "It broke."),
        ("It broke.\n\nBob Lee\nNorthbeam Ltd\nbob@example.org\n+44 20 7946 0185", "It broke."),
        ("It broke.\n\n[NAME_1]\n[EMAIL_1]\n[PHONE_1]", "It broke."),
        ("It broke.\nThanks and best regards from Berlin,\n\nBob", "It broke."),
        ("Hello,\nit broke.\nMalik", "it broke."),
    ],
)
def test_greetings_and_signatures_are_removed_in_four_languages(text: str, left: str) -> None:
    assert strip_parts(text, ALL) == left


@pytest.mark.parametrize(
    "quote",
    [
        "On 3 May 2024, at 10:12, Bob <bob@example.org> wrote:\n\n> Is it on?\n> Try it.",
        "On Tue, May 3, 2024 at 10:12 AM, Bob Lee\n<bob@example.org>\nwrote:\n> Is it on?",
        "On 3 May 2024 at 10:12 Bob wrote:\nIs it on?\nTry it.",
        "Am 03.05.2024 um 10:12 schrieb Bob <bob@example.org>:\nIst sie an?",
        "Le 3 mai 2024 à 10:12, Bob <bob@example.org> a écrit :\n> Marche-t-il ?",
        "El vie, 3 may 2024 a las 10:12, Bob (<bob@example.org>) escribió:\n\n¿Funciona?",
        "02.04.2012 14:20 пользователь Bob <\nbob@example.org> написал:\n> Hi",
        "-----Original Message-----\nIs it on?",
        "----- Ursprüngliche Nachricht -----\nIst sie an?",
        "______________\nFrom: Bob <bob@example.org>\nSent: 3 May\nTo: Ann\nSubject: Lamp\n\nIs it on?",
        "Von: Bob\nGesendet: 3. Mai\nAn: Ann\nBetreff: Lampe\n\nIst sie an?",
        "*De :* Bob\n*Envoyé :* 3 mai\n*À :* Ann\n*Objet :* Lampe\n\nMarche-t-elle ?",
        "De: Bob\nEnviado el: 3 de mayo\nPara: Ann\nAsunto: Lampara\n\n¿Funciona?",
        "##- Please type your reply above this line -##\nYour request was received.",
        "> Is it on?\n  > Try it.",
    ],
)
def test_a_line_of_a_mail_program_above_a_quote_removes_all_below_it(quote: str) -> None:
    assert strip_parts(f"It broke.\n\n{quote}", ("quote",)) == "It broke."
    assert set(labels(f"It broke.\n\n{quote}")[2:]) <= {"q", "."}


@pytest.mark.parametrize("above", [
    "On 3 May at 10:12 Bob wrote:",
    "-----Original Message-----",
    "-----Original Message-----\nFrom: Bob\nSent: 3 May\nTo: Ann\nSubject: Lamp\n",
    "From: Bob <bob@example.org>\nSent: 3 May\nTo: Ann\nSubject: Lamp\n",
])  # fmt: skip
@pytest.mark.parametrize("mark", [">", "> >", "BL>", "|"])
def test_answers_between_and_below_marked_quotes_stay(above: str, mark: str) -> None:
    text = f"{above}\n{mark} Is it on?\nYes.\n{mark} Is it warm?\n{mark} Or hot?\nNo.\n\nBest,\nAnn"
    assert labels(text).endswith("q.qq..ss")
    assert strip_parts(text, ALL) == "Yes.\nNo."


def test_an_answer_above_the_first_marked_line_stays() -> None:
    text = "On 3 May at 10:12 Bob <bob@example.org> wrote:\nYes, all of it.\n> Is it on?\nEven now."
    assert strip_parts(text, ALL) == "Yes, all of it.\nEven now."


HEADERS = "From: Bob <b@example.org>\nSent: 3 May\nTo: Ann\nSubject: x\n\n"


@pytest.mark.parametrize("above", [
    "---------- Forwarded message ---------\n",
    "------- Forwarded by Ann Lee/HOU/ECT on 09/26/2000 07:26 AM -------\n",
    "---- Weitergeleitet von Ann ----\n",
    "Begin forwarded message:\n\n> ",
    "FYI\n\n-----Original Message-----\n",
    "Hi Ann,\n\nplease see below.\n\nBest\nBob\n-----Original Message-----\n",
    "",
])  # fmt: skip
def test_a_forwarded_message_is_compared_by_what_was_forwarded(above: str) -> None:
    kept = [strip_parts(f"{above}{HEADERS}{text}", ALL) for text in ("It broke.", "It is lost.")]
    assert kept[0].endswith("It broke.")
    assert kept[1].endswith("It is lost.")


@pytest.mark.parametrize(
    "text",
    [
        "Hi, my parcel is lost. Thanks, Ann",
        "Hello my parcel is lost",
        "Dear diary keeps falling off the shelf, help",
        "Highlights are gone, the page is white",
        "On Monday I wrote:\nplease cancel it.\nNothing happened.",
        "I booked this:\nFrom: London\nTo: Paris\nDate: 3 May\nI need another seat.",
        "Thank you for nothing, it broke again.",
        "It broke.\nThanks for your help with the first one, the second broke as well.",
        "Best would be a new lamp, I think",
        "Browser:\n- Chrome\n- Safari",
        "It says\n-----\nError 12\nClick save",
        "It broke.\n\nSent from my desk, is much easier than from my mobile phone.",
        "It broke.\nRegards,\nPS: please also send the invoice of May to my new address",
        "Thanks.",
        "> Is it on?",
        "Hello",
        "",
        " \n ",
    ],
)
def test_sentences_and_messages_of_nothing_else_stay_as_they_are(text: str) -> None:
    left = strip_parts(text, ALL)
    assert left == (text if not text.startswith("Hi, ") else text[4:])


def test_only_the_given_parts_are_removed() -> None:
    text = "Hi Ann,\nit broke.\nBest, Bob\n> on?"
    assert strip_parts(text, ()) == text
    assert strip_parts(text, ("greeting",)) == "it broke.\nBest, Bob\n> on?"
    assert strip_parts(text, ("signature",)) == "Hi Ann,\nit broke.\n> on?"
    assert strip_parts(text, ("quote",)) == "Hi Ann,\nit broke.\nBest, Bob"


@pytest.mark.parametrize(
    ("line", "n"),
    [
        ("Hi", 2),
        ("Dear Mr. Smith, it broke", 15),
        ("Good morning dear team! It broke", 23),
        ("Hi I'm Ann, it broke", 0),
        ("Hello please help, it broke", 0),
        ("  Hey there, it broke", 12),
    ],
)
def test_a_greeting_ends_at_its_comma_and_has_only_names(line: str, n: int) -> None:
    assert greeting_length(line) == n


@pytest.mark.parametrize(
    "text",
    [
        "> a\n" * 50_000,
        "x" * 500_000,
        "On " * 150_000 + ":",
        "On 1:00 wrote\n" * 50_000,
        "From: a\n" * 50_000,
        "Thanks,\n" * 50_000,
        "a:\n\n" * 50_000,
        "-" * 250_000 + "\n" + " " * 250_000 + "x",
        "\n" * 250_000 + "Hi " + "A " * 100_000 + ",",
        "Best " * 100_000,
        "1 " * 150_000 + "@",
    ],
    ids=lambda text: repr(text[:8]),
)
def test_the_time_for_hostile_text_is_linear_in_its_length(text: str) -> None:
    start = time.process_time()
    strip_parts(text, ALL)
    strip_column(pa.array([text]), ALL)
    assert time.process_time() - start < 2.5


FRAGMENTS = st.sampled_from(
    [
        "Hi Ann,", "hello", "Dear [NAME_1], it broke", "Ann,", "It broke.", "x" * 90, "Best regards", "Thanks, Ann",
        "MfG", "-- ", "--", "-Ann Lee", "------", "Ann Lee", "Ann", "a@b.org", "Tel: 030 12345678", "via mobile",
        "Sent from my iPhone", "On 3 May at 10:12 Bob wrote:", "On 3 May 2024 Bob:", "<b@c.org> wrote:", "> a", " >",
        "From: a@b.org", "To: b", "Subject: c", "De\u00a0:", "-----Original Message-----", "Forwarded message", "", " ",
        "\u00a0", "\u2003Thanks", "\u2003Ann", "H\u0130 Ann,", "\u017fincerely", "\u212aind regards",
        "reply above this line", "\x1cAnn",
        "__ Original Me\u017f\u017fage", "URSPR\u00dcNGLICHE NACHRICHT:", "Write above this LINE", "Ann\x85Lee",
        "\u0416\u0430\u043d",
        "C \u0443\u0432\u0430\u0436\u0435\u043d\u0438\u0435\u043c", "\u01c5an", " " * 400 + "> a", "*Ann*", "\ufb01ne.",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.none(), st.text(max_size=60), st.lists(FRAGMENTS | st.text(max_size=12), max_size=9).map("\n".join)
)


@example(texts=["H\u0130 Ann, it broke", "h\u0131 Ann, it broke"], parts=("greeting",), cut=0)
@example(texts=[":7\n\n- J"], parts=ALL, cut=0)
@given(
    texts=st.lists(TEXTS, max_size=6),
    parts=st.lists(st.sampled_from(ALL), unique=True, max_size=3).map(tuple),
    cut=st.integers(0, 6),
)
def test_a_column_loses_what_each_of_its_texts_loses(
    texts: list[str | None], parts: tuple[MailPart, ...], cut: int
) -> None:
    stripped = strip_column(pa.array(texts, pa.large_string()).slice(cut), parts)
    assert stripped.type == pa.large_string()
    assert stripped.to_pylist() == [None if text is None else strip_lines(text, parts) for text in texts[cut:]]
    assert stripped.to_pylist() == [None if text is None else strip_parts(text, parts) for text in texts[cut:]]


@given(st.lists(FRAGMENTS | st.text(max_size=20), max_size=12).map("\n".join))
def test_what_is_left_is_made_of_the_text_and_never_nothing(text: str) -> None:
    left = strip_parts(text, ALL)
    assert left in text or all(line in text for line in left.split("\n"))
    assert bool(re.search(r"[^\W_]", left)) == bool(re.search(r"[^\W_]", text))


def fixtures(folder: Path) -> Iterator[tuple[list[str], list[MailPart | None]]]:
    """Messages of real mail programs with what each line is, after the expected texts that come with them."""
    signatures = {"iphone": 1, "sparrow": 3, "reply-quotations-share-block": 1}
    for path in [*sorted((folder / "standard_replies").glob("*.eml")), folder / "reply-quotations-share-block.eml"]:
        body = email.message_from_bytes(path.read_bytes(), policy=policy.default).get_body(("plain",))
        assert body is not None
        lines = body.get_content().splitlines()  # type: ignore[attr-defined]
        side = path.with_name(f"{path.stem}_reply_text")
        own = side.read_text() if side.exists() else "Hello"
        if path.stem == "reply-quotations-share-block":
            own = "\n".join(lines[: next(at for at, line in enumerate(lines) if line.startswith("--- On"))])
        wanted = [line.strip() for line in own.splitlines() if line.strip()]
        n_text = len(wanted) - signatures.get(path.stem, 0)
        marks: list[MailPart | None] = []
        n_own = 0
        for line in lines:
            if line.strip() and n_own < len(wanted) and line.strip() == wanted[n_own]:
                marks.append(None if n_own < n_text else "signature")
                n_own += 1
            else:
                marks.append("quote" if line.strip() else None)
        yield lines, marks
    for path in sorted((folder / "signature" / "emails" / "stripped").glob("*_body")):
        lines = path.read_text().replace("#sig#", "").splitlines()
        signature = path.with_name(path.name.replace("_body", "_signature")).read_text().splitlines()
        n_left = sum(bool(line.strip()) for line in lines) - sum(bool(line.strip()) for line in signature)
        places = [at for at, line in enumerate(lines) if line.strip()][n_left:]
        yield lines, ["signature" if at in places else None for at in range(len(lines))]
    lines = (folder / "signature" / "emails" / "P" / "102682_R_S").read_text().splitlines()[4:]
    kinds: dict[str, MailPart] = {"#repl": "quote", "#sig#": "signature"}
    yield [re.sub("^#(reply|sig)# ?", "", line) for line in lines], [kinds.get(line[:5]) for line in lines]


def test_real_messages_are_cut_where_their_fixtures_say(shared_data: Path) -> None:
    counts = dict.fromkeys(
        [(part, kind) for part in ("quote", "signature") for kind in ("right", "wrong", "missed")], 0
    )
    n_messages = 0
    for lines, wanted in fixtures(shared_data / "talon_email_fixtures" / "tests" / "fixtures"):
        n_messages += 1
        for line, got, want in zip(lines, mark_parts(lines).parts, wanted, strict=True):
            if line.strip():
                for part in ("quote", "signature"):
                    counts[part, "right"] += got == want == part
                    counts[part, "wrong"] += got == part != want
                    counts[part, "missed"] += want == part != got
    assert n_messages == 20
    assert counts["quote", "right"] >= 75
    assert counts["signature", "right"] >= 29
    for part, limit in (("quote", 0.95), ("signature", 0.9)):
        right = counts[part, "right"]
        assert right / (right + counts[part, "wrong"]) >= limit
        assert right / (right + counts[part, "missed"]) >= limit


def test_questions_to_a_bank_and_a_shop_lose_their_greeting_alone(
    banking77: list[dict[str, object]], bitext: list[dict[str, object]]
) -> None:
    n_changed = 0
    for row in [*banking77[::3], *bitext[::3]]:
        text = str(row["body"])
        left = strip_parts(text, ALL)
        n_changed += left != text
        assert text.endswith(left)
        assert len(text) - len(left) < 20
    assert 33 < n_changed < 67


@pytest.mark.parametrize(
    "signature",
    [
        "Best regards,\nAnn Weber.\nHead of Support, Northbeam Ltd.",
        "Kind regards\nAnn Weber\nTel. +49 30 1234567, ann@example.org, Northbeam GmbH.",
    ],
)
def test_a_signature_may_end_in_a_full_stop(signature: str) -> None:
    assert strip_parts(f"The parcel is lost.\n\n{signature}", ("signature",)) == "The parcel is lost."


def test_a_sentence_after_thanks_is_no_signature_though_it_names_things() -> None:
    text = "Thanks.\nMy Samsung Galaxy broke down in Berlin."
    assert strip_parts(text, ("signature",)) == text


@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_a_list_marked_like_a_quote_stays(gap: str) -> None:
    text = f"I have tried these steps:{gap}> restart the router\n> reset the password\nNothing helped."
    assert strip_parts(text, ("quote",)) == text


@pytest.mark.parametrize(
    "above", ["Ann wrote:", "Ann Weber:", "On 3 May at 10:12 Ann wrote:", "I do not agree.", "Yes"]
)
def test_marked_lines_below_anything_else_are_a_quote(above: str) -> None:
    left = strip_parts(f"{above}\n> was it delivered?\nYes, it was.", ("quote",))
    assert "delivered" not in left
    assert "Yes, it was." in left
