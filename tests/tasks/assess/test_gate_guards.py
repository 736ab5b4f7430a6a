"""What stands beside the rules of a gate: the anchor, the slices, the customers, the looks, and Holm's family."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, GateDecision, Scores
from schemas.gates import AnchorSpec, ChangeThreshold, GateRule, GatesSpec, ReuseSpec, SliceGuard
from schemas.load import load_file
from schemas.verdicts import UsedBudget
from tasks.assess.compare import estimate_mean
from tasks.assess.contract import BLOCK, PROMOTE, change_outcome, guard_outcome, least_p, settle
from tasks.assess.decision import surpassed
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.items import EXTRA

MakeItems = Callable[..., EvalSet]


RULES_ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}

MakeScores = Callable[..., Scores]
IMPROVE = GateRule(metric="exact", change_threshold=ChangeThreshold())
REFRESH = GateRule(metric="exact", change_threshold=ChangeThreshold(mode="refresh", margin=0.05))
HALF = GateRule(metric="exact", value_threshold=0.5)
GUARD = SliceGuard(by=("product",))


def flips(gained: int, lost: int, n: int) -> tuple[list[float], list[float]]:
    """Candidate and reference on n items, right on all where they agree."""
    return [1.0] * gained + [0.0] * lost + [1.0] * (n - gained - lost), [0.0] * gained + [1.0] * (n - gained)


@pytest.fixture
def judge(make_scores: MakeScores, new_folder: Callable[[], Path]) -> Callable[..., GateDecision]:
    def run(
        rules: Sequence[GateRule],
        candidate: Sequence[float],
        champion: Sequence[float] | None = None,
        *,
        anchor: Sequence[float] | None = None,
        slices: Sequence[str] = (),
        metric: str = "exact",
        items: EvalSet | None = None,
        used_budget: UsedBudget = UsedBudget(),  # noqa: B008
        anchor_version: str | None = "1",
        guard: SliceGuard | None = None,
        anchor_spec: AnchorSpec | None = AnchorSpec(),  # noqa: B008
        **gates: Any,
    ) -> GateDecision:
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", {metric: candidate}, slices=slices),
                champion=None if champion is None else make_scores("champion", {metric: champion}),
                baselines=(make_scores("zero_shot", {metric: [0.0] * len(candidate)}),),
                anchor=None if anchor is None else make_scores("anchor", {metric: anchor}),
                items=items,
            ),
            gates=GatesSpec(**RULES_ONLY, rules=tuple(rules), slices=guard, anchor=anchor_spec, **gates),
            context=GateContext(
                champion_version=None if champion is None else "7",
                anchor_version=anchor_version,
                used_budget=used_budget,
            ),
            out=new_folder(),
        )

    return run


Judge = Callable[..., GateDecision]


# --- anchor ---------------------------------------------------------------------------------------------------------


def test_a_refresh_that_beats_a_rotten_champion_is_still_held_to_the_anchor(judge: Judge) -> None:
    candidate, champion = flips(30, 10, 600)
    anchor = [1.0] * 600  # was right wherever the candidate is wrong: 10 items
    assert judge([REFRESH], candidate, champion, anchor=anchor).verdict == "PROMOTE"
    rotten = judge([REFRESH], [0.0] * 60 + candidate[60:], [0.0] * 80 + [1.0] * 520, anchor=anchor)
    assert [finding.verdict for finding in rotten.findings] == ["PROMOTE", "BLOCK"]
    assert rotten.findings[1].rule == "exact is at most 0.05 worse than anchor (version 1) at the confidence"
    assert rotten.anchor_version == "1"


def test_between_shown_and_harmed_the_anchor_holds(judge: Judge) -> None:
    candidate, champion = flips(60, 0, 600)
    candidate = candidate[:-24] + [0.0] * 24
    champion = champion[:-24] + [0.0] * 24
    held = judge([REFRESH], candidate, champion, anchor=[1.0] * 600)
    assert [finding.verdict for finding in held.findings] == ["PROMOTE", "HOLD"]
    assert "there are enough items to show it if the candidate is truly equal" in held.findings[1].reason
    wider = judge([REFRESH], candidate, champion, anchor=[1.0] * 600, anchor_spec=AnchorSpec(margin=0.1))
    assert wider.verdict == "PROMOTE"


@pytest.mark.parametrize("version", [None, "2"])
def test_an_anchor_that_did_not_arrive_is_an_error_and_never_left_out(version: str | None, judge: Judge) -> None:
    decision = judge([REFRESH], *flips(60, 0, 600), anchor_version=version)
    assert [finding.verdict for finding in decision.findings] == ["PROMOTE", "ERROR"]


def test_a_candidate_surpasses_the_anchor_if_it_is_shown_to_be_better_and_by_no_metric_worse(judge: Judge) -> None:
    def among(candidate: Sequence[float], champion: Sequence[float], **given: Any) -> str:
        return surpassed(judge([REFRESH], candidate, champion, **given))

    better, worse = flips(60, 0, 600)
    assert among(better, worse, anchor_version="7") == "7", "the champion is the anchor"
    assert among(*flips(12, 0, 600), anchor_version="7") == "7"
    assert among(*flips(20, 14, 600), anchor_version="7") == "", "a gain of a point that may be chance"
    assert among(better, worse, anchor=worse) == "1"
    assert among(better, worse, anchor=flips(20, 14, 600)[0]) == "1"
    assert among(better, worse, anchor=better) == "", "better than the champion alone"
    assert surpassed(judge([IMPROVE], better, worse, anchor_version=None)) == "7"
    assert surpassed(judge([REFRESH], better)) == "", "there is no champion"


def test_a_champion_that_is_the_anchor_answers_once(judge: Judge) -> None:
    assert len(judge([REFRESH], *flips(60, 0, 600), anchor_version="7").findings) == 1
    assert len(judge([REFRESH], *flips(60, 0, 600), anchor_version=None, anchor_spec=None).findings) == 1
    assert len(judge([IMPROVE], *flips(60, 0, 600), anchor_version=None).findings) == 1


def test_an_endpoint_that_is_better_than_the_candidate_is_the_baseline_to_beat(
    make_scores: MakeScores, new_folder: Callable[[], Path]
) -> None:
    candidate, endpoint = flips(5, 40, 200)
    decision = decide(
        judged=JudgedArms(
            candidate=make_scores("tuned", {"exact": candidate}),
            champion=None,
            baselines=(make_scores("zero_shot", {"exact": [0.0] * 200}), make_scores("endpoint", {"exact": endpoint})),
        ),
        gates=GatesSpec(
            **RULES_ONLY, rules=(GateRule(metric="exact", change_threshold=ChangeThreshold(against="best_baseline")),)
        ),
        out=new_folder(),
    )
    assert (decision.verdict, decision.best_baseline) == ("BLOCK", "endpoint")


# --- slices ---------------------------------------------------------------------------------------------------------


def sliced(counts: dict[str, tuple[int, int, int]]) -> tuple[list[float], list[float], list[str]]:
    candidate: list[float] = []
    champion: list[float] = []
    slices: list[str] = []
    for name, (gained, lost, n) in counts.items():
        ours, theirs = flips(gained, lost, n)
        candidate, champion = candidate + ours, champion + theirs
        slices += [f"product={name}"] * n
    return candidate, champion, slices


def test_a_gain_overall_does_not_hide_a_slice_that_suffers(judge: Judge) -> None:
    candidate, champion, slices = sliced({"Desk": (60, 5, 400), "Lamp": (2, 32, 200)})
    decision = judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD)
    assert [finding.verdict for finding in decision.findings] == ["PROMOTE", "PROMOTE", "BLOCK"]
    assert decision.verdict == "BLOCK"
    finding = decision.findings[2]
    assert (finding.slice, finding.won, finding.lost) == ("product=Lamp", 2, 32)


def test_a_reason_does_not_speak_of_0_tests_where_every_slice_is_too_small_for_one(judge: Judge) -> None:
    rule = GateRule(metric="exact", change_threshold=ChangeThreshold(mode="no_worse", margin=0.5))
    champion, slices = [1.0] + [0.0] * 5, ["product=Lamp"] * 3 + ["product=Desk"] * 3
    decision = judge(
        [rule], [0.0] * 6, champion, slices=slices, guard=GUARD, confidence=0.6, min_items=1, anchor_spec=None
    )
    [lamp] = [each for each in decision.findings if each.slice == "product=Lamp"]
    assert "but that may be chance among all tests of this gate (Holm)" in lamp.reason


def test_a_small_slice_that_collapses_blocks(judge: Judge) -> None:
    candidate, champion, slices = sliced({"Desk": (100, 0, 940), "Lamp": (0, 47, 60)})
    decision = judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD)
    assert [finding.verdict for finding in decision.findings] == ["PROMOTE", "PROMOTE", "BLOCK"]


def test_a_slice_of_which_too_few_items_differ_is_reported_and_not_passed_in_silence(judge: Judge) -> None:
    candidate, champion, slices = sliced({"Desk": (60, 5, 400), "Lamp": (0, 2, 9), "Sofa": (1, 0, 9)})
    decision = judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD)
    desk, small, kept = decision.findings[1:]
    assert (small.verdict, small.decides, small.won, small.lost) == ("HOLD", False, 0, 2)
    assert "lost 2 and won 0 of 9 items, which are too few to show harm" in small.reason
    assert decision.reason == (
        "All 3 rules are met: exact is 0.983 against 0.854 of champion (version 7) on 418 items: better by 0.129 (+9.9 "
        "to +16.2 points fits at 95 % confidence), and more than 0 is needed. 1 slice that lost is too small to be "
        "judged. This gate passes an equal model in 5 %, one 2 points worse in 0.4 %, one 3 points better in 44 % (418 "
        "items, 16.3 % of them right in one model alone)."
    )
    assert "not judged" in (decision.root / "decision.md").read_text()
    assert (kept.verdict, kept.decides) == ("PROMOTE", True)
    # what each could have shown: the smaller, the larger the loss must be
    assert desk.smallest_loss is not None
    assert small.smallest_loss is not None
    assert 0.02 < desk.smallest_loss < 0.08 < 0.3 < small.smallest_loss < 0.9
    assert f"it would probably show a loss of {desk.smallest_loss:.3f}" in desk.reason


def test_a_slice_of_a_continuous_metric_that_is_too_small_for_its_mean_still_holds_a_collapse(judge: Judge) -> None:
    scores = np.random.default_rng(1).uniform(0.4, 0.9, 340)
    slices = ["product=Desk"] * 300 + ["product=Lamp"] * 40
    guard = GUARD.model_copy(update={"metric": "chrf"})
    rule = GateRule(metric="chrf", value_threshold=0.1)
    better, ruined = scores + 0.05 * scores, scores * np.repeat([1.05, 0.5], [300, 40])
    fine = judge([rule], better.tolist(), scores.tolist(), slices=slices, guard=guard, metric="chrf")
    assert [finding.verdict for finding in fine.findings] == ["PROMOTE", "PROMOTE", "PROMOTE"]
    assert "so few items can show no loss on average" in fine.findings[2].reason
    worse = judge([rule], ruined.tolist(), scores.tolist(), slices=slices, guard=guard, metric="chrf")
    assert [finding.verdict for finding in worse.findings] == ["PROMOTE", "PROMOTE", "HOLD"]
    assert "given all slices a loss of more than 0.0" in worse.reason


def test_a_slice_that_is_a_little_worse_on_most_answers_and_better_on_average_is_neither_blocked_nor_held(
    judge: Judge,
) -> None:
    generator, n, verdicts = np.random.default_rng(4), 480, []
    guard = GUARD.model_copy(update={"metric": "chrf"})
    for _ in range(25):
        champion = generator.uniform(0.4, 0.6, n)
        candidate = champion + np.where(generator.random(n) < 0.85, -0.02, 0.25)
        slices = [f"product=P{number % 12}" for number in range(n)]
        rule = GateRule(metric="chrf", value_threshold=0.1)
        judged = judge([rule], candidate.tolist(), champion.tolist(), slices=slices, guard=guard, metric="chrf")
        verdicts.append(judged.verdict)
    assert set(verdicts) == {"PROMOTE"}  # a sign test over the items of a slice blocked 47 %


def test_a_loss_that_is_not_shown_but_probable_next_to_the_other_slices_holds(judge: Judge) -> None:
    well = {f"Item{number}": (6, 3, 50) for number in range(19)}
    candidate, champion, slices = sliced({**well, "Lamp": (1, 9, 50)})
    decision = judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD)
    lamp = decision.findings[-1]
    assert (decision.verdict, lamp.verdict, lamp.decides, lamp.slice) == ("HOLD", "HOLD", True, "product=Lamp")
    assert "this may be chance, but given all slices a loss of more than 0.0" in lamp.reason
    assert lamp.more_items is not None
    assert f"about {lamp.more_items} more items of it would show such a loss (gates.slices.top_up)" in lamp.reason
    alike = sliced({**well, "Lamp": (3, 5, 50)})
    assert judge([IMPROVE], *alike[:2], slices=alike[2], guard=GUARD).verdict == "PROMOTE"


def test_a_topped_up_slice_says_how_many_items_its_own_disagreement_needs(judge: Judge) -> None:
    topped = GUARD.model_copy(update={"top_up": 100})
    calm = sliced({"Desk": (60, 20, 600), "Lamp": (8, 6, 150)})
    assert "to show one of 0.15" not in judge([IMPROVE], *calm[:2], slices=calm[2], guard=topped).findings[2].reason
    torn = sliced({"Desk": (60, 20, 600), "Lamp": (16, 14, 100)})
    reason = judge([IMPROVE], *torn[:2], slices=torn[2], guard=topped).findings[2].reason
    needed = int(reason.rpartition("top_up: ")[2].removesuffix(")."))
    assert 150 < needed < 220
    assert f"to show one of 0.15 nearly always it takes {needed} items, as models differ on 30 % of them" in reason
    assert "to show one of" not in judge([IMPROVE], *torn[:2], slices=torn[2], guard=GUARD).findings[2].reason


@pytest.mark.parametrize(("n_slices", "n"), [(7, 300), (30, 500), (80, 1000)])
def test_many_slices_seldom_block_an_equal_candidate_and_take_no_time(n_slices: int, n: int) -> None:
    weights = 1 / np.arange(1, n_slices + 1)
    sizes = np.maximum(1, np.round(n * weights / weights.sum())).astype(int)
    generator = np.random.default_rng(n)
    blocked = []
    for discordance in (0.05, 0.1, 0.4):
        half = discordance / 2
        drawn = np.stack([generator.multinomial(size, [half, half, 1 - discordance], 4000) for size in sizes], axis=1)
        gained, lost = drawn[..., 0], drawn[..., 1]
        rule = change_outcome(gained.sum(1), lost.sum(1), sizes.sum(), margin=0.0, alpha=0.05)
        guard = guard_outcome(gained, lost, sizes)
        p_least = least_p(gained + lost, np.broadcast_to(sizes, gained.shape))
        codes = settle(
            np.concatenate([rule.met[:, None], guard.met], axis=1),
            np.concatenate([rule.p_harm[:, None], guard.p_harm], axis=1),
            alpha=0.05,
            p_least=np.concatenate([np.zeros((4000, 1)), p_least], axis=1),
        )
        blocked.append(float((codes == BLOCK).any(axis=1).mean()))
    assert max(blocked) <= 0.055  # at most 0.043 in 8,000 candidates of 30 such worlds


def test_a_slice_of_two_percent_that_is_ruined_is_found_with_topped_up_items() -> None:
    shares, reps = np.array([500, 200, 120, 80, 50, 30, 20]), 8000
    changes = np.array([0.034] * 6 + [-0.15])  # 3 points better on the whole
    generator = np.random.default_rng(5)

    def draw(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        differ = np.maximum(0.1, np.abs(changes) + 0.02)
        cells = np.stack([(differ + changes) / 2, (differ - changes) / 2, 1 - differ], axis=1)
        drawn = np.stack([generator.multinomial(n, cell, reps) for n, cell in zip(sizes, cells, strict=True)], axis=1)
        return drawn[..., 0], drawn[..., 1]

    (gained, lost), (more_gained, more_lost) = draw(shares), draw(np.maximum(0, 100 - shares))
    rule = change_outcome(gained.sum(1), lost.sum(1), 1000, margin=0.0, alpha=0.05)
    promoted = {}
    for name, won, worse, sizes in (
        ("alone", gained, lost, shares),
        ("topped up", gained + more_gained, lost + more_lost, np.maximum(shares, 100)),
    ):
        guard = guard_outcome(won, worse, sizes)
        codes = settle(
            np.concatenate([rule.met[:, None], guard.met], axis=1),
            np.concatenate([rule.p_harm[:, None], guard.p_harm], axis=1),
            alpha=0.05,
            p_least=np.concatenate(
                [np.zeros((reps, 1)), least_p(won + worse, np.broadcast_to(sizes, won.shape))], axis=1
            ),
        )
        promoted[name] = float((codes == PROMOTE).all(axis=1).mean())
    assert promoted["alone"] > 0.8
    assert promoted["topped up"] <= 0.07  # 5.4 %, with 1,220 items


def test_the_rules_do_not_count_the_items_that_were_added_for_slices(
    make_scores: MakeScores, make_items: MakeItems, new_folder: Callable[[], Path]
) -> None:
    candidate, champion, slices = sliced({"Desk": (60, 5, 400), "Lamp": (0, 30, 100)})
    items = make_items([{"ticket_id": f"i{number:06d}", "answer": ""} for number in range(500)])
    table = pq.read_table(items.root / "items.parquet")
    table = table.append_column(EXTRA, pa.array([number >= 420 for number in range(500)]))
    pq.write_table(table, items.root / "items.parquet")
    decision = decide(
        judged=JudgedArms(
            candidate=make_scores("tuned", {"exact": candidate}, slices=slices),
            champion=make_scores("champion", {"exact": champion}),
            baselines=(),
            items=items,
        ),
        gates=GatesSpec(**RULES_ONLY, rules=(IMPROVE,), slices=GUARD.model_copy(update={"top_up": 100}), anchor=None),
        context=GateContext(champion_version="7"),
        out=new_folder(),
    )
    rule, _, lamp = decision.findings
    assert (rule.n_items, rule.lost, decision.n_items) == (420, 25, 420)  # 20 of the 30 that Lamp lost are in it
    assert (lamp.n_items, lamp.lost, lamp.verdict) == (100, 30, "BLOCK")


def test_a_guard_on_a_column_that_was_not_sliced_is_an_error(judge: Judge) -> None:
    assert judge([HALF], [1.0] * 200, [1.0] * 200, guard=GUARD).verdict == "ERROR"


def test_a_slice_of_one_unsound_value_is_an_error(judge: Judge) -> None:
    candidate, champion, slices = sliced({"Desk": (60, 5, 400), "Lamp": (2, 2, 200)})
    candidate[-1] = float("nan")
    assert judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD).verdict == "ERROR"


def test_without_a_champion_a_slice_may_not_be_worse_than_the_best_prompting_arm(judge: Judge) -> None:
    candidate, _, slices = sliced({"Desk": (60, 5, 400), "Lamp": (2, 32, 200)})
    decision = judge([HALF], candidate, slices=slices, guard=GUARD)
    assert [finding.verdict for finding in decision.findings] == ["PROMOTE", "PROMOTE", "PROMOTE"]
    assert "best_baseline (zero_shot)" in decision.findings[1].rule


# --- Holm over all tests that may block -----------------------------------------------------------------------------


def test_a_loss_that_would_block_alone_does_not_among_many_slices(judge: Judge) -> None:
    suffering = {"Lamp": (4, 13, 200)}
    alone = sliced(suffering)
    many = sliced({**suffering, **{f"Item{number}": (8, 6, 200) for number in range(9)}})
    [_, one] = judge([HALF], *alone[:2], slices=alone[2], guard=GUARD).findings
    assert one.verdict == "BLOCK"
    decision = judge([HALF], *many[:2], slices=many[2], guard=GUARD)
    lamp = next(finding for finding in decision.findings if finding.slice == "product=Lamp")
    assert (lamp.verdict, lamp.p_harm) == ("PROMOTE", one.p_harm)
    assert "may be chance among the 11 tests" in lamp.reason


def test_a_rule_that_is_violated_alone_but_not_among_the_others_holds(judge: Judge) -> None:
    candidate, champion, slices = sliced({f"Item{number}": (6, 9, 120) for number in range(9)})
    findings = judge([IMPROVE], candidate, champion, slices=slices, guard=GUARD).findings
    assert findings[0].p_harm is not None
    assert 0.005 < findings[0].p_harm < 0.05
    assert findings[0].verdict == "HOLD"
    assert judge([IMPROVE], candidate, champion).verdict == "BLOCK"


# --- hard limits ----------------------------------------------------------------------------------------------------


def test_a_hard_limit_blocks_whatever_chance_may_explain_and_never_promotes(judge: Judge) -> None:
    hard = GateRule(metric="exact", value_threshold=0.5, hard_limit=0.95)
    assert judge([hard], [1.0] * 94 + [0.0] * 6).verdict == "BLOCK"
    assert judge([hard], [1.0] * 96 + [0.0] * 4).verdict == "PROMOTE"
    strict = GateRule(metric="exact", value_threshold=0.97, hard_limit=0.95)
    assert judge([strict], [1.0] * 96 + [0.0] * 4).verdict == "HOLD"
    assert judge([hard], [1.0] * 9 + [0.0]).verdict == "BLOCK"  # also under min_items
    with pytest.raises(ValueError, match="hard_limit"):
        GateRule(metric="exact", change_threshold=ChangeThreshold(), hard_limit=0.5)


# --- clusters -------------------------------------------------------------------------------------------------------


def test_tickets_of_few_customers_prove_less_than_as_many_tickets_of_many(judge: Judge, make_items: MakeItems) -> None:
    candidate, champion = flips(60, 30, 600)
    customers = [f"c{number // 15}" for number in range(600)]  # the gains are all of four customers
    items = make_items(
        [{"ticket_id": f"i{number:06d}", "answer": "", "customer_id": name} for number, name in enumerate(customers)]
    )
    assert judge([IMPROVE], candidate, champion).verdict == "PROMOTE"
    decision = judge([IMPROVE], candidate, champion, items=items, cluster_by="customer_id")
    assert decision.findings[0].method == "tango+cluster_bootstrap_t"
    assert decision.verdict == "HOLD"


def test_customers_that_are_missing_or_too_few_never_promote(judge: Judge, make_items: MakeItems) -> None:
    candidate, champion = flips(60, 3, 600)
    rows = [{"ticket_id": f"i{number:06d}", "answer": ""} for number in range(600)]
    assert judge([IMPROVE], candidate, champion, cluster_by="customer_id").verdict == "ERROR"
    assert judge([IMPROVE], candidate, champion, items=make_items(rows), cluster_by="customer_id").verdict == "ERROR"
    assert judge([IMPROVE], candidate, champion, items=make_items(
        [{**row, "customer_id": "c"} for row in rows[:-1]]), cluster_by="customer_id").verdict == "ERROR"  # fmt: skip
    few = make_items([{**row, "customer_id": f"c{number % 39}"} for number, row in enumerate(rows)])
    decision = judge([IMPROVE, HALF], candidate, champion, items=few, cluster_by="customer_id")
    assert [finding.verdict for finding in decision.findings] == ["HOLD", "HOLD"]
    assert "39 customers" in decision.reason


def test_a_cluster_per_item_gives_the_bounds_of_items() -> None:
    values = np.random.default_rng(2).normal(0.1, 1.0, 300)
    apart = estimate_mean(values, clusters=np.arange(300)).bounds(confidence=0.95)
    assert apart == estimate_mean(values).bounds(confidence=0.95)


# 5.3 to 5.6 % was measured with a percentile bootstrap over clusters; drawing items passes 10 to 13 %.
def test_bounds_over_customers_pass_a_candidate_at_the_limit_as_seldom_as_declared() -> None:
    generator = np.random.default_rng(8)
    over_items = over_customers = 0
    for rep in range(400):
        effect = generator.normal(0, 0.8, 50)
        clusters = np.repeat(np.arange(50), 12)
        values = effect[clusters] + generator.normal(0, 0.6, 600)
        over_items += estimate_mean(values, seed=rep, n_resamples=300).bounds(confidence=0.95).lower > 0
        drawn = estimate_mean(values, clusters=clusters, seed=rep, n_resamples=300)
        over_customers += drawn.bounds(confidence=0.95).lower > 0
        assert 0 < drawn.p_below(0.0) <= 1
    assert over_items / 400 > 0.15
    assert over_customers / 400 <= 0.085  # nominal 5 %, three standard errors of 400


def test_a_collapse_blocks_however_often_the_error_probability_is_split(judge: Judge, make_items: MakeItems) -> None:
    generator = np.random.default_rng(0)
    ruined, right = (generator.random(400) < 0.03).astype(float), (generator.random(400) < 0.89).astype(float)
    rows = [{"ticket_id": f"i{number:06d}", "answer": "", "customer_id": f"c{number % 100}"} for number in range(400)]
    decision = judge(
        [IMPROVE, HALF, GateRule(metric="exact", value_threshold=0.6), GateRule(metric="exact", value_threshold=0.7)],
        ruined.tolist(), right.tolist(), items=make_items(rows), cluster_by="customer_id", looks={"max": 3},
        reuse=ReuseSpec(budget=20, spend="split"),
    )  # fmt: skip
    assert [finding.verdict for finding in decision.findings] == ["BLOCK"] * 4
    assert decision.use is not None
    assert decision.use.confidence > 0.9999


def test_flips_of_a_handful_of_customers_count_as_that_many(judge: Judge, make_items: MakeItems) -> None:
    candidate, champion = flips(40, 0, 800)
    rows = [{"ticket_id": f"i{number:06d}", "answer": "", "customer_id": f"c{number // 20}"} for number in range(800)]
    decision = judge([IMPROVE], candidate, champion, items=make_items(rows), cluster_by="customer_id")
    assert decision.verdict == "HOLD"  # all gains are of two of 40 customers
    assert judge([IMPROVE], candidate, champion).verdict == "PROMOTE"


# --- looks and re-use -----------------------------------------------------------------------------------------------


def test_each_look_has_its_share_of_the_error_probability(judge: Judge) -> None:
    candidate, champion = flips(27, 14, 600)
    assert judge([IMPROVE], candidate, champion).verdict == "PROMOTE"
    decision = judge([IMPROVE], candidate, champion, looks={"max": 5, "spend": "equal"})
    assert decision.verdict == "HOLD"
    assert decision.use is not None
    assert decision.use.confidence == pytest.approx(0.99)
    assert "99 % confidence" in decision.reason


def test_a_hold_says_for_the_rule_that_needs_most_and_whether_a_look_is_left(judge: Judge) -> None:
    candidate, champion = flips(12, 8, 200)
    rules = [IMPROVE, GateRule(metric="exact", value_threshold=0.95)]
    held = judge(rules, candidate, champion, power={"effect": 0.02})
    few, many = held.findings
    assert (few.verdict, many.verdict) == ("HOLD", "HOLD")
    assert few.more_items is not None
    assert many.more_items is not None
    most = max(few.more_items, many.more_items)
    assert f"about {most:,} more items would decide if" in held.reason
    assert "No look at this candidate is left (gates.looks.max)" in held.reason
    again = judge(rules, candidate, champion, power={"effect": 0.02}, looks={"max": 3})
    assert "2 looks at this candidate are left." in again.reason


def test_a_candidate_that_was_looked_at_too_often_holds_however_good_it_is(judge: Judge) -> None:
    candidate, champion = flips(100, 1, 600)
    assert judge([IMPROVE], candidate, champion, looks={"max": 2}, used_budget=UsedBudget(looks=1)).verdict == "PROMOTE"
    decision = judge([IMPROVE], candidate, champion, looks={"max": 2}, used_budget=UsedBudget(looks=2))
    assert decision.verdict == "HOLD"
    assert "only another candidate can pass" in decision.reason


def test_rules_that_were_edited_after_a_refusal_are_a_look_and_the_verdict_says_so(judge: Judge) -> None:
    flipped = flips(100, 1, 600)
    edited = UsedBudget(looks=1, edited=1, spent=(0.05,))
    refused = judge([IMPROVE], *flipped, used_budget=edited)
    assert refused.verdict == "HOLD"
    assert "judged 1 time before on these items by other rules (an edit after HOLD or BLOCK" in refused.reason
    third = judge([IMPROVE], *flipped, used_budget=UsedBudget(looks=2, edited=1, spent=(0.05, 0.0)))
    assert "judged 2 times before, 1 of them on these items by other rules" in third.reason
    assert "this candidate has had 2 looks (1 on these items by other rules) of at most 1" in refused.evidence_used()
    raised = judge([IMPROVE], *flipped, used_budget=edited, looks={"max": 3})
    assert raised.verdict == "HOLD"
    assert "spent the whole error probability, since gates.looks.max was lower then" in raised.reason
    declared = UsedBudget(looks=1, edited=1, spent=(0.0007,))
    allowed = judge([IMPROVE], *flipped, used_budget=declared, looks={"max": 3})
    assert allowed.verdict == "PROMOTE"
    assert allowed.use is not None
    assert 1 - allowed.use.confidence == pytest.approx(0.0157, abs=5e-5)


def test_items_that_have_judged_too_many_candidates_hold_and_bad_ones_still_block(judge: Judge) -> None:
    candidate, champion = flips(100, 1, 600)
    budget = ReuseSpec(budget=3)
    fresh = judge([IMPROVE], candidate, champion, reuse=budget, used_budget=UsedBudget(verdicts=2))
    assert fresh.verdict == "PROMOTE"
    assert "these items have judged 3 candidates of at most 3" in (fresh.root / "decision.md").read_text()
    used = judge([IMPROVE], candidate, champion, reuse=budget, used_budget=UsedBudget(verdicts=3))
    assert used.verdict == "HOLD"
    assert "fresh tickets" in used.reason
    assert judge([IMPROVE], champion, candidate, reuse=budget, used_budget=UsedBudget(verdicts=3)).verdict == "BLOCK"
    assert judge([IMPROVE], candidate, champion, reuse=None, used_budget=UsedBudget(verdicts=300)).verdict == "PROMOTE"


def test_a_split_budget_gives_every_verdict_its_share() -> None:
    gates = GatesSpec(**RULES_ONLY, rules=(HALF,), reuse=ReuseSpec(budget=10, spend="split"))
    assert gates.alpha == pytest.approx(0.05 / 10)


# --- the demo -------------------------------------------------------------------------------------------------------


def test_the_gates_of_the_demo_promote_its_candidate_and_block_its_mislabelled_twin(
    project: Path, make_scores: MakeScores, new_folder: Callable[[], Path]
) -> None:
    """96 items: exact 0.719 against 0.021 of few-shot prompting; the twin has 0.417 against that champion."""
    gates = load_file(project / "pipelines.yaml").get("support-replies").gates.model_copy(update=RULES_ONLY)

    def arm(name: str, right: range, category: int) -> Scores:
        exact = [float(number in right) for number in range(96)]
        fields = [1.0] * category + [0.0] * (96 - category)
        form = dict.fromkeys(("format", "style", "reply"), [1.0] * 96)
        return make_scores(name, {"exact": exact, "field_category": fields, **form})

    few_shot, champion, twin = (
        arm("few_shot", range(2), 10),
        arm("tuned", range(69), 72),
        arm("tuned", range(8, 48), 45),
    )
    first = decide(
        judged=JudgedArms(candidate=champion, champion=None, baselines=(few_shot,)), gates=gates, out=new_folder()
    )
    assert (first.verdict, first.reason.partition(":")[0]) == ("PROMOTE", "All 7 rules are met")
    second = decide(
        judged=JudgedArms(candidate=twin, champion=arm("champion", range(69), 72), baselines=(few_shot,)),
        gates=gates,
        context=GateContext(champion_version="1", anchor_version="1"),
        out=new_folder(),
    )
    assert second.verdict == "BLOCK"
    assert second.findings[0].verdict == "BLOCK"
    assert second.findings[0].p_harm is not None
    assert second.findings[0].p_harm < 1e-3
