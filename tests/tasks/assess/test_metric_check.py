"""A metric that scores wrong answers as well as right ones promotes nothing by itself."""

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import CheckEvidence, EvalSet, GateDecision, Scores
from schemas.comparison import declared_comparison
from schemas.errors import ConfigError
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.metric_check import check_metrics, own_metrics, try_metrics
from tasks.storage.warehouse import _named_rejections, select_from_files
from tests.support.specs import pipeline_spec

N = 120
EQUAL = "SELECT p.item_id, (p.text = i.answer)::INT AS value FROM predictions p JOIN items i USING (item_id)"


def gated(select: str, *, mode: str = "no_worse", higher: bool = True, also: Sequence[Any] = (), **gates: Any) -> Any:
    """A pipeline with this metric as its only comparison.

    Args:
        also: Other metrics.
    """
    change = {"mode": mode} if mode == "improve" else {"mode": mode, "margin": 0.05}
    own = {"uses": "sql", "name": "own", "select": select, "higher_is_better": higher}
    return pipeline_spec(
        evaluate={"metrics": [*also, own]},
        gates={
            "contamination": None, "round_trip": None, "anchor": None, "min_items": 1,
            "rules": [{"metric": "own", "change_threshold": change}], **gates,
        },
    )  # fmt: skip


@pytest.fixture
def items(make_items: Callable[..., EvalSet]) -> EvalSet:
    return make_items([{"ticket_id": f"i{n:06d}", "answer": f"queue {n % 7}"} for n in range(N)])


@pytest.fixture
def check(items: EvalSet, new_folder: Callable[[], Path]) -> Callable[[Any], CheckEvidence]:
    return lambda spec: check_metrics(out=new_folder(), items=items, evaluate=spec.evaluate)


@pytest.fixture
def judge(
    check: Callable[[Any], CheckEvidence], make_scores: Callable[..., Scores], new_folder: Callable[[], Path]
) -> Callable[..., GateDecision]:
    def run(spec: Any, candidate: list[float], champion: list[float], *, checked: bool = True) -> GateDecision:
        def scores(arm: str, values: list[float]) -> Scores:
            return make_scores(arm, {"own": values, "chrf": [value / 2 for value in values]})

        gates = spec.judged_gates
        return decide(
            judged=JudgedArms(
                candidate=scores("tuned", candidate),
                champion=scores("champion", champion),
                baselines=(),
                checks=(check(spec),) if checked else (),
            ),
            gates=gates,
            context=GateContext(
                champion_version="3",
                traits=spec.evaluate.traits(),
                declared_comparison=declared_comparison(gates, spec.evaluate),
            ),
            out=new_folder(),
        )

    return run


@pytest.mark.parametrize(
    ("select", "means"),
    [
        ("SELECT item_id, 1 AS value FROM predictions", (1, 1, 1)),
        ("SELECT item_id, (text <> '')::INT AS value FROM predictions", (1, 1, 0)),
        ("SELECT item_id, (text LIKE 'queue _')::INT AS value FROM predictions", (1, 1, 0)),
        ("SELECT item_id, (n_new_tokens < 50)::INT AS value FROM predictions", (1, 1, 1)),
        ("SELECT item_id, (loss < 2)::INT AS value FROM predictions", (0, 0, 0)),
        # An empty answer names no wrong queue.
        (EQUAL.replace("p.text = i.answer", "p.text = '' OR p.text = i.answer"), (1, 0, 1)),
    ],
)
def test_a_metric_that_wrong_answers_meet_as_well_is_held(
    select: str, means: tuple[int, ...], judge: Callable[..., GateDecision], check: Callable[[Any], CheckEvidence]
) -> None:
    spec = gated(select)
    values = check(spec).values
    assert tuple(values[f"own_{name}"] for name in ("reference", "swapped", "empty")) == means
    decision = judge(spec, [1.0] * N, [1.0] * N)
    assert decision.verdict == "HOLD"
    assert "own is" in decision.reason
    assert "compare by a metric that distinguishes them" in decision.reason
    better = judge(gated(select, mode="improve"), [1.0] * N, [0.0] * N)
    assert better.verdict == "HOLD", "more of what is no answer is no better"


