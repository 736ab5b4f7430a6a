"""Corrections by people: where they apply, what keeps them from it, and the file that they are kept in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, TicketTable
from schemas.corrections import Correction
from schemas.curation_steps import LabelCheckStep, LengthStep, RedactStep, RuleStep
from schemas.errors import ConfigError, DataError
from schemas.verdicts import EvidenceUse
from tasks.curate.corrections import (
    apply_corrections,
    corrections_text,
    count_corrected,
    digest_of_value,
    fingerprint_corrections,
    read_corrections,
)
from tasks.curate.label_check import check_labels
from tasks.curate.length import drop_by_length
from tasks.curate.redaction.pseudonyms import load_pseudonyms
from tasks.curate.rules import apply_rules

ROWS = (
    {"ticket_id": "a", "body": "one", "category": "billing", "reply": "Cafe\u0301 is open. "},
    {"ticket_id": "b", "body": "two", "category": None},
    {"ticket_id": "c", "body": "three", "category": "delivery"},
)


def correction(ticket_id: str, **given: Any) -> Correction:
    return Correction(**({"ticket_id": ticket_id, "do": "set", "by": "ada", "at": "2026-12-01T10:00:00Z"} | given))


Correct = Callable[..., TicketTable]


@pytest.fixture
def correct(tmp_path: Path, make_tickets: Any, new_folder: Any) -> Correct:
    """Apply corrections to `ROWS`."""

    def apply(*corrections: Correction, rows: Any = ROWS, redact: RedactStep | None = None) -> TicketTable:
        (tmp_path / "c.jsonl").write_bytes(corrections_text(corrections))
        return apply_corrections(
            new_folder(), tickets=make_tickets(rows), path="c.jsonl", redact=redact, root=tmp_path,
            digest=fingerprint_corrections("c.jsonl", tmp_path),
        )  # fmt: skip

    return apply


def test_a_value_is_set_only_where_the_old_one_still_holds(correct: Correct, rows_of: Any) -> None:
    done = correct(
        correction("a", field="category", old="billing", new="refund"),
        correction("a", field="reply", old=digest_of_value("Caf\u00e9 is open."), new="Closed."),
        correction("b", field="category", new="delivery"),
        correction("c", field="category", old="billing", new="refund"),
        correction("c", field="priority", new="high"),
        correction("z", do="drop"),
    )
    rows = rows_of(done.tickets)
    assert [rows[id_]["category"] for id_ in "abc"] == ["refund", "delivery", "delivery"]
    assert rows["a"]["reply"] == "Closed."
    states = {(row["ticket_id"], row["field"]): row["state"] for row in _listed(done)}
    assert (states["c", "category"], states["z", None]) == ("stale", "unknown")
    wanted = {"applied": 4, "stale": 1, "unknown": 1, "corrected": 3, "dropped_correction": 0}
    assert {name: done.notes[name] for name in wanted} == wanted


def _listed(done: TicketTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(done.root / "corrections.parquet").to_pylist()
    return rows


def test_the_verdict_counts_the_held_out_items_that_were_corrected(correct: Correct, new_folder: Any) -> None:
    done = correct(
        correction("a", field="category", old="billing", new="refund"),
        correction("b", field="category", old="billing", new="refund"),
        correction("c", do="keep", rule="r"),
    )
    root = new_folder()
    pq.write_table(pa.table({"item_id": ["a", "b", "c"]}), root / "items.parquet")
    assert count_corrected(done, EvalSet(root=root, n_items=3, n_available=3)) == 1
    use = EvidenceUse(look=1, looks_max=2, verdict=1, budget=None, confidence=0.95, n_corrected=1)
    assert use.sentence().endswith("; 1 held-out item was corrected")


def test_a_dropped_ticket_is_counted_under_its_rule(correct: Correct, rows_of: Any) -> None:
    done = correct(correction("b", do="drop"))
    assert (done.rows.n_in, done.rows.n_out, done.rows.n_dropped) == (3, 2, 1)
    assert rows_of(done.removed)["b"]["code"] == "correction"


def test_a_ticket_that_the_source_lists_twice_is_corrected_where_it_has_the_old_value(correct: Correct) -> None:
    rows = ({"ticket_id": "a", "category": "x"}, {"ticket_id": "a", "category": "y"}, {"ticket_id": "b"})
    done = correct(correction("a", field="category", old="x", new="z"), rows=rows)
    assert pq.read_table(done.tickets)["category"].to_pylist() == ["z", "y", None]


def test_a_kept_ticket_passes_its_rule_and_no_other(correct: Correct, new_folder: Any, rows_of: Any) -> None:
    kept = correct(correction("a", do="keep", rule="long"), correction("c", do="keep", rule="body_too_short"))
    rules = (RuleStep(uses="rule", name="long", keep="length(body) > 4"), RuleStep(uses="rule", name="b", keep="false"))
    ruled = apply_rules(new_folder(), tickets=kept, rules=rules[:1], kept=kept)
    assert set(rows_of(ruled.tickets)) == {"a", "c"}
    assert apply_rules(new_folder(), tickets=kept, rules=rules, kept=kept).rows.n_out == 0
    step = LengthStep(uses="length", min_body=10)
    assert set(rows_of(drop_by_length(new_folder(), tickets=kept, step=step, kept=kept).tickets)) == {"c"}
    both = LengthStep(uses="length", min_body=10, min_reply=5)
    done = drop_by_length(new_folder(), tickets=kept, step=both, kept=kept)
    assert rows_of(done.removed)["c"]["code"] == "reply_too_short"  # the rules after it still judge the ticket


def test_a_label_that_people_confirm_is_no_conflict(correct: Correct, new_folder: Any, rows_of: Any) -> None:
    rows = [{"ticket_id": id_, "body": "the same", "category": label} for id_, label in zip("abc", "xxy", strict=True)]
    kept = correct(correction("c", do="keep", rule="label_conflict"), rows=rows)
    step = LabelCheckStep(uses="label_check", mode="contradiction", action="drop_all")
    done = check_labels(new_folder(), tickets=kept, step=step, kept=kept)
    assert {id_: row["label_conflict"] for id_, row in rows_of(done.tickets).items()} == {"c": 0}


def test_pseudonyms_name_the_ticket_before_and_after_redaction(
    correct: Correct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_PSEUDONYM_KEY", "k" * 16)
    redact = RedactStep(uses="redact", pseudonymise=("ticket_id",))
    pseudonyms = load_pseudonyms(redact)
    assert pseudonyms is not None
    (shown,) = pseudonyms.of_all(["b"])
    done = correct(correction(str(shown), do="keep", rule="r"), correction("a", do="drop"), redact=redact)
    assert pq.read_table(done.root / "kept.parquet")["ticket_id"].to_pylist() == sorted(["b", str(shown)])
    assert [row["state"] for row in _listed(done)] == ["unknown", "applied"]  # "a" is no name of a ticket here


def test_the_file_is_sorted_one_line_each_and_equal_when_written_again(tmp_path: Path) -> None:
    made = [correction("b", do="drop"), correction("a", field="category", old="x", new="y", why="Zo\u00eb said")]
    text = corrections_text(made)
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    read = read_corrections(tmp_path / "c.jsonl")
    assert [each.ticket_id for each in read] == ["a", "b"]
    assert corrections_text(read) == text == corrections_text([*made, *made])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"do": "drop"}, {"do": "set", "field": "category", "new": "y", "by": "bob"}], "ada drops it, bob sets"),
        ([{"field": "category", "new": "x"}, {"field": "category", "new": "y", "by": "bob"}], "sets category to 'y'"),
        ([{"do": "keep", "rule": "r"}, {"do": "drop", "by": "bob"}], "keeps it in spite of r, bob drops it"),
        ([{"do": "set", "field": "category"}], "'set' needs field, new"),
        ([{"do": "keep", "rule": "r", "new": "x"}], "'keep' needs rule"),
        ([{"field": "body", "new": "x"}], "line 1: field"),
        (["<<<<<<< HEAD"], "line 1 is a conflict of git"),
        (["{"], "line 1 is no JSON"),
    ],
)
def test_a_faulty_or_contradicting_line_is_named(tmp_path: Path, lines: list[Any], message: str) -> None:
    base = {"ticket_id": "T", "do": "set", "by": "ada", "at": "2026-12-01T10:00:00Z"}
    text = "\n".join(each if isinstance(each, str) else orjson.dumps(base | each).decode() for each in lines)
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_corrections(tmp_path / "c.jsonl")
    assert raised.value.code == "TG0127"
    assert message in raised.value.message


def test_a_file_that_changed_since_the_run_began_is_refused(tmp_path: Path, make_tickets: Any, new_folder: Any) -> None:
    (tmp_path / "c.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="changed") as raised:
        apply_corrections(
            new_folder(), tickets=make_tickets(ROWS), path="c.jsonl", digest="0", redact=None, root=tmp_path
        )
    assert raised.value.code == "TG0203"
