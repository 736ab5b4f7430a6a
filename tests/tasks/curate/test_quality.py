"""Scores equal to plain Python's, thresholds in order, nothing lost, the same in any order of rows.

The plain scores below are slow, short, and share no line with the compiled kernel.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import Perplexities
from schemas.curation_steps import QualityStep
from schemas.tables import SCORES_OF
from tasks.curate.quality import measure, score_quality
from tasks.curate.rows import TICKETS_ARROW

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]*_[0-9]+\]")
LEFTOVER = re.compile(
    r"\{\{ {0,8}[A-Za-z_][A-Za-z0-9_. -]{0,60}\}\}|<< {0,8}[A-Za-z_][A-Za-z0-9_. -]{0,60}>>"
    r"|\{[A-Za-z_][A-Za-z0-9_.]{0,60}\}|%[A-Z][A-Z0-9_]{1,60}%|\[[A-Z][A-Z0-9_ ]{1,60}\]"
)
URL = re.compile(r"(?i:https?://|www\.)[^\x00-\x20\"()<>\[\]{}]*", re.ASCII)
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


def scan(text: str) -> dict[str, object]:
    """Words of a text (a list), and counts of its characters."""
    words: list[str] = []
    counts = {"upper": 0, "cased": 0, "url": 0, "symbols": 0, "characters": len(text), "leftovers": 0}
    word = ""
    at = 0
    while at < len(text):
        placeholder, leftover = PLACEHOLDER.match(text, at), LEFTOVER.match(text, at)
        url = None if word else URL.match(text, at)
        whole = placeholder or leftover or url
        if whole:
            words += [word, whole.group()]
            word = ""
            at = whole.end()
            counts["leftovers"] += placeholder is None and leftover is not None
            counts["url"] += len(whole.group()) if url or re.match(r"\[URL_[0-9]+\]", whole.group()) else 0
            continue
        character = text[at]
        at += 1
        # Above the listed code points it is the plane that counts, whatever this Python's Unicode knows.
        plane = {2: "Lo", 3: "Lo"}.get(ord(character) >> 16, "Co")
        category = unicodedata.category(character) if ord(character) < 0x20000 else plane
        category = "Cf" if 0xE0000 <= ord(character) < 0xE1000 else category
        counts["upper"] += category in ("Lu", "Lt")
        counts["cased"] += category in ("Lu", "Lt", "Ll")
        if category == "Cf":
            continue
        if category[0] in "LM" and UNSPACED.match(character):
            words += [word, character]
            word = ""
        elif category[0] in "LMN":
            word += character.lower() if len(character.lower()) == 1 else character
        else:
            words.append(word)
            word = ""
            counts["symbols"] += category[0] != "Z" and category != "Cc"
    return {"words": [found for found in [*words, word] if found], **counts}


def runs(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + 3]) for at in range(len(words) - 2)]


def scores(body: str | None, reply: str | None) -> dict[str, object]:
    """What `measure` gives for one row, but whether the reply is a stub."""
    one, two = scan(body or ""), scan(reply or "")
    words, said = one["words"], two["words"]
    assert isinstance(words, list)
    assert isinstance(said, list)
    repeated: set[int] = set()
    for at, run in enumerate(runs(words)):
        if run in runs(words)[:at]:
            repeated |= {at, at + 1, at + 2}
    copied = {at + step for at, run in enumerate(runs(said)) if run in set(runs(words)) for step in range(3)}
    return {
        "n_words": len(words),
        "repetition": len(repeated) / max(len(words), 1),
        "caps_share": one["upper"] / max(one["cased"], 1),  # type: ignore[operator, call-overload]
        "url_share": one["url"] / max(one["characters"], 1),  # type: ignore[operator, call-overload]
        "symbol_share": one["symbols"] / max(one["characters"], 1),  # type: ignore[operator, call-overload]
        "template_leftovers": one["leftovers"] + two["leftovers"],  # type: ignore[operator]
        "reply_words": len(said),
        "reply_overlap": len(copied) / max(len(said), 1),
    }


def measured(rows: list[tuple[str | None, str | None]]) -> list[dict[str, object]]:
    columns = {"body": [body for body, _ in rows], "reply": [reply for _, reply in rows]}
    found = measure(pa.table(columns, schema=pa.schema([TICKETS_ARROW.field(name) for name in columns])))
    del found["reply_is_stub"]
    return [
        dict(zip(found, values, strict=True)) for values in zip(*(v.to_pylist() for v in found.values()), strict=True)
    ]


HARD = [
    (None, None),
    ("", ""),
    ("  \n\t ", None),
    ("one", "one"),
    ("a b c a b c", "x a b c y"),
    ("a a a a a", "a a a"),
    ("HELLO World ǅ ß İstanbul", "SHOUT"),
    ("Ünïcode naïve e\u0301 Ελλάς ΕΛΛΆΣ", "ελλάς"),
    ("日本語のテスト 日本語のテスト", "日本語の"),
    ("สวัสดีครับ", None),
    ("한국어 문장 입니다 한국어 문장 입니다", None),
    ("\U00020000\U00020001 \U0001f600\U0001f468\u200d\U0001f4bb", "\ufeffx"),
    ("so\u00adft hy\u00adphen soft hyphen", None),
    ("see https://a.b/c?d=(e) and WWW.X.ORG, not awww.x or xhttp://y", "http:// https"),
    ("[URL_1] [EMAIL_12] [PHONE_1 [X_1] [_1] [A__3] [URL_] [URLS_1] [EMAIL_1]x", "[NAME] [FIRST NAME] [Ab] [A] [A1_]"),
    (
        "{{name}} {{ customer.first_name }} {{}} {{{x}}} {name} {a b} { x} {1} {x-y} {{x-y z}}",
        "%NAME% %name% %A% %A1_B% 50% OFF 20%",
    ),
    ("<<name>> << your name >> <name> <<>> <<a><b>>", "{" * 50 + "a" + "}" * 50),
    ("{{" + "x" * 61 + "}}", "{{" + "x" * 62 + "}}"),
    ("{{" + " " * 8 + "x}}", "{{" + " " * 9 + "x}}"),
    ("[" + "A" * 61 + "]" + "[" + "A" * 62 + "]", "%" + "A" * 61 + "%%" + "A" * 62 + "%"),
    ("{{www.x.de}} www.{{x}} http://x[URL_1]", "a" * 5000),
    ("don't stop_me now 12,50 €", "!!!???"),
    ("h", "w"),
    ("ht", "www"),
    ("http:/", "www."),
    ("[", "{{"),
    ("%", "<<"),
    ("<", "{"),
    ("https:/x https://", "hTTps://x\u00a0y z"),
    ("x\x00y\x1fz\x7f", "\u2028\u3000"),
]


def test_hard_texts_score_as_in_plain_python() -> None:
    for row, found in zip(HARD, measured(HARD), strict=True):
        assert found == scores(*row), row


PIECES = st.sampled_from(
    [
        *"aBc  \n.{}%[]A_1é日本ก😀(", "{{", "}}", "<<", ">>", "URL", "[URL_1]", "www.", "http", "s", "://",
        "\u200d", "\u0301",
    ]
)  # fmt: skip
TEXTS = st.none() | st.text(max_size=30) | st.lists(PIECES, max_size=40).map("".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
def test_any_text_scores_as_in_plain_python(rows: list[tuple[str | None, str | None]]) -> None:
    assert measured(rows) == [scores(*row) for row in rows]


def test_real_questions_and_answers_score_as_in_plain_python(bitext: list[dict[str, Any]]) -> None:
    rows = [(row["body"], row["reply"]) for row in bitext[:400]] + [(row["reply"], row["body"]) for row in bitext[:400]]
    found = measured(rows)
    assert found == [scores(*row) for row in rows]
    assert sum(int(row["template_leftovers"] > 0) for row in found) > 100  # type: ignore[operator]


def test_slices_of_a_table_score_as_the_whole(bitext: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in bitext[:100]] for name in ("body", "reply")}
    table = pa.table(columns, schema=pa.schema([TICKETS_ARROW.field(name) for name in columns]))
    parts = pa.concat_tables([table.slice(start, 7) for start in range(0, 100, 7)])
    for name, values in measure(table).items():
        assert values.equals(measure(parts)[name]), name
        assert values.slice(30, 20).equals(measure(table.slice(30, 20))[name]), name


@pytest.mark.parametrize(
    ("reply", "stub"),
    [
        (None, True), ("", True), (" \n", True), ("...", True), ("👍", True), ("Closed.", True),
        ("CLOSING TICKET", True),
        ("Duplicate of #4711", True), ("closed as duplicate of ticket NB-1042", True), ("dup", True),
        ("see above", True),
        ("Please see my previous reply.", True), ("Merged into case 12", True), ("N/A", True), ("won't fix", True),
        ("Thanks!", True), ("No reply needed", True), ("Erledigt.", True), ("Case closed", True), ("done", True),
        ("Your parcel arrives on Friday.", False), ("We closed your account today.", False), ("Yes.", False),
        ("Press the red button.", False), ("See above, then restart the router and tell me.", False), ("No.", False),
        ("closed " * 9, False), ("Your ticket is a duplicate of another one.", False), ("42", False),
    ],
)  # fmt: skip
def test_a_stub_reply_answers_nothing(reply: str | None, stub: bool) -> None:
    table = pa.table({"body": ["x"], "reply": pa.array([reply], pa.string())})
    assert measure(table)["reply_is_stub"].to_pylist() == [stub]


ROWS = [
    {"ticket_id": "fine", "body": "My parcel has not come yet.", "reply": "It will be there on Friday."},
    {"ticket_id": "repeats", "body": "buy now please " * 5, "reply": "No, thank you, we do not."},
    {"ticket_id": "shouts", "body": "WHERE IS MY PARCEL", "reply": "It will be there on Friday."},
    {"ticket_id": "links", "body": "look https://example.org/a/very/long/path [URL_1]", "reply": "What is it about?"},
    {"ticket_id": "symbols", "body": "?!?!?! ***** no", "reply": "What is it about, please?"},
    {"ticket_id": "template", "body": "Where is it?", "reply": "Dear {{customer name}}, it is on its way."},
    {"ticket_id": "parrot", "body": "my parcel has not come yet", "reply": "My parcel has not come yet!"},
    {"ticket_id": "stub", "body": "Where is it?", "reply": "closed"},
    {"ticket_id": "odd", "body": "xq zv kj", "reply": "What do you want to tell us?"},
    {"ticket_id": "empty", "body": None, "reply": "What do you want to tell us?"},
]
ALL = QualityStep(
    uses="quality", max_repetition=0.5, max_caps_share=0.8, max_url_share=0.5, max_symbol_share=0.6,
    max_template_leftovers=0, max_reply_overlap=0.7, drop_stub_replies=True, perplexity=True, max_perplexity=100,
)  # fmt: skip


@pytest.fixture
def perplexities(tmp_path: Path) -> Perplexities:
    table = pa.table({"ticket_id": ["fine", "gone", "odd", "stub"], "perplexity": [20.0, 1e6, 5e3, None]})
    pq.write_table(table, tmp_path / "perplexities.parquet")
    return Perplexities(root=tmp_path, n_tickets=4, n_tokens=9)


def test_each_threshold_drops_under_its_code(
    make_tickets: Any, new_folder: Any, rows_of: Any, perplexities: Perplexities
) -> None:
    result = score_quality(tickets=make_tickets(ROWS), step=ALL, out=new_folder(), perplexities=perplexities)
    assert sorted(rows_of(result.tickets)) == ["empty", "fine"]
    removed = rows_of(result.removed)
    assert {name: row["code"] for name, row in removed.items()} == {
        "repeats": "repetition",
        "shouts": "caps",
        "links": "urls",
        "symbols": "symbols",
        "template": "template_leftovers",
        "parrot": "reply_overlap",
        "stub": "stub_reply",
        "odd": "perplexity",
    }
    assert {row["outcome"] for row in removed.values()} == {"dropped"}
    assert removed["repeats"]["reason"] == "repetition is 0.8, above `max_repetition: 0.5`"
    assert removed["template"]["reason"] == "template_leftovers is 1, above `max_template_leftovers: 0`"
    assert removed["stub"]["reason"] == "the reply is a stub: it answers nothing"
    assert removed["odd"]["reason"] == "perplexity is 5000, above `max_perplexity: 100.0`"
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (10, 2, 8)
    assert result.notes["dropped_perplexity"] == 1
    kept = rows_of(result.tickets)
    assert kept["fine"]["perplexity"] == 20.0
    assert kept["empty"]["perplexity"] is None


def test_without_thresholds_every_row_stays_and_has_its_scores(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    result = score_quality(tickets=make_tickets(ROWS), step=QualityStep(uses="quality"), out=new_folder())
    assert (result.rows.n_out, result.notes) == (10, {})
    for row in rows_of(result.tickets).values():
        assert row["perplexity"] is None
        assert [name for name in SCORES_OF["quality"] if row[name] is None] == ["perplexity"]
        assert row["repetition"] == scores(row["body"], row["reply"])["repetition"]


def test_missing_perplexities_are_an_error(make_tickets: Any, new_folder: Any) -> None:
    with pytest.raises(ValueError, match="no perplexities are given"):
        score_quality(tickets=make_tickets(ROWS), step=ALL, out=new_folder())