def test_a_metric_that_favours_the_right_answers_makes_the_comparison(judge: Callable[..., GateDecision]) -> None:
    decision = judge(gated(EQUAL), [1.0] * N, [1.0] * N)
    assert decision.verdict == "PROMOTE"
    assert decision.findings[-1].reason == (
        "own is 1.000 for the reference answers, 0.000 for those of other items, 0.000 for several of them joined and "
        "0.000 for empty ones."
    )
    wrong = judge(gated(EQUAL.replace("=", "<>", 1), higher=False), [0.0] * N, [0.0] * N)
    assert wrong.verdict == "PROMOTE", "lower is better"
    upside_down = judge(gated(EQUAL.replace("=", "<>", 1)), [1.0] * N, [1.0] * N)
    assert upside_down.verdict == "HOLD"


LABEL = {"first": "regexp_extract(p.text, 'queue .')", "last": "right(p.text, 7)"}


@pytest.mark.parametrize(
    "read", ["p.text LIKE '%' || i.answer || '%'", *(f"{each} = i.answer" for each in LABEL.values())]
)
def test_an_answer_that_lists_all_labels_is_not_as_right_as_the_label(
    read: str, judge: Callable[..., GateDecision], check: Callable[[Any], CheckEvidence]
) -> None:
    spec = gated(EQUAL.replace("p.text = i.answer", read), mode="improve")
    values, anywhere = check(spec).values, "LIKE" in read
    assert values["own_joined"] == (1 if anywhere else 0)
    decision = judge(spec, [1.0] * N, [0.0] * N)
    assert decision.verdict == ("HOLD" if anywhere else "PROMOTE")
    assert ("1.000 for several of them joined" in decision.reason) == anywhere


@pytest.mark.needs_extra("metrics")
def test_chrf_and_overlap_favour_one_reference_over_several(
    make_items: Callable[..., EvalSet], new_folder: Callable[[], Path]
) -> None:
    rows = [{"ticket_id": f"i{n:06d}", "answer": f"[queue {n % 7}]\nWe repaired part {n * n}."} for n in range(N)]
    spec = pipeline_spec(evaluate={"metrics": [{"uses": "rouge", "variant": "rouge_l"}]})
    values = check_metrics(out=new_folder(), items=make_items(rows), evaluate=spec.evaluate).values
    assert (values["rouge_l_reference"] or 0) > (values["rouge_l_joined"] or 1) + 0.3


def test_the_difference_must_be_more_than_the_rule_tolerates(judge: Callable[..., GateDecision]) -> None:
    five_of_120 = EQUAL.replace("p.text = i.answer", "i.item_id > 'i000004' OR p.text = i.answer")
    held = judge(gated(five_of_120), [1.0] * N, [1.0] * N)
    assert held.verdict == "HOLD"
    assert "and a loss of 0.05 is tolerated: a margin under 0.0417 would do. Wrong answers may pass" in held.reason
    assert judge(gated(five_of_120, mode="improve"), [1.0] * N, [0.0] * N).verdict == "PROMOTE"


def test_a_metric_that_has_nothing_to_do_with_the_answers_favours_the_right_ones_by_chance_only(
    judge: Callable[..., GateDecision],
) -> None:
    for salt in range(4):
        drawn = f"SELECT item_id, (md5(item_id || text || '{salt}') < '8')::INT AS value FROM predictions"
        lost = judge(gated(drawn, mode="improve"), [1.0] * N, [0.0] * N)
        assert lost.verdict == "HOLD", salt
    assert "which may be chance" in lost.reason


@pytest.mark.parametrize("answer", ["[{label}] {number} of the days", '{{"label": "{label}", "days": {number}}}'])
def test_answers_of_other_items_differ_in_more_than_their_last_words(
    answer: str, make_items: Callable[..., EvalSet], new_folder: Callable[[], Path]
) -> None:
    labels = ["billing", "delivery", "returns"]
    rows = [{"category": labels[n % 3], "answer": answer.format(label=labels[n % 3], number=n)} for n in range(N)]
    items = make_items([{"ticket_id": f"i{n:06d}", **row} for n, row in enumerate(rows)])
    label = EQUAL.replace("p.text = i.answer", "contains(p.text, i.category)")
    values = check_metrics(out=new_folder(), items=items, evaluate=gated(label).evaluate).values
    assert (values["own_reference"], values["own_swapped"]) == (1, 0)


