"""The curation card counts what the files say, escapes what tickets say, and shows no text of any."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import CheckResults, CurationCard, RowCounts, Splits, TicketTable
from schemas.curation_card import CardNumbers, Distribution, ValueCounts
from schemas.data_checks import CheckResult
from schemas.errors import DataError
from schemas.training import DrawSpec
from tasks.curate.card import build_card
from tasks.curate.cards.card_drift import shift_of, stability_index
from tasks.curate.cards.card_page import whole_page
from tasks.curate.rows import ticket_table, write_removed, write_tickets

MakeSplits = Callable[..., Splits]
MakeStage = Callable[..., TicketTable]
Row = Mapping[str, object]
NewFolder = Callable[[], Path]
SECRET = "xylophone quartz zebra"


@pytest.fixture
def make_stage(new_folder: NewFolder) -> MakeStage:
    def make(n_in: int, removed: Iterable[Row] = (), notes: dict[str, int] | None = None) -> TicketTable:
        out = new_folder()
        listed = [{"reason": "because", **row} for row in removed]
        write_removed(listed, out)
        counts = Counter(f"n_{row['outcome']}" for row in listed)
        return TicketTable(root=out, rows=RowCounts(n_in=n_in, n_out=n_in - len(listed), **counts), notes=notes or {})

    return make


@pytest.fixture
def make_card(new_folder: NewFolder, make_stage: MakeStage, make_splits: MakeSplits) -> Callable[..., CurationCard]:
    """A card over stages given as removed rows, a split that drops nothing, and the rows of the three parts."""

    def make(
        *,
        train: list[Row],
        test: list[Row],
        validation: list[Row] = [],  # noqa: B006
        removed: Mapping[str, list[Row]] | None = None,
        notes: dict[str, int] | None = None,
        checks: CheckResults | None = None,
        previous: CurationCard | None = None,
        max_examples: int | None = None,
    ) -> CurationCard:
        steps = {"extract": [], **(removed or {})}
        n = len(train) + len(test) + len(validation) + sum(map(len, steps.values()))
        stages = []
        for name, rows in steps.items():
            stages.append(make_stage(n, rows, notes if name == "redact" else None))
            n -= len(rows)
        clean = make_splits(train=train, test=test, validation=validation)
        return build_card(
            stages=tuple(stages),
            stage_names=tuple(steps),
            split=make_splits(train=train, test=test, validation=validation),
            clean=clean,
            checks=checks,
            previous=previous,
            draw=DrawSpec(label="category"),
            max_examples=max_examples,
            out=new_folder(),
        )

    return make


def numbers_of(card: CurationCard) -> CardNumbers:
    return CardNumbers.model_validate_json(card.numbers.read_bytes())


def row(name: str, **columns: object) -> Row:
    return {
        "ticket_id": name,
        "customer_id": f"c-{name}",
        "created_at": datetime(2026, 6, 1, 9),
        "body": f"{SECRET} {name}",
        **columns,
    }


def shares(distribution: Distribution) -> dict[str, tuple[int, int, int]]:
    return {v.value: (v.train, v.validation, v.test) for v in distribution.values if v.n}


def test_the_balance_of_what_training_takes_is_shown_and_unseen_labels_are_named(
    make_card: Callable[..., CurationCard], caplog: pytest.LogCaptureFixture
) -> None:
    """With times the newest are taken; here they all have one label, and the held-out tickets have others."""
    personal = "ann.smith@example.org"
    train = [
        row(f"t{n}", category="billing" if n < 6 else "delivery", created_at=datetime(2026, 6, 1 + n)) for n in range(9)
    ]
    test = [row("x", category="billing"), row("y", category="returns"), row("z", category=personal)]
    card = make_card(train=train, test=test, max_examples=3)
    balance = numbers_of(card).encoded
    assert balance is not None
    assert [(c.value, c.train, c.used, c.test) for c in balance.values] == [
        ("billing", 6, 0, 1), ("delivery", 3, 3, 0), ("returns", 0, 0, 1)
    ]  # fmt: skip
    assert "the newest, from 2026-06-07 on. 6 are left out" in balance.sentence
    message = "3 labels of 3 tickets in validation and test: none is in what is encoded for training"
    assert f"{message} (category: billing, returns and others)" in caplog.text
    page = (card.root / "card.html").read_text()
    assert message in page
    assert personal not in page + caplog.text
    undated = [{**each, "created_at": None} for each in train]
    drawn = numbers_of(make_card(train=undated, test=test[:1], max_examples=3)).encoded
    assert drawn is not None
    assert {c.value: c.used for c in drawn.values} == {"billing": 2, "delivery": 1}
    assert "drawn by a seeded hash, with a share of each category" in drawn.sentence
    assert numbers_of(make_card(train=train, test=test[:1])).encoded is not None


def test_replies_from_a_list_and_rare_labels_are_warned_of(
    make_card: Callable[..., CurationCard], caplog: pytest.LogCaptureFixture
) -> None:
    train = [row(f"t{n}", category="rare" if n < 3 else "usual", reply=f"Text {n % 2}.") for n in range(60)]
    card = make_card(train=train, test=[row("x", category="usual", reply="Text 1.")])
    for message in ("2 different replies to 61 tickets", "1 label has fewer than 5 encoded tickets"):
        assert message in caplog.text
        assert message in (card.root / "card.html").read_text()


def test_no_value_that_redaction_would_replace_is_published(
    make_card: Callable[..., CurationCard], caplog: pytest.LogCaptureFixture
) -> None:
    personal = "ann.smith@example.org"
    card = make_card(
        train=[
            row("a", customer_id=personal, category=personal, product="4111 1111 1111 1111"),
            row("b", customer_id=personal, category=f"case of {personal}", channel="+44 20 7946 0958"),
            row(personal, category="billing", priority="DE89 3704 0044 0532 0130 00"),
        ],
        test=[row("d", category="billing")],
        removed={
            "dedup": [{"outcome": "merged", "cluster_id": personal, "kept_id": personal, "code": "near_duplicate"}]
        },
    )
    found = numbers_of(card)
    assert shares(found.distributions["category"]) == {"billing": (1, 0, 1)}
    assert found.distributions["category"].other.n == 2
    assert found.personal_ids == {"ticket_id": 1, "customer_id": 3}
    assert found.duplicates.largest[0].kept_id == "[EMAIL_1]"
    for file in ("card.json", "card.html"):
        text = (card.root / file).read_text()
        assert not [value for value in (personal, "4111", "7946", "3704") if value in text]
    assert "customer_id is an e-mail address or the like in 3 tickets: add `pseudonymise" in caplog.text


def test_labels_that_were_or_may_be_personal_data_are_counted_before_anything_is_published(
    make_card: Callable[..., CurationCard], caplog: pytest.LogCaptureFixture
) -> None:
    def of_one(name: str, n: int, **columns: object) -> list[Row]:
        return [row(f"{name}{n}", **({"customer_id": "c-one"} | columns)) for n in range(n)]

    train = [
        *of_one("a", 3, product="Priya Natarajan"),
        *(row(f"b{n}", product="Aurora Lamp", category="4158732700") for n in range(4)),
        *(row(f"c{n}", channel="ann.smith@example.org", priority="4006381333931") for n in range(2)),
    ]
    notes = {"labels_redacted": 5, "labels_redacted_category": 5, "labels_merged_category": 2}
    redacted = {"redacted_tickets": 0, "redacted_email": 0}
    test = [row("x", product="Galaxy S23", category="billing")]

    def counts(**stages: Any) -> dict[str, tuple[int, int, int]]:
        found = numbers_of(make_card(train=train, test=test, **stages)).personal_labels
        return {each.column: (each.n_replaced, each.n_lost, each.n_left) for each in found}

    assert counts(removed={"redact": []}, notes=redacted | notes) == {"product": (0, 0, 3), "category": (5, 2, 4)}
    for message in (
        "category of 5 tickets was personal data and is now a placeholder, and 2 values became equal to another",
        "product of 3 tickets may be personal data, which reports and MLflow show",
    ):
        assert message in caplog.text
    # Nothing was redacted: what redaction would have replaced counts, too.
    assert counts() == {"product": (0, 0, 3), "category": (0, 0, 4), "channel": (0, 0, 2)}
    page = (make_card(train=train, test=test).root / "card.html").read_text()
    assert "Personal data in labels" in page
    assert not [value for value in ("Priya", "ann.smith") if value in caplog.text]

    plain = make_card(train=test, test=[row("y", product="Galaxy S23")], removed={"redact": []}, notes=redacted)
    assert numbers_of(plain).personal_labels == ()
    assert "Personal data in labels" not in (plain.root / "card.html").read_text()


def test_ids_that_look_like_names_are_counted_where_names_are_redacted(
    make_card: Callable[..., CurationCard], caplog: pytest.LogCaptureFixture
) -> None:
    train = [row("a", customer_id="Konrad Ziegler"), row("b", customer_id="Konrad Ziegler"), row("c")]
    notes = {"redacted_tickets": 0, "redacted_name": 0}
    card = make_card(train=train, test=[row("d")], removed={"redact": []}, notes=notes)
    assert numbers_of(card).personal_ids == {"customer_id": 2}
    assert "Konrad" not in caplog.text
    notes = {"redacted_tickets": 0, "redacted_email": 0}
    card = make_card(train=train, test=[row("d")], removed={"redact": []}, notes=notes)
    assert numbers_of(card).personal_ids == {}


def test_checks_of_the_data_are_shown(make_card: Callable[..., CurationCard], new_folder: NewFolder) -> None:
    result = CheckResult(
        name="few_nulls", uses="nulls", checked_table="curated", severity="warn", status="failed", observed=0.5,
        n_rows=2, n_failing=1, message="category is missing in 1 of 2 rows <b>",
    )  # fmt: skip
    card = make_card(
        train=[row("a")],
        test=[row("b")],
        checks=CheckResults(root=new_folder(), results=(result,), n_rows={"curated": 2}),
    )
    assert numbers_of(card).checks == (result,)
    page = (card.root / "card.html").read_text()
    assert "few_nulls" in page
    assert "1 of 2 rows &lt;b&gt;" in page


def test_every_number_of_a_small_card_is_exact(make_card: Callable[..., CurationCard]) -> None:
    merged = {"outcome": "merged", "cluster_id": "a", "code": "near_duplicate"}
    card = make_card(
        train=[
            row("a", category="billing", priority="low", reply="x" * 25, repetition=0.5, n_words=3, label_conflict=1),
            row("b", category="billing", reply="x" * 24, repetition=float("nan"), n_words=5, label_conflict=0),
            row("c", category="returns", created_at=None, language="en", reply_is_stub=True),
        ],
        validation=[row("d", category="billing", created_at=datetime(2026, 6, 21, 23, 59))],
        test=[row("e", category="", created_at=datetime(2026, 6, 22), body="y" * 12_800, repetition=0.25)],
        removed={
            "validate": [
                {"outcome": "quarantined", "code": "TG0210"},
                {"outcome": "quarantined", "code": "TG0210"},
                {"outcome": "dropped", "code": "older_version"},
            ],
            "redact": [],
            "dedup": [
                {**merged, "kept_id": "a"},
                {**merged, "kept_id": "b"},
                {**merged, "kept_id": "b"},
                {**merged, "kept_id": "d", "cluster_id": "d", "code": "exact_duplicate"},
            ],
        },
        notes={"redacted_email": 4, "redacted_phone": 0, "redacted_tickets": 3, "other": 9},
    )
    found = numbers_of(card)
    assert (card.n_read, card.n_train, card.n_validation, card.n_test, card.n_merged) == (12, 3, 1, 1, 4)
    assert [(step.step, step.rows.n_in, step.rows.n_out) for step in found.funnel] == [
        ("extract", 12, 12), ("validate", 12, 9), ("redact", 9, 9), ("dedup", 9, 5), ("split", 5, 5),
        ("decontaminate", 5, 5),
    ]  # fmt: skip
    assert [(r.step, r.outcome, r.code, r.n) for r in found.reasons] == [
        ("validate", "quarantined", "TG0210", 2), ("validate", "dropped", "older_version", 1),
        ("dedup", "merged", "near_duplicate", 3), ("dedup", "merged", "exact_duplicate", 1),
    ]  # fmt: skip
    assert shares(found.distributions["category"]) == {"billing": (2, 1, 0), "": (0, 0, 1), "returns": (1, 0, 0)}
    assert shares(found.distributions["priority"]) == {"low": (1, 0, 0)}
    assert found.distributions["priority"].missing == ValueCounts(value="", train=2, validation=1, test=1)
    assert shares(found.distributions["language"]) == {"en": (1, 0, 0)}
    assert shares(found.distributions["body_length"]) == {"0-24": (3, 1, 0), "12800+": (0, 0, 1)}
    assert shares(found.distributions["reply_length"]) == {"0-24": (1, 0, 0), "25-49": (1, 0, 0)}
    assert shares(found.distributions["weekday"]) == {"Monday": (2, 0, 1), "Sunday": (0, 1, 0)}
    assert shares(found.distributions["hour"]) == {"00": (0, 0, 1), "09": (2, 0, 0), "23": (0, 1, 0)}
    assert [(w.value, w.train, w.validation, w.test) for w in found.weeks] == [
        ("2026-W23", 2, 0, 0), ("2026-W24", 0, 0, 0), ("2026-W25", 0, 1, 0), ("2026-W26", 0, 0, 1),
    ]  # fmt: skip
    assert (found.n_undated, found.newest) == (1, "2026-06-22T00:00:00")
    duplicates = found.duplicates
    assert (duplicates.n_clusters, duplicates.n_merged, duplicates.sizes) == (2, 4, {"2": 1, "5": 1})
    assert [(c.cluster_id, c.size, c.kept_id) for c in duplicates.largest] == [("a", 5, "b"), ("d", 2, "d")]
    assert found.personal_data is not None
    assert (found.personal_data.n_tickets, found.personal_data.n_values) == (3, {"email": 4, "phone": 0})
    page = (card.root / "card.html").read_text(encoding="utf-8")
    assert "Not covered: people's names, which need <code>redact.names</code>;" in page
    scores = {score.column: (score.n, score.quantiles) for score in found.scores}
    assert scores == {
        "repetition": (2, (0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5)),
        "n_words": (2, (3, 3, 3, 3, 5, 5, 5)),
        "reply_is_stub": (1, (1,) * 7),
    }
    assert found.label_conflicts is not None
    assert (found.label_conflicts.n_checked, found.label_conflicts.n_conflicting) == (2, 1)
    assert found.drift is None


class Page(HTMLParser):
    """Reads a fragment and checks that what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes += attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(card: CurationCard) -> tuple[str, Page]:
    text = (card.root / "card.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return text, page


HOSTILE = (
    '<script>alert("1")</script>',
    "\"'><img src=x onerror=alert(1)>",
    "a\u202eb\x00\ud7ff",
    "</style><b>",
    "&lt;",
)


def test_values_from_tickets_are_escaped_and_the_page_holds_nothing_that_acts(
    make_card: Callable[..., CurationCard],
) -> None:
    rows = [row(f"t{at}", category=value, product=value, channel=value) for at, value in enumerate(HOSTILE)]
    removed = [{"outcome": "merged", "code": "<i>", "cluster_id": "<u>1</u>", "kept_id": "</td>"}]
    card = make_card(train=rows, test=[row("z")], removed={"<em>": removed})
    text, page = read_page(card)
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in text
    assert "&amp;lt;" in text
    assert text.count("<style>") == text.count("</style>") == 1
    assert page.tags <= {
        "section", "style", "h2", "h3", "h4", "p", "div", "span", "b", "small", "table", "thead", "tbody", "tr", "th",
        "td", "bdi", "i", "svg", "g", "title", "rect", "text", "line",
    }  # fmt: skip
    assert {name for name, _ in page.attributes} <= {
        "class", "style", "title", "scope", "role", "aria-label", "viewbox", "x", "y", "width", "height", "x1", "x2",
        "y1", "y2", "text-anchor", "tabindex",
    }  # fmt: skip
    assert {value for name, value in page.attributes if name == "tabindex"} == {"0"}
    assert not re.search(r"url\(|@import|https?:|javascript:", text)
    assert "\u202e" not in text
    assert "\x00" not in text


def test_no_text_of_a_ticket_and_no_id_but_those_of_clusters_is_in_the_card(
    make_card: Callable[..., CurationCard],
) -> None:
    texts = dict.fromkeys(("subject", "body", "reply", "messages", "reference", "thread_id", "source"), SECRET)
    rows = [row(f"secret-{at}", customer_id="customer-7", category=f"{SECRET} {'x' * 60}", **texts) for at in range(9)]
    removed = [
        {"outcome": "merged", "code": "near_duplicate", "cluster_id": "c1", "kept_id": "k1", "ticket_id": "secret-gone",
         "reason": SECRET, "shared_run": SECRET},
    ]  # fmt: skip
    card = make_card(train=rows, test=[row("secret-z", customer_id="customer-8")], removed={"dedup": removed})
    for path in (card.numbers, card.root / "card.html"):
        content = path.read_text(encoding="utf-8")
        assert not re.search("xylophone|quartz|zebra|secret|customer-", content)
        assert "c1" in content
    assert numbers_of(card).distributions["category"].other.n == 9


def test_only_the_commonest_values_are_named(make_card: Callable[..., CurationCard]) -> None:
    rows = [row(f"t{at:03}", category=f"kind {at // 2:02}") for at in range(60)] + [row("x", category="kind 29")]
    found = numbers_of(make_card(train=rows, test=[row("z", category="kind 00")])).distributions["category"]
    assert [value.value for value in found.values[:3]] == ["kind 00", "kind 29", "kind 01"]
    assert len(found.values) == 20
    assert (found.other.n, found.missing.n, found.n) == (20, 0, 62)


def test_rare_languages_are_shown_together_and_empty_columns_are_left_out(
    make_card: Callable[..., CurationCard],
) -> None:
    rows = [{"ticket_id": str(n), "language": "en" if n else "cy"} for n in range(150)]
    card = make_card(train=rows, test=[{"ticket_id": "x", "language": "en"}])
    page = (card.root / "card.html").read_text()
    assert "<bdi>cy</bdi>" not in page
    assert "other values" in page
    assert 'scope="col">test' in page
    assert 'scope="col">validation' not in page, "no ticket is in validation"
    assert "Balance of category" not in page, "no ticket has a category"
    assert 'class="n">quarantined' not in page, "no step quarantined a row"


def test_drift_is_the_index_of_a_hand_computed_case(make_card: Callable[..., CurationCard]) -> None:
    def rows(start: datetime, **kinds: int) -> list[Row]:
        names = [kind for kind, n in kinds.items() for _ in range(n)]
        return [
            row(f"{start:%d}-{at}", category=kind, created_at=start, customer_id=f"{at % 50}")
            for at, kind in enumerate(names)
        ]

    first = make_card(train=rows(datetime(2026, 6, 1, 9), a=80, b=20), test=[row("z", category="a")])
    later = [*rows(datetime(2026, 6, 1, 9), a=30), *rows(datetime(2026, 6, 8, 9), a=20, new=50)]
    second = make_card(train=later, test=[row("z", category="b", customer_id=None)], previous=first)
    drift = numbers_of(second).drift
    assert drift is not None
    shifts = {shift.column: shift for shift in drift.shifts}
    # Shares then: a 81/101, b 20/101, others 0. Now: a 50/101, b 1/101, others 50/101.
    expected = (
        (50 - 81) / 101 * math.log(50 / 81)
        + (1 - 20) / 101 * math.log(1 / 20)
        + (50 / 101 - 1e-4) * math.log(50 / 101 / 1e-4)
    )
    assert shifts["category"].index == pytest.approx(expected, abs=1e-6)
    assert shifts["category"].verdict == "major"
    assert shifts["category"].chance == pytest.approx(2 * 2 / 101, abs=1e-6)
    assert (shifts["weekday"].index, shifts["weekday"].verdict) == (0, "stable")
    assert "priority" not in shifts
    assert (drift.n_previous, second.n_shifted) == (101, 1)
    assert drift.new_tickets == pytest.approx(70 / 101, abs=1e-6)
    # Customers 0-29 wrote before, 30-49 came with the new tickets; who z is of is not known.
    assert drift.new_customers == pytest.approx(20 / 50, abs=1e-6)


def test_the_index_is_symmetric_and_finite_where_a_share_is_nought() -> None:
    assert stability_index([10, 30], [10, 30]) == 0
    assert stability_index([1, 0], [0, 1]) == stability_index([0, 1], [1, 0])
    assert stability_index([1, 0], [0, 1]) == pytest.approx(2 * (1 - 1e-4) * math.log(1e4))


@pytest.mark.parametrize(
    ("now", "verdict"),
    [((500, 500), "stable"), ((620, 380), "stable"), ((680, 320), "moderate"), ((800, 200), "major")],
)
def test_the_thresholds_of_drift_are_a_tenth_and_a_quarter(now: tuple[int, int], verdict: str) -> None:
    def counts(value: str, n: int) -> ValueCounts:
        return ValueCounts(value=value, train=n, validation=0, test=0)

    then = Distribution(values=(counts("a", 500), counts("b", 500)), other=counts("", 0), missing=counts("", 0))
    shift = shift_of("category", counts=dict(zip("ab", now, strict=True)), n_missing=0, n=1000, reference=then)
    assert shift is not None
    assert shift.verdict == verdict
    few = shift_of("category", counts={"a": 5}, n_missing=0, n=5, reference=then)
    assert few is not None
    assert few.verdict == "too few tickets"
    assert shift_of("category", counts={}, n_missing=0, n=0, reference=then) is None


def test_equal_input_gives_equal_bytes_in_any_row_order(make_card: Callable[..., CurationCard]) -> None:
    rows = [
        row(f"t{at}", category=f"k{at % 3}", created_at=datetime(2026, 6, 1) + timedelta(hours=at), repetition=at / 7)
        for at in range(40)
    ]
    cards = [make_card(train=order, test=[row("z")]) for order in (rows, rows[::-1])]
    assert cards[0].numbers.read_bytes() == cards[1].numbers.read_bytes()
    assert (cards[0].root / "card.html").read_bytes() == (cards[1].root / "card.html").read_bytes()


def test_a_card_of_nothing_but_ids_is_drawn(make_card: Callable[..., CurationCard]) -> None:
    bare: dict[str, Any] = {"created_at": None, "customer_id": None, "body": None}
    card = make_card(train=[row("a", **bare)], test=[row("z", **bare)])
    again = make_card(train=[row("a", **bare)], test=[row("z", **bare)], previous=card)
    text, _ = read_page(again)
    assert "2 tickets have no time" in text
    assert "nan" not in text.lower()
    assert "None" not in text
    drift = numbers_of(again).drift
    assert drift is not None
    assert (drift.shifts, drift.new_tickets, drift.new_customers) == ((), None, None)


def test_rows_that_were_lost_between_two_steps_are_an_error(
    make_stage: MakeStage, make_splits: MakeSplits, new_folder: NewFolder
) -> None:
    split = make_splits(train=[row("a")], test=[row("z")])

    def build(stage: TicketTable) -> None:
        build_card(stages=(stage,), stage_names=("read",), split=split, clean=split, previous=None, out=new_folder())

    with pytest.raises(DataError, match=r"TG0231.*read returned 3, split received 2"):
        build(make_stage(3))
    stage = make_stage(3, [{"outcome": "dropped", "code": "x"}])
    write_removed([], stage.root)
    with pytest.raises(DataError, match="read removed 1 and lists 0"):
        build(stage)


def test_a_card_of_another_version_is_not_compared_with_and_a_damaged_one_is_an_error(
    make_card: Callable[..., CurationCard],
) -> None:
    rows: dict[str, Any] = {"train": [row("a")], "test": [row("z")]}
    first = make_card(**rows)
    first.numbers.write_text('{"version": 999}')
    assert numbers_of(make_card(**rows, previous=first)).drift is None
    for damaged in ('{"version": 1}', "{", "[]"):
        first.numbers.write_text(damaged)
        with pytest.raises(DataError, match="TG0231"):
            make_card(**rows, previous=first)


def test_long_times_share_columns_and_gaps_are_seen(make_card: Callable[..., CurationCard]) -> None:
    rows = [row("a", created_at=datetime(1995, 1, 2)), row("b", created_at=datetime(2026, 6, 1))]
    card = make_card(train=rows, test=[row("z", created_at=datetime(2026, 6, 1))])
    text, _ = read_page(card)
    assert len(numbers_of(card).weeks) == 1640
    assert "Tickets per 28 ISO weeks" in text
    assert len(text) < 40_000


def test_two_hundred_thousand_tickets_are_counted_in_seconds(make_stage: MakeStage, new_folder: NewFolder) -> None:
    import time

    import pyarrow as pa

    n = 200_000
    base = ticket_table([row(f"t{at}", category=f"k{at % 8}", source="s", source_line=at) for at in range(1000)])
    table = pa.concat_tables([base] * (n // 1000))
    out = new_folder()
    for part, rows in (("train", table), ("validation", base), ("test", base)):
        write_tickets(rows, out, name=f"{part}.parquet")
    write_removed([], out)
    total = n + 2000
    splits = Splits(root=out, rows=RowCounts(n_in=total, n_out=total), n_train=n, n_validation=1000, n_test=1000)
    start = time.process_time()
    build_card(
        stages=(make_stage(total),), stage_names=("read",), split=splits, clean=splits, previous=None, out=new_folder()
    )
    assert time.process_time() - start < 6


def test_a_card_that_is_opened_by_itself_has_its_encoding_and_loads_nothing() -> None:
    page = whole_page("<section>Gr\u00fc\u00dfe</section>", title="Curation of <b>")
    assert page.startswith("<!doctype html>")
    assert page.index('<meta charset="utf-8">') < page.index("default-src 'none'") < page.index("<section>Gr\u00fc")
    assert "<title>Curation of &lt;b&gt;</title>" in page
