"""Each kind of planted leak is found and named with its witness; what is no leak stays; test rows always stay."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas.curation import DecontaminateSpec, SplitSpec
from schemas.curation_steps import DedupStep
from schemas.errors import DataError
from tasks.curate import leaks
from tasks.curate.decontaminate import check_no_leaks, decontaminate
from tasks.curate.dedup import drop_duplicates
from tasks.curate.split import split_tickets

SPEC = DecontaminateSpec()


def text(seed: int, n_words: int = 40) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(100_000)}" for _ in range(n_words))


def row(ticket_id: str, body: str, **others: object) -> dict[str, object]:
    return {"ticket_id": ticket_id, "body": body, **others}


def leaks_of(splits: Any, spec: DecontaminateSpec, new_folder: Any, rows_of: Any) -> dict[str, tuple[str, str, float]]:
    result = decontaminate(splits=splits, spec=spec, out=new_folder())
    removed = rows_of(result.removed)
    assert all(item["outcome"] == "dropped" for item in removed.values())
    assert result.test.read_bytes() == splits.test.read_bytes()
    kept = {name for part in ("train", "validation") for name in rows_of(getattr(result, part))}
    assert not kept & removed.keys()
    assert len(kept) + len(removed) == splits.n_train + splits.n_validation
    assert result.rows.n_in == splits.n_train + splits.n_validation + splits.n_test
    assert result.rows.n_dropped == len(removed)
    return {name: (item["code"], item["kept_id"], item["score"]) for name, item in removed.items()}


def test_each_kind_of_leak_is_named_with_the_held_out_ticket(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    test = [row(f"held-{number}", text(number)) for number in range(6)]
    edited = text(1).split()
    edited[20] = "changed"
    train = [
        row("same", "  " + text(0).upper() + "!"),
        row("near", " ".join(edited)),
        row("quoted", f"{text(101)} you wrote: {text(2)} {text(102)}"),
        row("first-half", " ".join(text(3).split()[:28]) + " " + text(103)),
        row("quarter", " ".join(text(4).split()[:15]) + " " + text(104)),
        row("eighth", " ".join(text(4).split()[10:15]) + " " + text(105)),
        row("every-fourth", " ".join(word if n % 4 else f"x{n}" for n, word in enumerate(text(5).split()))),
        *(row(f"clean-{number}", text(200 + number)) for number in range(50)),
    ]
    leaks = leaks_of(make_splits(train=train, test=test), SPEC, new_folder, rows_of)
    assert {name: (code, witness) for name, (code, witness, _) in leaks.items()} == {
        "same": ("leak_exact", "held-0"),
        "near": ("leak_near", "held-1"),
        "quoted": ("leak_quote", "held-2"),
        "first-half": ("leak_quote", "held-3"),
        "quarter": ("leak_quote", "held-4"),
        "every-fourth": ("leak_paraphrase", "held-5"),
    }
    assert leaks["same"][2] == 1.0
    assert leaks["near"][2] == (38 - 3) / (38 + 3)
    assert leaks["quoted"][2] == 1.0
    assert leaks["first-half"][2] == pytest.approx(21 / 33, abs=0.05)


def test_subject_and_body_count_and_the_reply_does_not(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    listed = text(1).split()
    test = [row("held", text(1), reply=text(2))]
    train = [
        {"ticket_id": "subject", "subject": " ".join(listed[:20]), "body": " ".join(listed[20:])},
        row("reply", text(3), reply=text(2)),
        row("answer-is-question", text(4), reply=text(1)),
    ]
    assert leaks_of(make_splits(train=train, test=test), SPEC, new_folder, rows_of).keys() == {"subject"}


def test_boilerplate_that_many_rows_hold_is_no_leak(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    boilerplate = text(9, n_words=30)
    test = [row("held", f"{boilerplate} {text(1, n_words=20)}")]
    train = [row(f"{number:03d}", f"{boilerplate} {text(300 + number, n_words=20)}") for number in range(60)]
    splits = make_splits(train=train, test=test)
    assert leaks_of(splits, DecontaminateSpec(max_document_frequency=50), new_folder, rows_of) == {}
    with pytest.raises(DataError, match="none is left"):
        decontaminate(
            splits=splits,
            spec=DecontaminateSpec(max_document_frequency=60, max_document_share=1, long_threshold=0.1),
            out=new_folder(),
        )


def test_validation_rows_leak_too_and_may_all_go(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    splits = make_splits(train=[row("train", text(1))], validation=[row("v", text(2))], test=[row("held", text(2))])
    assert leaks_of(splits, SPEC, new_folder, rows_of) == {"v": ("leak_exact", "held", 1.0)}


def test_train_rows_that_leak_a_validation_row_go_and_name_it(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    edited = text(1).split()
    edited[20] = "changed"
    train = [
        row("near", " ".join(edited)),
        row("quoted", f"{text(101)} you wrote: {text(2)} {text(102)}"),
        row("of-both", f"{text(2)} {text(8)}"),
        row("of-the-dropped", " ".join(text(9).split()[:30])),
        row("clean", text(200)),
    ]
    validation = [row("v1", text(1)), row("v2", text(2)), row("leaks-test", f"{text(9)} {text(8)}")]
    splits = make_splits(train=train, validation=validation, test=[row("held", text(8))])
    assert {name: leak[:2] for name, leak in leaks_of(splits, SPEC, new_folder, rows_of).items()} == {
        "near": ("leak_near", "v1"),
        "quoted": ("leak_quote", "v2"),
        "of-both": ("leak_quote", "held"),
        "leaks-test": ("leak_quote", "held"),
    }
    result = decontaminate(splits=splits, spec=SPEC, out=new_folder())
    reasons = {name: item["reason"] for name, item in rows_of(result.removed).items()}
    assert reasons["near"] == "the question is nearly equal to a validation question"
    assert reasons["of-both"] == "the question quotes a test question"
    assert (result.notes["leaked_test_rows"], result.notes["leaked_validation_rows"]) == (1, 2)
    assert (result.n_train, result.n_validation, result.n_test) == (2, 2, 1)


def test_empty_and_short_questions_do_not_leak_by_chance(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    test = [row("h1", ""), row("h2", "help me"), row("h3", "???")]
    train = [row("t1", ""), row("t2", "help us"), row("t3", "!!!"), row("t4", "Help me!")]
    assert leaks_of(make_splits(train=train, test=test), SPEC, new_folder, rows_of) == {"t4": ("leak_exact", "h2", 1.0)}


@pytest.mark.parametrize("column", ["customer_id", "thread_id"])
def test_a_customer_or_thread_on_two_sides_is_an_error(make_splits: Any, new_folder: Any, column: str) -> None:
    train, test = row("1", text(1), **{column: "x"}), row("2", text(2), **{column: "x"})
    with pytest.raises(DataError, match=rf"TG0231.*{column}"):
        decontaminate(splits=make_splits(train=[train], test=[test]), spec=SPEC, out=new_folder())


def test_the_longest_shared_run_is_listed_in_normal_form(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    words = text(1).split()
    train = [row("quoted", f"{text(2)} > {' '.join(words[5:30]).upper()}!"), row("other", text(3))]
    splits = make_splits(train=train, test=[row("held", text(1))])
    removed = rows_of(decontaminate(splits=splits, spec=SPEC, out=new_folder()).removed)
    assert removed["quoted"]["shared_run"] == " ".join(words[5:30])
    assert not set(removed["quoted"]["reason"].split()) & set(words)


def test_rows_written_after_the_cut_go_and_are_named(make_splits: Any, new_folder: Any, rows_of: Any) -> None:
    cut = datetime(2026, 6, 10)
    train = [row(f"{hours:+d}", text(hours + 9), created_at=cut + timedelta(hours=hours)) for hours in (-1, 0, 1)]
    train += [row("leak", text(1), created_at=cut), row("no-time", text(99))]
    splits = make_splits(train=train, test=[row("held", text(1), created_at=cut + timedelta(days=1))])
    for times, expected in ((None, set()), (cut, {"+0", "+1"})):
        result = decontaminate(splits=splits.model_copy(update={"cut": times}), spec=SPEC, out=new_folder())
        removed = rows_of(result.removed)
        assert {name for name, item in removed.items() if item["code"] == "leak_time"} == expected
        assert removed["leak"]["code"] == "leak_exact"
        assert result.notes["dropped_leak_time"] == len(expected)
        assert result.cut == times


@pytest.mark.parametrize(("column", "note"), [("customer_id", "leak_customer"), ("thread_id", "leak_thread")])
def test_a_shared_owner_that_the_split_does_not_keep_apart_is_counted(
    make_splits: Any, new_folder: Any, column: str, note: str
) -> None:
    train = [row(f"t{n}", text(n), **{column: name}) for n, name in enumerate(["x", "x", "y", None, ""])]
    splits = make_splits(train=train, test=[row("h1", text(8), **{column: "x"}), row("h2", text(9), **{column: ""})])
    others = tuple(name for name in splits.group_by if name != column)
    result = decontaminate(splits=splits.model_copy(update={"group_by": others}), spec=SPEC, out=new_folder())
    assert result.notes[note] == 2
    assert len(result.notes.keys() & {"leak_customer", "leak_thread"}) == 1
    assert result.rows.n_dropped == 0


@pytest.mark.parametrize("n_rows", [1, leaks.BATCH_ROWS])
def test_a_leak_that_is_left_is_an_error(n_rows: int, make_splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "BATCH_ROWS", n_rows)
    edited = text(1).split()
    edited[20] = "changed"
    near, clean = row("near", " ".join(edited)), row("clean", text(2))
    test = [row("h1", text(1)), row("h3", text(3))]
    given = make_splits(train=[clean, near], validation=[row("same", text(3)), row("well", text(4))], test=test)
    compared = [*leaks.fold_questions(given.train), *leaks.fold_questions(given.validation)]
    leaking = {"near", "same"}
    well = [row("well", text(4))]
    check_no_leaks(make_splits(train=[clean], validation=well, test=test), compared, leaking)
    for train, validation in (
        ([clean, near], well),  # a leak is left
        ([clean, row("new", text(5))], well),  # never compared
        ([row("clean", text(6))], well),  # another text under its name
        ([clean], []),  # more rows are missing than leak
        ([*well], [clean]),  # in the wrong part
    ):
        with pytest.raises(DataError, match=r"TG0231.*are not what was compared") as error:
            check_no_leaks(make_splits(train=train, validation=validation, test=test), compared, leaking)
        assert text(1)[:8] not in str(error.value)


def test_strata_and_assignments_come_along(make_tickets: Any, new_folder: Any) -> None:
    rows = [row(f"{n:03d}", text(n), category="a" if n % 3 else "b") for n in range(60)]
    splits = split_tickets(tickets=make_tickets(rows), split=SplitSpec(), out=new_folder())
    clean = decontaminate(splits=splits, spec=SPEC, out=new_folder())
    assert clean.assignments.read_bytes() == splits.assignments.read_bytes()
    assert clean.strata.read_bytes() == splits.strata.read_bytes()
    assert (clean.seed, clean.cut) == (splits.seed, splits.cut)


def test_real_questions_pass_all_stages_in_seconds_and_leave_no_near_duplicate(
    make_tickets: Any, new_folder: Any, rows_of: Any, banking77: list[dict[str, object]]
) -> None:
    tickets = make_tickets([item | {"customer_id": f"c{n % 3000}"} for n, item in enumerate(banking77)])
    kept = drop_duplicates(tickets=tickets, step=DedupStep(uses="dedup"), out=new_folder())
    splits = split_tickets(tickets=kept, split=SplitSpec(), out=new_folder())
    clean = decontaminate(splits=splits, spec=SPEC, out=new_folder())
    assert kept.notes["exact_duplicates"] == 29
    assert kept.notes["near_duplicates"] == 76
    assert 20 <= clean.rows.n_dropped <= 300
    assert clean.notes["leaked_validation_rows"] >= 20
    category = {item["ticket_id"]: item["category"] for item in banking77}
    leaks = rows_of(clean.removed)
    assert sum(category[name] != category[leak["kept_id"]] for name, leak in leaks.items()) <= 0.15 * len(leaks)
    again = decontaminate(splits=clean, spec=SPEC, out=new_folder())
    assert again.notes["dropped_leak_exact"] == again.notes["dropped_leak_near"] == 0