def test_items_that_only_the_slices_count_give_no_metric_a_lead(
    make_items: Callable[..., EvalSet], new_folder: Callable[[], Path]
) -> None:
    items = make_items([{"ticket_id": f"i{n:06d}", "answer": "x" * (n + 1)} for n in range(N)])
    table = pq.read_table(items.root / "items.parquet")
    extra = pa.array([n % 4 == 0 for n in range(N)])
    pq.write_table(table.append_column("only_for_slices", extra), items.root / "items.parquet")
    length = gated("SELECT item_id, (length(text) > 30)::INT AS value FROM predictions", mode="improve")
    evidence = check_metrics(out=new_folder(), items=items, evaluate=length.evaluate)
    assert evidence.n_items == 90
    assert evidence.values["own_swapped"] == evidence.values["own_reference"]


def test_without_the_evidence_there_is_no_verdict(judge: Callable[..., GateDecision]) -> None:
    assert judge(gated(EQUAL), [1.0] * N, [1.0] * N, checked=False).verdict == "ERROR"


def test_a_metric_that_fails_on_an_empty_answer_is_held(judge: Callable[..., GateDecision]) -> None:
    fails = EQUAL.replace("(p.text = i.answer)", "(CASE p.text WHEN '' THEN error('x') ELSE p.text = i.answer END)")
    decision = judge(gated(fails), [1.0] * N, [1.0] * N)
    assert decision.verdict == "HOLD"
    assert "own has no value for empty ones: its code must return a number for any answer. Wrong" in decision.reason


def test_a_metric_that_fails_hides_no_other(check: Callable[[Any], CheckEvidence]) -> None:
    fails = {"uses": "sql", "name": "fails", "select": "SELECT item_id, error('x') AS value FROM predictions"}
    values = check(gated(EQUAL, also=[fails])).values
    assert (values["fails_reference"], values["own_reference"]) == (None, 1)


@pytest.mark.parametrize(
    ("gates", "checked"),
    [
        ({}, ("own",)),
        ({"compare": {"metric": "chrf"}}, ()),
        ({"compare": {"metric": "wide"}}, ("own", "wide")),
        # The range of a metric that `compare` names need not be known.
        ({"rules": [{"metric": "own", "value_threshold": 0.5}], "compare": {"metric": "wide"}}, ("wide",)),
        # A rule compares, so `compare` may name a metric of form: it makes no comparison.
        ({"compare": {"metric": "finished"}}, ("own",)),
        ({"rules": [{"metric": "own", "value_threshold": 0.5}]}, ("own",)),
        ({"rules": [{"metric": "exact", "change_threshold": {"mode": "improve"}}]}, ()),
        ({"rules": [{"metric": "own", "value_threshold": 0.5}], "compare": {"off": "a pilot"}}, ()),
    ],
)
def test_only_a_metric_of_the_users_that_alone_compares_is_checked(
    gates: Mapping[str, Any], checked: tuple[str, ...]
) -> None:
    wide = {"uses": "sql", "name": "wide", "continuous": True, "select": EQUAL}
    spec = gated(EQUAL, also=[wide], **gates)
    assert declared_comparison(spec.judged_gates, spec.evaluate) == checked


def test_a_full_disk_is_no_fault_of_the_metric(
    check: Callable[[Any], CheckEvidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("tasks.assess.metric_check.score_answers", full)
    with pytest.raises(OSError, match="no space left"):
        check(gated(EQUAL))


def test_a_disk_that_fails_under_the_metrics_sql_is_no_fault_of_the_metric(
    check: Callable[[Any], CheckEvidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = 2

    def failing_select(*given: Any, **more: Any) -> Any:
        nonlocal failing
        failing -= 1
        if failing:
            return select_from_files(*given, **more)
        with _named_rejections((), "metric own"):
            raise duckdb.IOException('IO Error: Could not read from file "items.parquet": Input/output error')

    monkeypatch.setattr("tasks.storage.warehouse.select_from_files", failing_select)
    with pytest.raises(ConfigError, match="IOException"):
        check(gated(EQUAL))


def test_a_metric_that_raises_on_a_reference_answer_is_found_without_a_model(
    items: EvalSet, new_folder: Callable[[], Path]
) -> None:
    def attempt(select: str) -> None:
        own = own_metrics(gated(select).evaluate)
        assert own is not None
        try_metrics(new_folder(), items=items, evaluate=own)

    attempt(EQUAL)
    with pytest.raises(ConfigError, match="TG0199"):
        attempt("SELECT item_id, answer::INT AS value FROM items")  # `queue 3` is no number
    assert own_metrics(pipeline_spec().evaluate) is None
