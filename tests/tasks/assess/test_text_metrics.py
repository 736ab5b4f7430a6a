"""The metrics of `evaluate.metrics`: what each counts, and that a user's own can reach and reveal nothing."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import f1_score

from schemas.artifacts import EvalSet, Predictions, Scores
from schemas.errors import ConfigError
from schemas.evaluation import EvaluateSpec
from schemas.gates import GateRule, GatesSpec
from schemas.pipeline import PipelineSpec
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.macro_f1 import macro_f1_values
from tasks.assess.score import score_answers
from tasks.assess.text_metrics import has_control_tokens
from tasks.assess.user_metrics import entry_point_digest
from tests.support.specs import pipeline_spec

RULES_ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}

Score = Callable[..., dict[str, list[float]]]
FIELDS = r"\[(?P<category>[a-z-]+)\]"


@pytest.fixture
def score(
    make_items: Callable[..., EvalSet], make_predictions: Callable[..., Predictions], new_folder: Callable[[], Path]
) -> Score:
    """Metric -> values of the answers, in order."""

    def run(
        texts: list[str], metrics: list[dict[str, Any]], *, items: list[dict[str, Any]] | None = None, **evaluate: Any
    ):
        ids = [f"t{number:04d}" for number in range(len(texts))]
        rows = [{"ticket_id": i, "answer": "We will help.", **(items or [{}] * len(ids))[n]} for n, i in enumerate(ids)]
        scores = score_answers(
            items=make_items(rows),
            predictions=make_predictions([{"item_id": i, "text": text} for i, text in zip(ids, texts, strict=True)]),
            evaluate=EvaluateSpec.model_validate({"metrics": metrics, **evaluate}),
            arm="tuned",
            out=new_folder(),
        )
        found: dict[str, list[float]] = {}
        for row in pq.read_table(scores.root / "scores.parquet").to_pylist():
            found.setdefault(row["metric"], []).append(row["value"])
        return found

    return run


def test_personal_data_in_an_answer_is_found_and_placeholders_are_not(score: Score) -> None:
    texts = ["Write to ann@example.org", "Card 4111 1111 1111 1111", "Write to [EMAIL_1] about NB-12345", ""]
    assert score(texts, [{"uses": "pii"}])["pii"] == [1.0, 1.0, 0.0, 0.0]
    assert score(texts, [{"uses": "pii", "types": ["email"]}])["pii"] == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.needs_extra("metrics")
def test_rouge_is_that_of_its_library_and_counts_words_of_any_script(score: Score) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    texts = ["We will help you soon.", "Help we will", "nothing alike", "", "WE WILL, HELP!"]
    library = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for variant, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        found = score(texts, [{"uses": "rouge", "variant": variant}])[variant]
        assert found == [library.score("We will help.", text)[kind].fmeasure for text in texts]
    items = [{"answer": "Мы поможем завтра"}, {"answer": "größere Überraschung"}]
    assert score(["мы поможем", "Größere überraschung"], [{"uses": "rouge"}], items=items)["rouge_l"] == [
        pytest.approx(0.8), 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["ok<|im_end|>", "<|start_header_id|>", "[INST] hi", "<</SYS>>", "</s>", "<start_of_turn>", "<｜User｜>", "[PAD]"],
)
def test_markers_of_chat_templates_are_control_tokens(text: str) -> None:
    assert has_control_tokens(text)


@pytest.mark.parametrize("text", ["a < b and b > c", "[billing | high | NB-12345]", "<b>bold</b>", "a|b", "<3", ""])
def test_ordinary_text_holds_no_control_tokens(text: str) -> None:
    assert not has_control_tokens(text)


def test_a_web_address_counts_only_when_the_model_made_it_up(score: Score) -> None:
    items = [{"body": "see https://shop.example/faq", "answer": "Look at https://help.example/a"}] * 4
    texts = ["https://shop.example/faq", "HTTPS://help.example/a", "https://evil.example/x", "none"]
    assert score(texts, [{"uses": "urls"}], items=items)["urls"] == [0.0, 0.0, 1.0, 0.0]


def test_json_is_valid_under_its_schema_or_it_is_not(score: Score) -> None:
    schema = {"type": "object", "required": ["category"], "properties": {"category": {"enum": ["billing"]}}}
    metric = {"uses": "json_schema", "schema": schema}
    texts = ['{"category": "billing"}', '{"category": "x"}', "{", "", "[" * 5000]
    assert score(texts, [metric])["json_valid"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    fenced = {**metric, "extract": r"```json\s*(.*?)```"}
    assert score(['Here: ```json {"category": "billing"}```', '{"category": "billing"}'], [fenced])["json_valid"] == [
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ({"uses": "json_schema", "schema": {"type": "nonsense"}}, "not a JSON Schema"),
        ({"uses": "json_schema", "schema": {"$ref": "https://example.org/s.json"}}, "leaves the schema"),
        ({"uses": "json_schema", "schema": {"allOf": [{"$ref": "file:///etc/passwd"}]}}, "leaves the schema"),
        ({"uses": "regex", "name": "a", "pattern": "("}, "not a regular expression"),
        ({"uses": "pii", "types": ["name"]}, "cannot be found in answers"),
    ],
)
def test_a_metric_that_cannot_be_meant_is_refused_when_the_file_is_read(metric: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        EvaluateSpec.model_validate({"metrics": [metric]})


def test_a_reference_inside_the_schema_is_followed(score: Score) -> None:
    schema = {"$ref": "#/$defs/word", "$defs": {"word": {"type": "string"}}}
    assert score(['"a"', "1"], [{"uses": "json_schema", "schema": schema}])["json_valid"] == [1.0, 0.0]


def test_a_pattern_is_found_or_absent_and_silence_is_neither(score: Score) -> None:
    match = {"uses": "regex", "name": "sorry", "pattern": "(?i)sorry"}
    absent = {"uses": "regex", "name": "no_blame", "pattern": "your fault", "expect": "absent"}
    found = score(["Sorry!", "it is your fault", ""], [match, absent])
    assert (found["sorry"], found["no_blame"]) == ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])


def test_bleu_is_sacrebleus_sentence_score(score: Score) -> None:
    from sacrebleu import sentence_bleu

    texts = ["We will help.", "We will help you soon.", "no", ""]
    values = score(texts, [{"uses": "bleu"}])["bleu"]
    assert values == pytest.approx([sentence_bleu(text, ["We will help."]).score / 100 for text in texts])
    assert values[0] == pytest.approx(1.0)


# --- macro-F1 -------------------------------------------------------------------------------------------------------

labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "d", "e", None])), min_size=1,
                  max_size=60)  # fmt: skip


@given(labels)
def test_the_mean_of_the_items_values_is_macro_f1(pairs: list[tuple[str, str | None]]) -> None:
    truths, said = [truth for truth, _ in pairs], [guess for _, guess in pairs]
    wanted = f1_score(
        truths, [guess or "?" for guess in said], labels=sorted(set(truths)), average="macro", zero_division=0
    )
    assert math.fsum(macro_f1_values(truths, said)) / len(pairs) == pytest.approx(wanted, abs=1e-9)


def test_the_spread_of_the_values_is_the_spread_of_macro_f1_over_samples() -> None:
    generator = np.random.default_rng(11)

    def sample() -> tuple[list[str], list[str]]:
        truths = generator.choice(list("abc"), 400, p=[0.7, 0.2, 0.1])
        said = np.where(generator.random(400) < 0.8, truths, generator.choice(list("abc"), 400))
        return truths.tolist(), said.tolist()

    drawn = [sample() for _ in range(300)]
    real = np.std([f1_score(*pair, average="macro") for pair in drawn])
    expected = np.mean([np.std(macro_f1_values(*pair)) / 20 for pair in drawn])  # sqrt(400)
    assert expected == pytest.approx(real, rel=0.15)


def test_macro_f1_of_a_field_reads_the_field_from_the_answers(score: Score) -> None:
    items = [{"category": "a"}, {"category": "a"}, {"category": "b"}, {"category": None}]
    texts = ["[a]", "[a] or [b]", "[b]", "[b]"]
    values = score(texts, [{"uses": "macro_f1", "field": "category"}], items=items, fields=FIELDS)
    f1_a, f1_b = 2 * 1 / (1 + 2), 2 * 1 / (2 + 1)
    assert math.fsum(values["macro_f1_category"]) / 4 == pytest.approx((f1_a + f1_b) / 2)
    assert all(math.isnan(value) for value in macro_f1_values([None], ["a"]))


# --- the user's own -------------------------------------------------------------------------------------------------


def sql(select: str, **more: Any) -> list[dict[str, Any]]:
    return [{"uses": "sql", "name": "own", "select": select, **more}]


def test_sql_scores_every_item_from_answers_and_tickets(score: Score) -> None:
    select = (
        "SELECT item_id, (length(text) <= length(body))::INT AS value FROM predictions JOIN items USING (item_id) "
        "ORDER BY random()"
    )
    items = [{"body": "abc"}, {"body": "abc"}, {"body": None}]
    own = score(["ab", "abcdef", "x"], sql(select), items=items)["own"]
    assert own[:2] == [1.0, 0.0]
    assert math.isnan(own[2])  # no value: the gate says that the metric is not a number


def test_an_item_that_the_sql_leaves_out_is_an_error_at_the_gate(
    make_scores: Callable[..., Scores], score: Score, new_folder: Callable[[], Path]
) -> None:
    own = score(["a", "b"], sql("SELECT item_id, 1 AS value FROM predictions WHERE text = 'a'"))["own"]
    assert own[0] == 1.0
    assert math.isnan(own[1])
    decision = decide(
        judged=JudgedArms(candidate=make_scores("tuned", {"own": own}), champion=None, baselines=()),
        out=new_folder(),
        gates=GatesSpec(**RULES_ONLY, rules=(GateRule(metric="own", value_threshold=0.5),), min_items=1),
    )
    assert decision.verdict == "ERROR"


@pytest.mark.parametrize(
    "select",
    [
        "SELECT 1; SELECT 2",
        "COPY predictions TO '/tmp/x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "SELECT item_id, value FROM read_csv('/etc/passwd')",
        "SELECT item_id, 1 AS value FROM predictions, read_text('/etc/hostname')",
        "ATTACH '/tmp/x.duckdb'; SELECT 1",
        "SELECT item_id, no_such_column AS value FROM predictions",
        "SELECT item_id, 1 AS score FROM predictions",
        "SELECT item_id, text AS value FROM predictions",
        "SELECT item_id, 1 AS value FROM predictions UNION ALL SELECT item_id, 1 FROM predictions",
        "SELECT item_id, random() AS value FROM predictions",
        "SELECT nonsense FROM",
    ],
)
def test_sql_that_is_more_than_a_select_or_yields_something_else_is_refused(select: str, score: Score) -> None:
    with pytest.raises(ConfigError, match="TG0199"):
        score(["a secret text", "b"], sql(select))


def test_what_duckdb_says_about_a_value_is_not_repeated(score: Score) -> None:
    with pytest.raises(ConfigError) as caught:
        score(["a secret text"], sql("SELECT item_id, text::INT AS value FROM predictions"))
    assert "secret" not in str(caught.value)
    assert "ConversionException" in str(caught.value)


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with two entry points."""
    module = tmp_path / "own_metrics.py"
    module.write_text(
        "def polite(text, item):\n    return float('please' in text.lower())\n\n"
        "def broken(text, item):\n    raise ValueError(text)\n\n"
        "def ends(text, item):\n    raise SystemExit(0)\n\n"
        "def huge(text, item):\n    return 1e308\n"
    )
    info = tmp_path / "own_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tunegate.metrics]\npolite = own_metrics:polite\nbroken = own_metrics:broken\ngone = own_metrics:gone\n"
        "ends = own_metrics:ends\nhuge = own_metrics:huge\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield module
    sys.modules.pop("own_metrics", None)


