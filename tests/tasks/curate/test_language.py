"""Languages of bodies: only the bundled model, no network, and texts without a language stay."""

import socket
from typing import Any

import pytest

from schemas.curation_steps import LanguageStep
from tasks.curate.language import MIN_LETTERS, READ_CHARACTERS, drop_by_language
from tasks.curate.language_model import load_language_model

TEXTS = {
    "en": "Hello, my parcel has not arrived yet and I would like to know where it is.",
    "de": "Guten Tag, mein Paket ist noch nicht angekommen und ich möchte wissen, wo es ist.",
    "fr": "Bonjour, mon colis n'est pas encore arrivé et je voudrais savoir où il se trouve.",
    "es": "Hola, mi paquete todavía no ha llegado y me gustaría saber dónde está ahora mismo.",
    "ja": "こんにちは。荷物がまだ届いていません。どこにあるか教えてください。",
    "ru": "Здравствуйте, моя посылка ещё не пришла, скажите, пожалуйста, где она сейчас.",
}
SHORT = "Wo ist mein Paket"  # 14 letters


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may open a connection, and the model must be found all the same."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_language_model.cache_clear()


def rows(**bodies: str | None) -> list[dict[str, object]]:
    return [{"ticket_id": name, "body": body} for name, body in bodies.items()]


def test_other_languages_are_dropped_and_named(
    make_tickets: Any, new_folder: Any, rows_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    tickets = make_tickets(rows(**TEXTS))
    result = drop_by_language(tickets=tickets, step=LanguageStep(uses="language", keep=("en", "de")), out=new_folder())
    kept = rows_of(result.tickets)
    assert {name: row["language"] for name, row in kept.items()} == {"en": "en", "de": "de"}
    assert all(0.5 < row["language_score"] <= 1 for row in kept.values())
    removed = rows_of(result.removed)
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("dropped", "other_language")}
    assert {name: row["reason"] for name, row in removed.items()} == {
        name: f"the body is in {name}, which is none of: en, de" for name in ("es", "fr", "ja", "ru")
    }
    assert result.notes == {"dropped_other_language": 4, "unknown_language": 0}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (6, 2, 4)
    assert capfd.readouterr() == ("", "")


def test_without_languages_to_keep_all_rows_stay_and_have_theirs(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    result = drop_by_language(tickets=make_tickets(rows(**TEXTS)), step=LanguageStep(uses="language"), out=new_folder())
    assert {name: row["language"] for name, row in rows_of(result.tickets).items()} == {name: name for name in TEXTS}


@pytest.mark.parametrize(
    "body",
    [
        None, "", "ok", "12345 67890 12345 67890 12345", SHORT, f"{SHORT} https://example.org/ein/sehr/langer/pfad",
        f"[EMAIL_1] {SHORT} [ORDER_NUMBER_12] [PHONE_1] [PHONE_2]", f"{SHORT} someone.with.a.name@example.org",
        "こんにちは",
    ],
)  # fmt: skip
def test_a_body_that_is_too_short_has_no_language_and_stays(
    make_tickets: Any, new_folder: Any, rows_of: Any, body: str | None
) -> None:
    step = LanguageStep(uses="language", keep=("fi",), min_score=0)
    result = drop_by_language(tickets=make_tickets(rows(a=body)), step=step, out=new_folder())
    (row,) = rows_of(result.tickets).values()
    assert (row["language"], row["language_score"]) == (None, 0.0)
    assert result.notes["unknown_language"] == 1


def test_the_least_number_of_letters_is_enough(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    body = "Wo ist denn mein Paket?!"
    assert sum(character.isalpha() for character in body) == MIN_LETTERS - 2
    bodies = rows(under=body, enough=f"{body} ja", late=f"{'1 ' * 40}{body} ja")
    result = drop_by_language(tickets=make_tickets(bodies), step=LanguageStep(uses="language"), out=new_folder())
    assert {name: row["language"] for name, row in rows_of(result.tickets).items()} == {
        "under": None,
        "enough": "de",
        "late": "de",
    }


@pytest.mark.parametrize(
    "written",
    [
        "{}", "[EMAIL_1] [URL_1] {} [NAME_1]", "see https://www.example.com/this/is/an/english/sentence/in/a/path {}",
        "www.this-is-the-english-address.com {}", "{{{{customer name and first name}}}} {}",
    ],
)  # fmt: skip
def test_urls_and_placeholders_have_no_language(make_tickets: Any, new_folder: Any, rows_of: Any, written: str) -> None:
    body = written.format(TEXTS["de"])
    result = drop_by_language(tickets=make_tickets(rows(a=body)), step=LanguageStep(uses="language"), out=new_folder())
    assert rows_of(result.tickets)["a"]["language"] == "de"


def test_line_breaks_and_capitals_do_not_matter(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    bodies = rows(
        lines=TEXTS["de"].replace(" ", "\n"), capitals=TEXTS["fr"].upper(), tabs=TEXTS["es"].replace(" ", "\t")
    )
    result = drop_by_language(tickets=make_tickets(bodies), step=LanguageStep(uses="language"), out=new_folder())
    assert {name: row["language"] for name, row in rows_of(result.tickets).items()} == {
        "lines": "de",
        "capitals": "fr",
        "tabs": "es",
    }


def test_an_unsure_row_stays(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets(rows(mixed="Guten Tag hello bonjour buenos dias ciao parcel Paket colis pacco"))
    dropped = [
        drop_by_language(
            tickets=tickets, step=LanguageStep(uses="language", keep=("fi",), min_score=score), out=new_folder()
        ).rows.n_dropped
        for score in (0.0, 1.0)
    ]
    assert dropped == [1, 0]


def test_a_long_text_is_read_from_its_beginning(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    body = (TEXTS["fr"] + " ") * 3 + (TEXTS["en"] + " ") * 50
    assert len(TEXTS["fr"]) * 3 > READ_CHARACTERS
    result = drop_by_language(tickets=make_tickets(rows(a=body)), step=LanguageStep(uses="language"), out=new_folder())
    assert rows_of(result.tickets)["a"]["language"] == "fr"
