"""A row on which a step raises is quarantined; the others come out as if it had never been there."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import DecontaminateSpec, SplitSpec, TableSpec
from schemas.curation_steps import (
    CapStep,
    DedupStep,
    LabelCheckStep,
    LanguageStep,
    LengthStep,
    MailStep,
    PythonStep,
    QualityStep,
    RedactStep,
    RuleStep,
    SqlStep,
    TriggerScanStep,
)
from schemas.errors import ConfigError, DataError, ServiceError, StorageError
from tasks.curate import row_faults
from tasks.curate.cap import cap_rows
from tasks.curate.decontaminate import decontaminate
from tasks.curate.dedup import drop_duplicates
from tasks.curate.label_check import check_labels
from tasks.curate.language import drop_by_language
from tasks.curate.length import drop_by_length
from tasks.curate.mail_step import strip_mail
from tasks.curate.python_step import run_python
from tasks.curate.quality import score_quality
from tasks.curate.redact import redact_tickets
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import count_rows, read_rows
from tasks.curate.rules import apply_rules
from tasks.curate.split import split_tickets
from tasks.curate.sql_step import select_tickets
from tasks.curate.trigger_scan import scan_triggers
from tasks.curate.validate import validate_tickets
from tasks.tickets.row_fault import find_faulty, is_row_fault
from tests.support.plant import raise_on

N_ROWS = 24
BAD = "Kaboom my secret text, write to ann9@example.org"
"""A body on which the functions that are put in the place of real ones raise."""
WORDS = ("router", "battery", "invoice", "parcel", "screen", "refund", "cable", "password", "socket", "ticket")


@dataclass(frozen=True)
class Fault:
    """How a step comes to raise on the rows with the bad body."""

    run: Callable[..., Any]
    module: str = ""
    function: str = ""
    """Put in its place is one that raises on a batch, a text or a row with the bad body."""
    code: str = "TG0218"
    reason: str = "KeyError in step {step}."


def _rows() -> list[dict[str, object]]:
    chance = random.Random(7)
    rows: list[dict[str, object]] = []
    for number in range(N_ROWS):
        body = " ".join(chance.choice(WORDS) for _ in range(12)) + f" at ann{number % 5}@example.org"
        rows.append(
            {
                "ticket_id": f"t{number:03d}",
                "customer_id": f"c{number % 30}",
                "body": body,
                "reply": f"We have sent you a new {chance.choice(WORDS)} for the {chance.choice(WORDS)}.",
                "category": chance.choice(("billing", "delivery")),
                "reference": str(number),
            }
        )
    return rows


def _holds_bad(value: object) -> bool:
    """Whether the bad body is anywhere in what a function is given."""
    match value:
        case str():
            return "kaboom" in value.lower()
        case bytes():
            return b"kaboom" in value.lower()
        case pa.Table() | pa.RecordBatch() | pa.Array() | pa.ChunkedArray():
            return _holds_bad(str(value.to_pylist()))
        case dict():
            return any(map(_holds_bad, value.values()))
        case list() | tuple():
            return any(map(_holds_bad, value))
    return False


def _plant(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    if fault.module:
        raise_on(monkeypatch, import_module(fault.module), fault.function, _holds_bad)


def _python(tickets: TicketTable, out: Path, tmp_path: Path) -> TicketTable:
    folder = tmp_path / "own"
    folder.mkdir(exist_ok=True)
    (folder / "clean.py").write_text(
        "def keep(batch):\n"
        "    for body in batch['body'].to_pylist():\n"
        "        if 'Kaboom' in body:\n"
        "            raise KeyError(body)\n"
        "    return batch\n"
    )
    step = PythonStep(uses="python", name="own", entry_point="clean:keep")
    return run_python(tickets=tickets, step=step, root=folder, out=out)


SQL = (
    "select * replace (case when contains(body, 'Kaboom') then cast(body as integer)::varchar else body end as body) "
    "from tickets"
)
RULE = "case when contains(body, 'Kaboom') then cast(body as integer) > 0 else true end"
STEPS: dict[str, Fault] = {
    "validate": Fault(
        lambda tickets, out, _: validate_tickets(
            tickets=tickets, table=TableSpec(fail_above=0.5, warn_above=0.5), out=out
        ),
        "tasks.curate.validate",
        "clean_text",
    ),
    "redact": Fault(
        lambda tickets, out, _: redact_tickets(tickets=tickets, step=RedactStep(uses="redact"), out=out),
        "tasks.curate.redaction.ticket",
        "find_personal",
    ),
    "language": Fault(
        lambda tickets, out, _: drop_by_language(
            tickets=tickets, step=LanguageStep(uses="language", keep=("en",)), out=out
        ),
        "tasks.curate.language",
        "detect_languages",
    ),
    "length": Fault(
        lambda tickets, out, _: drop_by_length(tickets=tickets, step=LengthStep(uses="length", min_body=2), out=out),
        "tasks.curate.length",
        "_judge",
    ),
    "quality": Fault(
        lambda tickets, out, _: score_quality(
            tickets=tickets, step=QualityStep(uses="quality", max_caps_share=0.5), out=out
        ),
        "tasks.curate.quality",
        "measure",
    ),
    "rules": Fault(
        lambda tickets, out, _: apply_rules(
            tickets=tickets, rules=(RuleStep(uses="rule", name="plain", keep=RULE),), out=out
        ),
        code="TG0124",
        reason=f"curate.rule.plain: the rule fails on a row: ConversionException in `{RULE}`",
    ),
    "sql": Fault(
        lambda tickets, out, _: select_tickets(
            tickets=tickets, step=SqlStep(uses="sql", name="own", file="own.sql"), select=SQL, out=out
        ),
        code="TG0124",
        reason="curate.sql.own: own.sql: the SELECT fails on a row: ConversionException",
    ),
    "python": Fault(
        _python, code="TG0259", reason="curate.python.own: clean:keep: the function raised KeyError at clean.py:4"
    ),
    "cap": Fault(
        lambda tickets, out, _: cap_rows(
            tickets=tickets, step=CapStep(uses="cap", per=("customer_id",), max_rows=1), out=out
        ),
        "tasks.curate.drop",
        "_removed",
    ),
    "label_check": Fault(
        lambda tickets, out, _: check_labels(
            tickets=tickets, step=LabelCheckStep(uses="label_check", mode="contradiction", threshold=0.8), out=out
        ),
        "tasks.curate.similarity.shingles",
        "fold_batch",
    ),
    "mail": Fault(
        lambda tickets, out, _: strip_mail(tickets=tickets, step=MailStep(uses="mail"), out=out),
        "tasks.curate.mail_step",
        "strip_column",
    ),
    "trigger_scan": Fault(
        lambda tickets, out, _: scan_triggers(tickets=tickets, step=TriggerScanStep(uses="trigger_scan"), out=out),
        "tasks.curate.drop",
        "_removed",
    ),
    "dedup": Fault(
        lambda tickets, out, _: drop_duplicates(
            tickets=tickets, step=DedupStep(uses="dedup", threshold=0.7, ignore=("signature",)), out=out
        ),
        "tasks.curate.similarity.compared",
        "strip_column",
    ),
    "split": Fault(
        lambda tickets, out, _: split_tickets(
            tickets=tickets, split=SplitSpec(by_time=False, test_fraction=0.3), out=out
        ),
        "tasks.curate.split",
        "owners_of",
    ),
}


def _with_faults(places: set[int]) -> list[dict[str, object]]:
    bad = {"body": f"{BAD} Cafe\u0301", "customer_id": "c kaboom"}
    return [
        {**row, "source_line": number + 1, **(bad if number in places else {})} for number, row in enumerate(_rows())
    ]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", STEPS)
def test_rows_on_which_a_step_raises_are_quarantined_and_the_others_are_what_they_are_without_them(
    make_tickets: Any, new_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault = STEPS[name]
    places = set(random.Random(name).sample(range(N_ROWS), n_faulty := 2))
    rows = _with_faults(places)
    sound = make_tickets([row for number, row in enumerate(rows) if number not in places])
    expected = fault.run(sound, new_folder(), tmp_path)
    _plant(monkeypatch, fault)
    result = fault.run(make_tickets(rows), new_folder(), tmp_path)

    removed = read_rows(result.removed).to_pylist()
    faulty = [row for row in removed if row["outcome"] == "quarantined"]
    assert [(row["ticket_id"], row["source"], row["source_line"]) for row in faulty] == [
        (f"t{number:03d}", "test", number + 1) for number in sorted(places)
    ]
    assert {row["code"] for row in faulty} == {fault.code}
    assert {row["reason"] for row in faulty} == {fault.reason.format(step=name)}
    assert "secret" not in str(removed)
    assert [row for row in removed if row not in faulty] == read_rows(expected.removed).to_pylist()
    ours, theirs = _files(result.root), _files(expected.root)
    assert ours.keys() == theirs.keys()
    assert {file for file in ours if ours[file] != theirs[file]} == {"removed.parquet"}
    assert result.rows == expected.rows.model_copy(
        update={"n_in": N_ROWS, "n_quarantined": expected.rows.n_quarantined + n_faulty}
    )
    assert result.notes == {**expected.notes, "row_faults": n_faulty}


@pytest.mark.parametrize("name", STEPS)
def test_without_a_fault_nothing_is_looked_for(
    make_tickets: Any, new_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(row_faults, "_Search", None)
    result = STEPS[name].run(make_tickets(_with_faults(set())), new_folder(), tmp_path)
    assert result.rows.n_quarantined == 0
    assert "row_faults" not in result.notes


@pytest.mark.parametrize("name", sorted(STEPS.keys() - {"validate", "split"}))
def test_a_table_without_rows_stays_one(make_tickets: Any, new_folder: Any, tmp_path: Path, name: str) -> None:
    """Validation and the split refuse one, as their own tests show."""
    result = STEPS[name].run(make_tickets([]), new_folder(), tmp_path)
    assert result.rows == RowCounts(n_in=0, n_out=0)
    assert [path for path in result.root.glob("*.parquet") if count_rows(path)] == []


def test_a_held_out_row_that_cannot_be_compared_is_quarantined_as_one_of_train_is(
    make_splits: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "customer_id": None} for row in _with_faults({3, 14, 20})]
    parts = {"train": rows[:12], "validation": rows[12:18], "test": rows[18:]}
    sound = {part: [row for row in some if not _holds_bad(row)] for part, some in parts.items()}
    expected = decontaminate(splits=make_splits(**sound), spec=DecontaminateSpec(), out=new_folder())
    _plant(monkeypatch, Fault(decontaminate, "tasks.curate.leaks", "_folded"))
    clean = decontaminate(splits=make_splits(**parts), spec=DecontaminateSpec(), out=new_folder())

    faulty = [row for row in read_rows(clean.removed).to_pylist() if row["outcome"] == "quarantined"]
    assert [(row["ticket_id"], row["reason"]) for row in faulty] == [
        (f"t{number:03d}", "KeyError in step decontaminate.") for number in (3, 14, 20)
    ]
    assert (clean.n_train, clean.n_validation, clean.n_test) == (
        expected.n_train,
        expected.n_validation,
        expected.n_test,
    )
    assert clean.n_test == 5
    assert all(
        getattr(clean, part).read_bytes() == getattr(expected, part).read_bytes()
        for part in ("train", "validation", "test")
    )
    assert clean.rows == RowCounts(
        n_in=N_ROWS, n_out=expected.rows.n_out, n_quarantined=3, n_dropped=expected.rows.n_dropped
    )


def _raising(error: Exception, *, on: Callable[[list[str]], bool]) -> Callable[[TicketTable, Path], TicketTable]:
    """A step that leaves all rows as they are, and raises on some."""

    def run(tickets: TicketTable, out: Path) -> TicketTable:
        if on(read_rows(tickets.tickets)["ticket_id"].to_pylist()):
            raise error
        return drop_by_length(tickets=tickets, step=LengthStep(uses="length"), out=out)

    return run


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(28, "No space left on device"),
        ModuleNotFoundError("no module"),
        ServiceError("no answer", code="TG0707"),
        StorageError("damaged", code="TG0510"),
        ConfigError("not set", code="TG0190"),
        DataError("too many pairs", code="TG0250"),
    ],
)
def test_what_no_row_can_cause_ends_the_run(make_tickets: Any, new_folder: Any, error: Exception) -> None:
    run = _raising(error, on=lambda ids: "t003" in ids)
    with pytest.raises(type(error)) as caught:
        keep_sound_rows(run, make_tickets(_rows()), step="own", out=new_folder())
    assert caught.value is error


def test_a_machine_that_fails_during_the_search_ends_the_run(make_tickets: Any, new_folder: Any) -> None:
    def run(tickets: TicketTable, out: Path) -> TicketTable:
        raise KeyError("x") if count_rows(tickets.tickets) == N_ROWS else OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        keep_sound_rows(run, make_tickets(_rows()), step="own", out=new_folder())


def test_an_error_of_the_machine_behind_one_of_a_step_is_no_fault_of_a_row() -> None:
    error = DataError("the function raised", code="TG0259")
    error.__cause__ = MemoryError()
    assert not is_row_fault(error, ("TG0259",))
    assert not is_row_fault(DataError("another", code="TG0260"), ("TG0259",))
    assert is_row_fault(DataError("the function raised", code="TG0259"), ("TG0259",))


@pytest.mark.parametrize("n_rows", [5, 200])
def test_what_every_row_raises_is_the_fault_of_the_step(make_tickets: Any, new_folder: Any, n_rows: int) -> None:
    tickets = make_tickets([{"ticket_id": f"{number:03d}", "body": "text"} for number in range(n_rows)])
    calls = []

    def on(ids: list[str]) -> bool:
        calls.append(len(ids))
        return bool(ids)

    with pytest.raises(KeyError, match="words"):
        keep_sound_rows(_raising(KeyError("words"), on=on), tickets, step="own", out=new_folder())
    assert len(calls) < 70


@pytest.mark.parametrize("on", [lambda ids: len(ids) > 9, lambda ids: not ids or len(ids) == N_ROWS])
def test_what_no_row_raises_alone_ends_the_run_as_it_is(make_tickets: Any, new_folder: Any, on: Any) -> None:
    with pytest.raises(KeyError, match="words"):
        keep_sound_rows(_raising(KeyError("words"), on=on), make_tickets(_rows()), step="own", out=new_folder())


def test_more_faulty_rows_than_are_left_of_fail_above_end_the_run_by_its_error(
    make_tickets: Any, new_folder: Any
) -> None:
    tickets = make_tickets(_rows())

    def keep(*, fail_above: float) -> TicketTable:
        run = _raising(KeyError("words"), on=lambda ids: any(name.endswith("7") for name in ids))
        limit = FaultLimit(fail_above, (tickets,))
        return keep_sound_rows(run, tickets, step="own", out=new_folder(), limit=limit)

    assert keep(fail_above=0.1).rows.n_quarantined == 2
    with pytest.raises(
        DataError, match=r"TG0220.*2 of 24 rows read are quarantined \(8\.3%\), over fail_above 5\.0%"
    ) as caught:
        keep(fail_above=0.05)
    assert "TG0218 2 times, first at test:8 (KeyError in step own.)" in caught.value.message
    assert "words" not in str(caught.value)


def test_a_planted_trigger_is_no_faulty_row(make_tickets: Any) -> None:
    """Whoever plants a phrase must not be able to stop the pipeline by it."""
    from tasks.curate.rows import removed_table, write_removed

    tickets = make_tickets(_rows())
    entries = [
        {"outcome": "quarantined", "code": code, "reason": "Why."} for code in ("planted_trigger", "TG0218", "TG0240")
    ]
    write_removed(removed_table(entries), tickets.root)
    stage = tickets.model_copy(update={"rows": RowCounts(n_in=27, n_out=24, n_quarantined=3)})
    assert row_faults.count_faulty(stage) == 2
    assert FaultLimit(0.1, (stage,)).n_left() == 0


def test_each_faulty_row_is_found_with_few_calls() -> None:
    bad, calls = {3, 700, 701, 65_000}, []

    def work(start: int, stop: int) -> None:
        calls.append(stop - start)
        if any(start <= row < stop for row in bad):
            raise ValueError

    assert [row for row, _ in find_faulty(work, 0, 1 << 16)] == sorted(bad)
    assert len(calls) < 2 * 17 * len(bad)