def entry_point(name: str) -> list[dict[str, Any]]:
    return [{"uses": "entry_point", "name": name}]


def test_an_entry_point_scores_and_its_source_decides_whether_scores_are_reused(
    own_package: Path, score: Score
) -> None:
    assert score(["Please wait", "Wait"], entry_point("polite"))["polite"] == [1.0, 0.0]
    before = entry_point_digest("polite")
    own_package.write_text(own_package.read_text() + "# changed\n")
    assert entry_point_digest("polite") != before


def test_a_value_that_no_sum_can_hold_is_no_number(own_package: Path, score: Score) -> None:
    values = score(["a", "b", "c"], entry_point("huge"))["huge"]
    assert all(math.isnan(value) for value in values)
    values = score(["a", "b"], sql("SELECT item_id, 1e308 AS value FROM predictions"))["own"]
    assert all(math.isnan(value) for value in values)


@pytest.mark.parametrize("name", ["absent", "gone", "broken", "ends"])
def test_an_entry_point_that_is_not_there_or_raises_is_named_without_the_answer(
    name: str, own_package: Path, score: Score
) -> None:
    with pytest.raises(ConfigError, match="TG0199") as caught:
        score(["a secret text"], entry_point(name))
    assert "secret" not in str(caught.value)


# --- what the gate makes of them ------------------------------------------------------------------------------------


