"""The gate over files: its verdict is the run's, and files that are not shown to have the same items pass nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from flows.views.gate_check import CheckedFiles, check_files, declared_terms, remarks
from schemas.artifacts import EvalSet, ScoredArm, Scores
from schemas.diagnostics import ConfigErrors
from schemas.errors import ConfigError
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.score import write_scores

Rows = list[dict[str, Any]]

GATES = {
    "improve": "{rules: [{metric: exact, change_threshold: {mode: improve}}]}",
    "refresh": "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}}]}",
    "no_worse": "{rules: [{metric: exact, change_threshold: {mode: no_worse, margin: 0.03}}]}",
    "limits": (
        "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}},"
        " {metric: exact, value_threshold: 0.6, hard_limit: 0.4}], confidence: 0.9}"
    ),
    "baseline": (
        "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}},"
        " {metric: exact, change_threshold: {against: best_baseline, mode: improve}}]}"
    ),
    "slices": (
        "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}},"
        " {metric: exact, slice: category=c1, value_threshold: 0.3}], slices: {by: [category]}}"
    ),
    "clusters": (
        "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}}], cluster_by: customer_id}"
    ),
    "looks": (
        "{rules: [{metric: exact, change_threshold: {mode: refresh, margin: 0.02}}], looks: {max: 3},"
        " reuse: {budget: 4, spend: split}}"
    ),
    "continuous": "{rules: [{metric: judge, change_threshold: {mode: refresh, margin: 0.05}}]}",
}


@pytest.fixture
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("artifact")


def _write(path: Path, rows: Rows) -> str:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return str(path)


def _arms(seed: int, n: int, gain: float) -> dict[str, NDArray[np.float64]]:
    drawn = np.random.default_rng(seed)
    champion = drawn.random(n) < 0.7
    changed = drawn.random(n) < 0.15
    right = {name: np.where(changed, drawn.random(n) < 0.7 + more, champion) for name, more in
             (("tuned", 5 * gain), ("anchor", 0.0), ("few_shot", -1.0))}  # fmt: skip
    return {"tuned": right["tuned"] * 1.0, "champion": champion * 1.0, "anchor": right["anchor"] * 1.0,
            "few_shot": right["few_shot"] * 1.0}  # fmt: skip


def _rows(values: Sequence[float]) -> Rows:
    return [
        {
            "item_id": f"i{number:04}",
            "prompt": f"question {number}",
            "exact": int(value),
            "judge": 0.25 + value / 2 + (number % 7) / 100,
            "category": f"c{number % 4}",
            "customer_id": f"k{number // 3}",
        }
        for number, value in enumerate(values)
    ]


def _scores(arm: ScoredArm, rows: Rows, new_folder: Callable[[], Path]) -> Scores:
    ordered = sorted(rows, key=lambda row: str(row["item_id"]))
    scored = [(row["item_id"], {"exact": float(row["exact"]), "judge": row["judge"]}) for row in ordered]
    slices = [(row["item_id"], f"category={row['category']}") for row in ordered]
    return write_scores(scored, metrics=("exact", "judge"), slices=slices, arm=arm, out=new_folder())


@pytest.mark.parametrize("name", GATES)
def test_the_verdict_is_that_of_a_run_to_the_last_digit(
    name: str, tmp_path: Path, new_folder: Callable[[], Path]
) -> None:
    rules = tmp_path / "rules.yaml"
    declared = "[{name: judge, continuous: true}]"
    rules.write_text(f"gates: {GATES[name]}\nmetrics: {declared}\n")
    terms = declared_terms(rules=rules)
    assert terms is not None
    verdicts = set()
    for seed, (n, gain) in enumerate([(400, 0.02), (400, -0.02), (1000, 0.0), (1000, 0.03), (90, 0.02), (40, -0.1)]):
        rows = {arm: _rows(values.tolist()) for arm, values in _arms(seed, n, gain).items()}
        paths = {arm: _write(tmp_path / f"{arm}.jsonl", list(reversed(each))) for arm, each in rows.items()}
        checked = check_files(
            candidate=paths["tuned"],
            champion=paths["champion"],
            anchor=paths["anchor"],
            baselines={"few_shot": paths["few_shot"]},
            terms=terms,
        )
        items = new_folder()
        pq.write_table(pa.Table.from_pylist(sorted(rows["tuned"], key=lambda row: str(row["item_id"]))),
                       items / "items.parquet")  # fmt: skip
        decision = decide(
            new_folder(),
            judged=JudgedArms(
                candidate=_scores("tuned", rows["tuned"], new_folder),
                champion=_scores("champion", rows["champion"], new_folder),
                anchor=_scores("anchor", rows["anchor"], new_folder),
                baselines=(_scores("few_shot", rows["few_shot"], new_folder),),
                items=EvalSet(root=items, n_items=n, n_available=n) if name == "clusters" else None,
            ),
            gates=terms.gates,
            context=GateContext(champion_version="champion.jsonl", anchor_version="anchor.jsonl", traits=terms.metrics),
        )
        assert checked.decision.findings == decision.findings
        assert (checked.decision.verdict, checked.decision.reason) == (decision.verdict, decision.reason)
        verdicts.add(decision.verdict)
    assert len(verdicts) > 1, "the pairs must not all end alike"


def _shuffled(rows: Rows) -> None:
    ids = [row["item_id"] for row in rows]
    for row, item in zip(rows, ids[1:] + ids[:1], strict=True):
        row["item_id"] = item


def _fewer(rows: Rows) -> None:
    rows[:] = [row for row in rows if row["exact"]]


def _more(rows: Rows) -> None:
    rows += [{**rows[0], "item_id": "new", "exact": 1}]


def _twice(rows: Rows) -> None:
    rows += [{**row} for row in rows if row["exact"]]


def _other_prompts(rows: Rows) -> None:
    for row in rows[:20]:
        row["prompt"] = f"an easier {row['prompt']}"


def _prompts_missing(rows: Rows) -> None:
    for row in rows[:20]:
        row["prompt"] = None


def _other_references(rows: Rows) -> None:
    for row in rows:
        row["reference"] = "x" if row["exact"] else "y"


def _not_a_number(rows: Rows) -> None:
    for row in rows:
        row["exact"] = row["exact"] or None


def _repeated(rows: Rows) -> None:
    rows += [{**row, "repeat": 2} for row in rows if row["exact"]]


def _partial(rows: Rows) -> None:
    for row in rows:
        row["exact"] = row["exact"] or 0.9


def _metric_missing(rows: Rows) -> None:
    for row in rows:
        del row["exact"]


REDTEAM = (
    (_shuffled, "another prompt under the same id: 400 items: i0000, i0001"),
    (_fewer, "only the champion has"),
    (_more, "only the candidate has 1 item: new"),
    (_twice, "the candidate has twice"),
    (_other_prompts, "another prompt under the same id: 20 items"),
    (_prompts_missing, "another prompt under the same id: 20 items"),
    (_other_references, "another reference under the same id"),
    (_not_a_number, "the candidate has none for"),
    (_repeated, "another number of repeats"),
    (_metric_missing, "no scores of exact"),
)


def _check(tmp_path: Path, candidate: Rows, champion: Rows, **more: Any) -> CheckedFiles:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {GATES['refresh']}\n")
    return check_files(
        candidate=_write(tmp_path / "candidate.jsonl", candidate),
        champion=_write(tmp_path / "champion.jsonl", champion),
        terms=declared_terms(rules=rules),
        **more,
    )


def _pair(gain: float) -> Mapping[str, Rows]:
    return {
        arm: [row | {"reference": "z"} for row in _rows(values.tolist())] for arm, values in _arms(3, 400, gain).items()
    }


def test_a_better_candidate_passes_when_nothing_is_wrong(tmp_path: Path) -> None:
    rows = _pair(0.05)
    checked = _check(tmp_path, rows["tuned"], rows["champion"])
    assert checked.decision.verdict == "PROMOTE"
    assert checked.notes[0] == (
        "400 items of candidate and champion paired by id, 400 with equal prompts, 400 with equal references"
    )


@pytest.mark.parametrize(("spoil", "reason"), REDTEAM)
def test_what_is_not_shown_to_be_the_same_items_is_an_error(
    spoil: Callable[[Rows], None], reason: str, tmp_path: Path
) -> None:
    rows = _pair(0.05)
    spoil(rows["tuned"])
    decision = _check(tmp_path, rows["tuned"], rows["champion"]).decision
    assert decision.verdict == "ERROR"
    assert any(reason in finding.reason for finding in decision.findings), decision.reason


def test_values_that_are_nearly_right_do_not_pass_as_right_ones(tmp_path: Path) -> None:
    rows = _pair(0.0)
    _partial(rows["tuned"])
    assert _check(tmp_path, rows["tuned"][:200], rows["champion"][:200]).decision.verdict != "PROMOTE"


def test_at_most_ten_items_are_named(tmp_path: Path) -> None:
    rows = _pair(0.05)
    (finding,) = _check(tmp_path, rows["tuned"][:350], rows["champion"]).decision.findings
    assert finding.reason == (
        "only the champion has 50 items: i0350, i0351, i0352, i0353, i0354, i0355, i0356, i0357, i0358, i0359 and 40 "
        "more."
    )


def test_the_same_file_twice_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.jsonl", _pair(0.05)["tuned"])
    decision = check_files(candidate=path, champion=path, metric="exact").decision
    assert (decision.verdict, decision.findings[0].rule) == ("ERROR", "the files are two")


def test_a_metric_that_one_file_has_and_the_other_is_scored_by_is_an_error(tmp_path: Path) -> None:
    rows = _pair(0.05)
    given = [row | {"answer": "a", "reference": "z"} for row in rows["champion"]]
    scored = [{**row, "answer": "z" if row["exact"] else "a"} for row in rows["tuned"]]
    for row in scored:
        del row["exact"]
    decision = _check(tmp_path, scored, given).decision
    assert [finding.rule for finding in decision.findings] == ["exact is measured alike in both files"]


def test_an_answer_that_is_missing_is_named(tmp_path: Path) -> None:
    rows = {arm: [{"id": row["item_id"], "answer": "z" if row["exact"] else "a", "reference": "z"} for row in each]
            for arm, each in _pair(0.05).items()}  # fmt: skip
    rows["tuned"][7]["answer"] = None
    decision = _check(tmp_path, rows["tuned"], rows["champion"]).decision
    assert decision.verdict == "ERROR"
    assert decision.findings[0].reason == "the candidate lacks one of 1 item: i0007."


@pytest.mark.parametrize(("gate", "column"), [("slices", "category"), ("clusters", "customer_id")])
def test_other_slices_or_clusters_under_the_same_id_are_an_error(gate: str, column: str, tmp_path: Path) -> None:
    rows = _pair(0.05)
    rows["tuned"][0][column] = "other"
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {GATES[gate]}\n")
    decision = check_files(
        candidate=_write(tmp_path / "b.jsonl", rows["tuned"]),
        champion=_write(tmp_path / "a.jsonl", rows["champion"]),
        terms=declared_terms(rules=rules),
    ).decision
    assert decision.findings[0].reason == f"another {column} under the same id: 1 item: i0000."


def test_any_column_can_be_a_slice(tmp_path: Path) -> None:
    rows = _pair(0.05)
    for arm, each in rows.items():
        for number, row in enumerate(each):
            row["queue"] = ("late\ndelivery", "refund")[number % 2]
            if arm == "tuned" and number % 2:
                row["exact"] = 0
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {{{GATES['refresh'][1:-1]}, slices: {{by: [queue]}}}}\n")
    decision = check_files(
        candidate=_write(tmp_path / "b.jsonl", rows["tuned"]),
        champion=_write(tmp_path / "a.jsonl", rows["champion"]),
        terms=declared_terms(rules=rules),
    ).decision
    verdicts = {finding.slice: finding.verdict for finding in decision.findings if finding.slice}
    assert verdicts == {"queue=late delivery": "PROMOTE", "queue=refund": "BLOCK"}


def test_a_slip_in_the_name_of_a_metric_does_not_turn_its_direction(tmp_path: Path) -> None:
    rows = {arm: [{"id": row["item_id"], "loss": 1 - row["exact"]} for row in each] for arm, each in _pair(0).items()}
    paths = {arm: _write(tmp_path / f"{arm}.jsonl", each) for arm, each in rows.items()}
    with pytest.raises(ConfigError, match="no metric 'los' in the files"):
        check_files(candidate=paths["tuned"], champion=paths["champion"], lower_is_better=("los",))
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {GATES['refresh']}\nmetrics: [{{name: los, higher_is_better: false}}]\n")
    with pytest.raises(ConfigError, match="no metric 'los' in the files"):
        check_files(candidate=paths["tuned"], champion=paths["champion"], terms=declared_terms(rules=rules))


def test_a_copy_of_the_champion_in_another_order_is_held(tmp_path: Path) -> None:
    rows = _pair(0.05)
    assert _check(tmp_path, list(reversed(rows["champion"])), rows["champion"]).decision.verdict == "HOLD"


def test_equal_numbers_of_repeats_are_averaged(tmp_path: Path) -> None:
    rows = _pair(0.05)
    twice = {
        arm: [*each, *({**row, "repeat": 2, "exact": 1 - row["exact"]} for row in each)] for arm, each in rows.items()
    }
    checked = _check(tmp_path, twice["tuned"], twice["champion"])
    assert checked.means["tuned"]["exact"] == 0.5
    assert checked.decision.verdict == "HOLD"
    assert checked.decision.n_items == 400


def test_files_without_prompts_are_compared_with_a_note(tmp_path: Path) -> None:
    rows = {arm: [{"id": row["item_id"], "exact": row["exact"]} for row in each] for arm, each in _pair(0.05).items()}
    checked = _check(tmp_path, rows["tuned"], rows["champion"])
    assert "nothing shows that equal ids" in checked.notes[1]


def test_answers_are_scored_by_the_metrics_of_the_rules(tmp_path: Path) -> None:
    def answered(rows: Rows) -> Rows:
        return [
            {"id": row["item_id"], "answer": f"[{row['category'] if row['exact'] else 'none'}] Hello",
             "reference": "Hello", "category": row["category"]}
            for row in rows
        ]  # fmt: skip

    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "gates: {rules: [{metric: field_category, change_threshold: {mode: refresh, margin: 0.02}}]}\n"
        "evaluate: {fields: '\\[(?P<category>[a-z0-9]+)\\]'}\n"
    )
    rows = _pair(0.05)
    checked = check_files(
        candidate=_write(tmp_path / "b.jsonl", answered(rows["tuned"])),
        champion=_write(tmp_path / "a.jsonl", answered(rows["champion"])),
        terms=declared_terms(rules=rules),
    )
    assert checked.means["tuned"]["field_category"] == pytest.approx(np.mean([row["exact"] for row in rows["tuned"]]))
    assert checked.decision.verdict == "PROMOTE"


def test_without_rules_the_metric_must_be_clear(tmp_path: Path) -> None:
    rows = _pair(0.05)
    paths = {arm: _write(tmp_path / f"{arm}.jsonl", each) for arm, each in rows.items()}
    with pytest.raises(ConfigError, match="no rule says which metric is compared; there are: exact, judge") as refused:
        check_files(candidate=paths["tuned"], champion=paths["champion"])
    assert "--metric NAME" in str(refused.value.hint)
    with pytest.raises(ConfigError, match="no metric 'exat'"):
        check_files(candidate=paths["tuned"], champion=paths["champion"], metric="exat")
    checked = check_files(candidate=paths["tuned"], champion=paths["champion"], metric="exact")
    assert checked.terms.origin == "default for 400 items"


def test_less_may_be_better(tmp_path: Path) -> None:
    rows = _pair(0.05)
    wrong = {arm: [{"id": row["item_id"], "wrong": 1 - row["exact"]} for row in each] for arm, each in rows.items()}
    paths = {arm: _write(tmp_path / f"{arm}.jsonl", each) for arm, each in wrong.items()}
    verdicts = [
        check_files(candidate=paths["tuned"], champion=paths["champion"], lower_is_better=less).decision.verdict
        for less in ((), ("wrong",))
    ]
    assert verdicts == ["BLOCK", "PROMOTE"]
    turned = check_files(candidate=paths["tuned"], champion=paths["champion"], lower_is_better=("wrong",))
    assert "less is better: wrong" in remarks(turned)


def test_clusters_of_the_file_are_counted_by_default(tmp_path: Path) -> None:
    rows = {arm: [{"id": row["item_id"], "exact": row["exact"], "cluster": row["customer_id"]} for row in each]
            for arm, each in _pair(0.05).items()}  # fmt: skip
    paths = {arm: _write(tmp_path / f"{arm}.jsonl", each) for arm, each in rows.items()}
    (finding,) = check_files(candidate=paths["tuned"], champion=paths["champion"]).decision.findings
    assert "cluster_" in finding.method


@pytest.mark.parametrize("dropped_by", ["tuned", "champion"])
@pytest.mark.parametrize("declared", [False, True])
def test_a_file_without_the_clusters_of_the_other_is_an_error(declared: bool, dropped_by: str, tmp_path: Path) -> None:
    """Else a candidate would be judged without them, which promotes by chance more often."""
    column = "customer_id" if declared else "cluster"
    rows = {arm: [{"id": row["item_id"], "exact": row["exact"], column: row["customer_id"]} for row in each]
            for arm, each in _pair(0.05).items()}  # fmt: skip
    for row in rows[dropped_by]:
        del row[column]
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {GATES['clusters']}\n")
    paths = {arm: _write(tmp_path / f"{arm}.jsonl", each) for arm, each in rows.items()}
    decision = check_files(
        candidate=paths["tuned"],
        champion=paths["champion"],
        terms=declared_terms(rules=rules) if declared else None,
    ).decision
    assert decision.verdict == "ERROR"
    (finding,) = decision.findings
    arm = "candidate" if dropped_by == "tuned" else dropped_by
    assert finding.reason == f"the {arm} has no {column}, and another file does; write the column into each file."


def test_a_declared_check_is_left_out_only_when_told_so(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"gates: {GATES['refresh'][:-1]}, latency: {{}}}}\n")
    with pytest.raises(ConfigError, match="declares latency, which files of results cannot show"):
        declared_terms(rules=rules)
    terms = declared_terms(rules=rules, without=("latency",))
    assert terms is not None
    assert terms.gates.latency is None
    assert "latency" in terms.left_out
    with pytest.raises(ConfigError, match="no check 'latncy' to leave out"):
        declared_terms(rules=rules, without=("latncy",))


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("gates: {rules: []}", 1, "`gates.rules` should hold at least 1 item, got an empty list", None),
        (
            "gates:\n  rules:\n    - {metric: exact, value_threshold: .nan}", 3,
            "`gates.rules[0].value_threshold` should be a finite number, got nan", None,
        ),
        (
            "gates: {rules: [{metric: exact, value_threshold: true}]}", 1,
            "`gates.rules[0].value_threshold` should be a number, got true", None,
        ),
        ("metrics: []", 1, "missing key `gates`", None),
        ("gates: rules", 1, "`gates` should be a mapping of keys to values", "write `gates: {KEY: VALUE}`"),
        (
            "gates: {rules: [{metric: exact, change_threshold: {mode: refesh}}]}", 1,
            "`gates.rules[0].change_threshold.mode` should be", "did you mean `refresh`?",
        ),
        ("gates: {rules: [{metric: exact, value_treshold: 1}]}", 1, "unknown key", "did you mean `value_threshold`?"),
        ("gate: {rules: []}", 1, "unknown key `gate`", "did you mean `gates`?"),
        (
            "gates: {rules: [{metric: exact, value_threshold: '${env:NOT_SET_ANYWHERE}'}]}", 1,
            "environment variable NOT_SET_ANYWHERE is not set", "export it",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_of_rules_names_the_place(
    text: str, line: int, message: str, hint: str | None, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(text)
    with pytest.raises(ConfigErrors) as refused:
        declared_terms(rules=rules)
    found = [each for each in refused.value.diagnostics if message in each.message]
    assert found, str(refused.value)
    assert found[0].span is not None
    assert found[0].span.line == line
    assert hint is None or hint in (found[0].help or "")


def test_a_file_of_pipelines_is_no_file_of_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("pipelines: {}")
    with pytest.raises(ConfigError, match="it declares pipelines"):
        declared_terms(rules=rules)


def test_an_unknown_baseline_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", _pair(0.0)["tuned"])
    with pytest.raises(ConfigError, match="no baseline 'gpt'"):
        check_files(candidate=path, champion=path, baselines={"gpt": path})
