"""The gate's own look for held-out items in what was trained on: every way to leak, and that nothing unsound passes."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, DatasetRef, EvalSet, Scores, Splits
from schemas.checks import ContaminationSpec
from schemas.curation import DecontaminateSpec
from schemas.errors import GateError
from schemas.gates import GateRule, GatesSpec
from schemas.training import PromptSpec
from tasks.assess.contamination import check_contamination, check_declared_examples
from tasks.assess.gate import JudgedArms, decide
from tasks.assess.measured_checks import judge_contamination

CUT = datetime(2026, 6, 20, tzinfo=UTC)
Row = Mapping[str, Any]
MakeEvidence = Callable[..., CheckEvidence]


def words(start: int, n: int = 40) -> str:
    return " ".join(f"w{(start + k * k * 13 + k) % 4999}" for k in range(n))


def ticket(number: int, *, held_out: bool = False, **fields: Any) -> dict[str, Any]:
    written = CUT.replace(tzinfo=None) + timedelta(hours=1 if held_out else -1 - number)
    side = "h" if held_out else "t"
    return {
        "ticket_id": f"{side}{number}", "customer_id": f"{side}c{number}", "thread_id": f"{side}th{number}",
        "created_at": written, "body": words(number * 401 + (177 if held_out else 0)), "reply": "Settled.",
    } | fields  # fmt: skip


@pytest.fixture
def check(
    make_splits: Callable[..., Splits], make_items: Callable[..., EvalSet], new_folder: Callable[[], Path]
) -> MakeEvidence:
    def run(
        train: Sequence[Row], *, trained: Sequence[str] | None = None, n_train: int | None = None,
        calibrating: Sequence[Row] = (), **spec: Any,
    ) -> CheckEvidence:  # fmt: skip
        """Evidence about training on `trained` (all of train if not given) before 30 held-out items."""
        held_out = [ticket(number, held_out=True) for number in range(30)]
        splits = make_splits(train=train, test=held_out).model_copy(
            update={"group_by": ("customer_id", "thread_id"), "cut": CUT}
        )
        ids = [row["ticket_id"] for row in train] if trained is None else list(trained)
        root = new_folder()
        (root / "train").mkdir()
        table = pa.table({"ticket_id": pa.array(ids, pa.string())})
        path = root / "train" / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        dataset = DatasetRef(
            root=root, n_train=len(ids) if n_train is None else n_train, n_validation=0, n_tokens=1, n_supervised=1,
            n_dropped=0, max_tokens=1,
        )  # fmt: skip
        return check_contamination(
            dataset=dataset, splits=splits, items=make_items([row | {"answer": "Settled."} for row in held_out]),
            spec=ContaminationSpec(**spec), decontaminate=DecontaminateSpec(), planted_ids=("planted-0",),
            calibration=make_items([row | {"answer": "Settled."} for row in calibrating]) if calibrating else None,
            out=new_folder(),
        )  # fmt: skip

    return run


CLEAN = [ticket(number) for number in range(40)]


def codes(evidence: CheckEvidence) -> dict[str, str]:
    rows = pq.read_table(evidence.root / "evidence.parquet").to_pylist()
    return {row["ticket_id"]: row["code"] for row in rows}


def test_clean_training_has_no_leak_and_planted_examples_are_no_tickets(check: MakeEvidence) -> None:
    evidence = check(CLEAN, trained=[*(row["ticket_id"] for row in CLEAN), "planted-0"])
    assert codes(evidence) == {}
    assert evidence.values["trained"] == 40
    assert evidence.values["unprotected"] == 0


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("leak_exact", {"body": ticket(7, held_out=True)["body"].upper()}),
        ("leak_near", {"body": ticket(7, held_out=True)["body"] + " thanks"}),
        ("leak_quote", {"body": words(90001, 60) + " " + " ".join(ticket(7, held_out=True)["body"].split()[:30])}),
        ("leak_customer_id", {"customer_id": "hc7"}),
        ("leak_thread_id", {"thread_id": "hth7"}),
        ("leak_time", {"created_at": CUT.replace(tzinfo=None)}),
        ("leak_time", {"created_at": None}),
    ],
)
def test_each_way_to_leak_is_found_and_listed_without_text(
    check: MakeEvidence, code: str, change: dict[str, Any]
) -> None:
    leaking = ticket(3) | change
    evidence = check([row if row["ticket_id"] != "t3" else leaking for row in CLEAN])
    assert codes(evidence) == {"t3": code}
    assert evidence.examples == ("t3",)
    assert evidence.values[code] == 1
    table = pq.read_table(evidence.root / "evidence.parquet")
    assert table.column_names == ["ticket_id", "code", "kept_id", "score"]
    if code != "leak_time":
        assert table["kept_id"].to_pylist() == ["h7"]
    unread = check([row if row["ticket_id"] != "t3" else leaking for row in CLEAN], trained=["t1", "t2"])
    assert codes(unread) == {}  # no training read it


def test_a_paraphrase_of_several_pieces_is_found(check: MakeEvidence) -> None:
    body = ticket(7, held_out=True)["body"].split()
    pieces = [" ".join(body[start : start + 6]) for start in (0, 8, 16, 24, 32)]
    body = " ".join(f"{piece} {words(70000 + 31 * at, 3)}" for at, piece in enumerate(pieces))
    assert codes(check([*CLEAN, ticket(50, body=body)])) == {"t50": "leak_paraphrase"}


def test_an_item_and_an_unknown_id_among_the_encoded_examples_are_leaks(check: MakeEvidence) -> None:
    assert codes(check(CLEAN, trained=["t1", "h4", "nobody"])) == {"h4": "leak_item", "nobody": "leak_unknown"}


def test_a_ticket_that_calibrates_is_held_out_too(check: MakeEvidence) -> None:
    calibrating = [ticket(number, held_out=True) for number in range(30, 40)]
    body = calibrating[3]["body"]
    assert codes(check([*CLEAN, ticket(50, body=body)])) == {}
    assert codes(check([*CLEAN, ticket(50, body=body)], calibrating=calibrating)) == {"t50": "leak_exact"}
    assert codes(check([*CLEAN, ticket(50, customer_id="hc33")], calibrating=calibrating)) == {
        "t50": "leak_customer_id"
    }


def test_what_is_declared_apart_is_not_required(check: MakeEvidence) -> None:
    rows = [*CLEAN, ticket(50, customer_id="hc1"), ticket(51, created_at=None)]
    assert codes(check(rows, same=("thread_id",), time_order=False)) == {}


def test_examples_that_are_not_all_there_are_an_error(check: MakeEvidence) -> None:
    with pytest.raises(GateError, match=r"TG0603.*there are 40 encoded examples, but the training used 41"):
        check(CLEAN, n_train=41)


def test_a_leak_is_error_before_all_rules_and_missing_evidence_too(
    check: MakeEvidence, make_scores: Callable[..., Scores], new_folder: Callable[[], Path]
) -> None:
    def verdict(*checks: CheckEvidence) -> Any:
        rule = GateRule(metric="exact", value_threshold=0.5)
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {"exact": [1.0] * 100}), champion=None, baselines=(), checks=checks
            ),
            gates=GatesSpec(rules=(rule,), round_trip=None),
            out=new_folder(),
        )

    clean = check(CLEAN)
    assert verdict(clean).verdict == "PROMOTE"
    leaky = verdict(check([*CLEAN, ticket(50, customer_id="hc1")]))
    assert (leaky.verdict, leaky.findings[0].part, leaky.findings[0].candidate) == ("ERROR", "contamination", 1)
    assert "t50" in leaky.reason
    assert verdict().verdict == verdict(clean, clean).verdict == "ERROR"
    unknown = clean.model_copy(update={"values": clean.values | {"leak_near": None}})
    nothing = clean.model_copy(update={"values": clean.values | {"trained": 0.0}})
    broken = clean.model_copy(update={"values": clean.values | {"leak_quote": float("nan")}})
    assert verdict(unknown).verdict == verdict(nothing).verdict == verdict(broken).verdict == "ERROR"


@pytest.fixture
def check_declared(
    make_splits: Callable[..., Splits], make_items: Callable[..., EvalSet], new_folder: Callable[[], Path]
) -> MakeEvidence:
    held_out = [ticket(number, held_out=True, subject=None) for number in range(29)]
    held_out.append(ticket(29, held_out=True, subject=None, body=SHORT))
    splits = make_splits(train=CLEAN, test=held_out).model_copy(update={"group_by": ("customer_id",), "cut": CUT})
    items = make_items([row | {"answer": "Settled."} for row in held_out])

    calibrating = make_items([ticket(30, held_out=True, subject=None) | {"answer": "Settled."}])

    def run(rows: Sequence[Any] | None, *, user: str = "{body}") -> CheckEvidence:
        """Evidence about a model that was trained elsewhere on these rows."""
        root = new_folder()
        if rows is not None:
            (root / "learned.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
        return check_declared_examples(
            trained_on=() if rows is None else ("learned.jsonl",), splits=splits, items=items, root=root,
            spec=ContaminationSpec(), decontaminate=DecontaminateSpec(), prompt=PromptSpec(user=user), out=new_folder(),
            calibration=calibrating,
        )  # fmt: skip

    return run


def chat(*questions: str) -> dict[str, Any]:
    pairs = [(("user", each), ("assistant", "Ok.")) for each in questions]
    turns = [{"role": role, "content": text} for pair in pairs for role, text in pair]
    return {"messages": turns}


SHORT, ASKED = "lamp broken again", "Answer this ticket of our shop in one friendly sentence: "
HELD = ticket(7, held_out=True)["body"]


@pytest.mark.parametrize(
    ("code", "row", "user"),
    [
        ("leak_exact", chat(HELD.upper()), "{body}"),
        ("leak_exact", chat(HELD, words(90001)), "{body}"),  # an earlier question of a conversation
        ("leak_exact", {"prompt": f"{ASKED}{SHORT}", "completion": "Ok."}, f"{ASKED}{{body}}"),
        ("leak_exact", chat(ticket(30, held_out=True)["body"]), "{body}"),
        ("leak_quote", {"instruction": f"{words(90001, 60)} {HELD}", "output": "Ok."}, "{body}"),
        ("leak_item", ticket(8) | {"ticket_id": "h7"}, "{body}"),
        ("leak_customer_id", ticket(8) | {"customer_id": "hc7"}, "{body}"),
        ("leak_time", ticket(8) | {"created_at": "2026-07-01T00:00:00"}, "{body}"),
    ],
    ids=["upper case", "conversation", "prompt", "calibration", "quote", "id", "customer", "time"],
)
def test_declared_examples_of_any_form_are_compared(
    code: str, row: dict[str, Any], user: str, check_declared: MakeEvidence
) -> None:
    rows = [chat(words(number * 401)) for number in range(20)] if "messages" in row else []
    evidence = check_declared([*rows, row], user=user)
    assert list(codes(evidence).values()) == [code]
    assert evidence.values["trained"] == len(rows) + 1
    [finding] = judge_contamination(evidence, ContaminationSpec())
    assert finding.verdict == "ERROR"
    assert f"1 of {len(rows) + 1} examples of train.trained_on leak" in finding.reason


def test_examples_that_are_unread_or_not_declared_are_never_called_clean(check_declared: MakeEvidence) -> None:
    clean = [chat(words(number * 401)) for number in range(20)]
    [finding] = judge_contamination(check_declared(clean), ContaminationSpec())
    assert (finding.verdict, finding.decides) == ("PROMOTE", True)
    assert finding.reason.startswith("20 examples of train.trained_on were compared with 30 items")
    [finding] = judge_contamination(check_declared([*clean, {"messages": "damaged"}]), ContaminationSpec())
    assert finding.verdict == "ERROR"
    assert "1 rows of train.trained_on could not be read" in finding.reason
    [finding] = judge_contamination(check_declared(None), ContaminationSpec())
    assert (finding.verdict, finding.decides) == ("HOLD", False)
    assert finding.reason.startswith("contamination is unknown")