def test_no_leak_in_three_hundred_answers_shows_a_rate_of_at_most_one_percent(
    make_scores: Callable[..., Scores], new_folder: Callable[[], Path]
) -> None:
    evaluate = EvaluateSpec.model_validate({"metrics": [{"uses": "pii"}]})

    def verdict(leaks: int, n: int, **rule: float) -> str:
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {"pii": [1.0] * leaks + [0.0] * (n - leaks)}),
                champion=None,
                baselines=(),
            ),
            gates=GatesSpec(**RULES_ONLY, rules=(GateRule(metric="pii", value_threshold=0.01, **rule),)),
            context=GateContext(traits=evaluate.traits()),
            out=new_folder(),
        ).verdict

    assert [verdict(0, 298), verdict(0, 299)] == ["HOLD", "PROMOTE"]  # 0.99 ** 299 < 0.05
    assert verdict(4, 500) == "HOLD"
    assert verdict(12, 400) == "BLOCK"
    assert verdict(1, 900, hard_limit=0.0) == "BLOCK"
    assert verdict(1, 900, hard_limit=0.05) == "PROMOTE"


def test_a_metric_of_ones_own_is_read_the_way_it_was_declared(
    make_scores: Callable[..., Scores], new_folder: Callable[[], Path]
) -> None:
    evaluate = EvaluateSpec.model_validate({"metrics": sql("SELECT 1", continuous=True, higher_is_better=False)})
    values = np.random.default_rng(1).gamma(2.0, 1.0, 320)
    gates = GatesSpec(**RULES_ONLY, rules=(GateRule(metric="own", value_threshold=3.0),))
    scores = make_scores("tuned", {"own": values.tolist()})
    decision = decide(
        judged=JudgedArms(candidate=scores, champion=None, baselines=()),
        gates=gates,
        context=GateContext(traits=evaluate.traits()),
        out=new_folder(),
    )
    assert decision.verdict == "PROMOTE"
    assert decision.findings[0].rule == "own at most 3"
    undeclared = decide(judged=JudgedArms(candidate=scores, champion=None, baselines=()), gates=gates, out=new_folder())
    assert undeclared.verdict == "ERROR"


def pipeline(evaluate: dict[str, Any], **gates: Any) -> PipelineSpec:
    return pipeline_spec(evaluate={"fields": FIELDS, **evaluate}, gates=gates)


def test_metrics_that_contradict_each_other_or_the_gate_are_told() -> None:
    macro = {"uses": "macro_f1", "field": "category"}
    rule = {"metric": "macro_f1_category", "value_threshold": 0.5}
    assert pipeline({"metrics": [macro]}, rules=[rule]).gates.rules[0].metric == "macro_f1_category"
    for evaluate, gates, expected in (
        ({"metrics": [macro, macro]}, {"rules": [rule]}, "two metrics 'macro_f1_category'"),
        ({"metrics": [{"uses": "regex", "name": "exact", "pattern": "x"}]}, {"rules": [{**rule, "metric": "exact"}]},
         "two metrics 'exact'"),
        ({"metrics": [{"uses": "macro_f1", "field": "priority"}]}, {"rules": [{**rule, "metric": "exact"}]},
         "not a named group"),
        ({"metrics": [macro]}, {"rules": [{**rule, "slice": "product=Lamp"}]}, "no meaning on a slice"),
        ({"metrics": [macro]}, {"rules": [rule], "slices": {"by": ["product"], "metric": "macro_f1_category"}},
         "guarded by unknown metric"),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=expected):
            pipeline(evaluate, **gates)
