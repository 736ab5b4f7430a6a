"""What better candidates are spared, and what ruined slices meet: blocks that are earned.

Group `guards` of `make bench-gates`. Harm at a margin is exact; slices of right and wrong answers are drawn as counts
and judged by `simulated.guarded`, which tests hold to the real gate; slices of continuous scores by `decide` itself.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.gates.promises import exact_law
from benchmarks.gates.simulated import ALPHA, DISCORDANCE, false_block, guarded
from schemas.artifacts import EvalSet, GateDecision, Scores
from schemas.evaluation import EvaluateSpec
from schemas.gates import ChangeThreshold, CompareSpec, GateRule, GatesSpec, SliceGuard
from schemas.metrics import SqlMetric, traits_by_name
from tasks.assess.contract import HOLD, PROMOTE, anchor_outcome, change_outcome
from tasks.assess.gate import TOP_UP_LOSS, TOP_UP_POWER, GateContext, JudgedArms, decide
from tasks.assess.metric_check import check_metrics, metric_findings
from tasks.assess.pace import EXCEEDED, KEPT, percentile_shown
from tasks.assess.power import paired_items_needed
from tasks.assess.wrong_references import measured_share

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
EVEN20, EVEN6 = (50,) * 20, (166,) * 6
UNEVEN = (500, 200, 120, 80, 50, 30, 20)
GAIN = 0.03
WRONG = (0.05, 0.1, 0.2)
"""Shares of wrong references."""
TIMED, LIMIT = (16, 64, 250), 1.25
"""Held-out items to time, and the limit of the ratio."""


def guards(*, quick: bool, seed: int = 20260601) -> dict[str, object]:
    """All figures of the group."""
    reps, n_decided = 20_000, 60 if quick else 1000

    def generator() -> np.random.Generator:
        return np.random.default_rng(seed)

    # As the verdict names it: the slices and the rule share the error probability.
    named = paired_items_needed(
        TOP_UP_LOSS, discordance=0.25, confidence=1 - ALPHA / (len(UNEVEN) + 1), power=TOP_UP_POWER
    )
    verdicts = better_on_average(generator(), n_decided)
    runs = 1000 if quick else 10_000
    equal = [timed(generator(), runs, ratio=1.0, limit=LIMIT, n=n) for n in TIMED]
    at_limit = [timed(generator(), runs, ratio=LIMIT, limit=LIMIT, n=n) for n in TIMED]
    return {
        **{f"noisy{100 * rate:.0f}_pass_before": round(noisy_pass(rate, margin=0.05), 4) for rate in WRONG},
        "noisy_pass": round(max(noisy_pass(rate, margin=0.05 * measured_share(rate)) for rate in WRONG), 4),
        "latency_equal_block": max(blocked for _, blocked in equal),
        "latency_limit_pass": max(met for met, _ in at_limit),
        "latency_limit_block": max(blocked for _, blocked in at_limit),
        "latency_equal_pass": equal[-1][0],
        "metrics_misjudged": misjudged_metrics(),
        "margin_block": blocked_at_the_margin(quick=quick),
        "better_block": verdicts.count("BLOCK") / len(verdicts),
        "better_held": verdicts.count("HOLD") / len(verdicts),
        "slice6_torn_pass": ruined(generator(), EVEN6, reps, differ=0.25),
        "slice2_torn_pass": ruined(generator(), UNEVEN, reps, differ=0.25, top_up=named or 0),
        "slice2_torn_items": named,
        "slice20_pass": ruined(generator(), EVEN20, reps, differ=0.2),
        "slice20_pass_by_tests": ruined(generator(), EVEN20, reps, differ=0.2, hold=False),
        "slices_power_loss": max(power_lost(generator(), sizes, reps) for sizes in (EVEN20, EVEN6, UNEVEN, (25,) * 40)),
    }


def blocked_at_the_margin(*, quick: bool) -> float:
    """Share of the candidates at a margin that are blocked as worse, of the worst number of items; exact."""
    sizes = (60, 180, 280, 360, 1000) if quick else (*range(60, 400, 20), 500, 564, 600, 800, 1000, 1500, 2000)
    margins = (0.01, 0.02, 0.05) if quick else (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
    shares = (1.02, 1.25, 2.0) if quick else (1.02, 1.1, 1.25, 1.5, 2.0, 3.0)
    return round(
        max(false_block(n, margin, min(0.6, share * margin)) for n in sizes for margin in margins for share in shares),
        4,
    )


def better_on_average(generator: np.random.Generator, reps: int, n_slices: int = 12, size: int = 40) -> list[str]:
    """Verdicts on candidates of which 85 % of the answers score 0.02 less and 15 % 0.25 more, slices of 40 items."""
    slices, found = [f"product=P{number % n_slices}" for number in range(n_slices * size)], list[str]()
    for _ in range(reps):
        champion = generator.uniform(0.4, 0.6, len(slices))
        candidate = champion + np.where(generator.random(len(slices)) < 0.85, -0.02, 0.25)
        found.append(decided(candidate, champion, slices, metric="chrf").verdict)
    return found


def decided(candidate: Floats, champion: Floats, slices: Sequence[str], *, metric: str) -> GateDecision:
    """The real gate's verdict: a floor that every answer meets, and no slice worse than the champion's."""
    gates = GatesSpec(
        rules=(GateRule(metric=metric, value_threshold=0.1),), slices=SliceGuard(by=("product",), metric=metric),
        contamination=None, round_trip=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
        arms = []
        for arm, values in (("tuned", candidate), ("champion", champion)):
            root = Path(folder, arm)
            root.mkdir()
            ids = [f"i{number:06d}" for number in range(len(values))]
            scores = {"item_id": ids, "metric": [metric] * len(ids), "value": values}
            pq.write_table(pa.table(scores), root / "scores.parquet")
            pq.write_table(pa.table({"item_id": ids, "slice": list(slices)}), root / "slices.parquet")
            arms.append(Scores(root=root, arm=arm, n_items=len(ids), means={}))
        out = Path(folder, "decision")
        out.mkdir()
        judged = JudgedArms(candidate=arms[0], champion=arms[1])
        return decide(judged=judged, gates=gates, context=GateContext(champion_version="1"), out=out)


GAMED = ("contains(p.text, i.answer)", "contains(lower(p.text), 'thank') AND contains(p.text, i.category)")
HONEST = ("p.text = i.answer", "regexp_extract(p.text, '\\[(\\w+)\\]', 1) = i.category")
LABELS = ("billing", "delivery", "returns", "account")


def misjudged_metrics(n: int = 100) -> int:
    """Metrics of which a user's comparison is misjudged: those that an answer with all labels meets and that may
    compare, and those that it does not meet and that may not."""
    rows = [
        {"item_id": f"i{number}", "ticket_id": f"i{number}", "category": label,
         "answer": f"[{label}] Thank you, case {number * number}."}
        for number in range(n) for label in (LABELS[number % len(LABELS)],)
    ]  # fmt: skip
    wrong = 0
    for select in (*GAMED, *HONEST):
        query = f"SELECT p.item_id, ({select})::INT AS value FROM predictions p JOIN items i USING (item_id)"
        own = EvaluateSpec(metrics=(SqlMetric(uses="sql", name="own", select=query),), slices=())
        rule = GateRule(metric="own", change_threshold=ChangeThreshold())
        gates = GatesSpec(rules=(rule,), compare=CompareSpec(metric="own"))
        with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
            pq.write_table(pa.Table.from_pylist(rows), Path(folder, "items.parquet"))
            items, out = EvalSet(root=Path(folder), n_items=n, n_available=n), Path(folder, "check")
            out.mkdir()
            known = traits_by_name(own.traits())
            evidence = check_metrics(out=out, items=items, evaluate=own)
            [found] = metric_findings([evidence], gates, metrics=("own",), known=known)
        wrong += (found.verdict == "PROMOTE") == (select in GAMED)
    return wrong


def timed(generator: np.random.Generator, reps: int, *, ratio: float, limit: float, n: int) -> tuple[float, float]:
    """Shares of the candidates that are met and blocked for their p95 of seconds, slower by `ratio`; worst of two.

    Seconds are log-normal with a spread of 0.4, and correlated by 0.5 or 0.95 between the models, as answers of similar
    length are; the clock adds 5 %.
    """
    found = []
    for correlation in (0.5, 0.95):
        own, codes = (1 - correlation) ** 0.5, []
        for _ in range(reps):
            shared = correlation**0.5 * generator.standard_normal(n)
            ours, theirs = (
                np.exp(0.4 * (shared + own * generator.standard_normal(n)) + 0.05 * generator.standard_normal(n))
                for _ in range(2)
            )
            codes.append(percentile_shown(ratio * ours, theirs, ratio_max=limit, alpha=ALPHA))
        found.append((codes.count(KEPT) / reps, codes.count(EXCEEDED) / reps))
    return max(met for met, _ in found), max(blocked for _, blocked in found)


def noisy_pass(wrong: float, *, margin: float, loss: float = 0.05, n: int = 1000, differ: float = 0.15) -> float:
    """Share of the candidates that `no_worse` passes whose true loss is 5 points, by labels of which some are wrong.

    Exact but for the number of items that differ in truth and by the labels, whose law is that of independent items.

    Args:
        wrong: Share of the answers with the opposite label.
        differ: Share of the items that one model alone gets right; as many are wrong, or right, in both and differ.
    """
    kept, flipped = (1 - wrong) ** 2, wrong**2
    won, lost = (differ - loss) / 2, (differ + loss) / 2
    one_wrong = wrong * (1 - wrong) * 0.05  # of 5 % other answers that differ and are worth the same
    seen_won, seen_lost = (kept * a + flipped * b + one_wrong for a, b in ((won, lost), (lost, won)))

    def decide(n: int, gained: Floats, lost: Floats) -> NDArray[np.int64]:
        return np.where(anchor_outcome(gained, lost, n, margin=margin, alpha=ALPHA).met, PROMOTE, HOLD)

    return exact_law((n,), seen_won + seen_lost, seen_won - seen_lost, decide).promoted


def ruined(
    generator: np.random.Generator,
    sizes: Sequence[int],
    reps: int,
    *,
    differ: float,
    top_up: int = 0,
    fall: float = -0.15,
    hold: bool = True,
) -> float:
    """Share promoted although the last slice falls and the whole gains 3 points.

    Args:
        differ: Share of the items of that slice on which the models differ.
        top_up: Items up to which slices have further ones, for their guard alone.
        hold: Whether a loss that is only probable holds.
    """
    core = np.array(sizes)
    share = core[-1] / core.sum()
    gains = [(GAIN - share * fall) / (1 - share)] * (len(core) - 1) + [fall]
    differs = [max(DISCORDANCE, gain) for gain in gains[:-1]] + [differ]
    gained, lost = _drawn(generator, core, gains, differs, reps)
    whole = np.maximum(core, top_up)
    more = _drawn(generator, whole - core, gains, differs, reps)
    rule = change_outcome(gained.sum(1), lost.sum(1), int(core.sum()), margin=0.0, alpha=ALPHA)
    codes = guarded(rule, gained + more[0], lost + more[1], whole, hold=hold)
    return round(float((codes == PROMOTE).mean()), 4)


def power_lost(generator: np.random.Generator, sizes: Sequence[int], reps: int) -> float:
    """What the hold costs a candidate that is 3 points better in every slice, as a share promoted."""
    core = np.array(sizes)
    gained, lost = _drawn(generator, core, [GAIN] * len(core), [DISCORDANCE] * len(core), reps)
    rule = change_outcome(gained.sum(1), lost.sum(1), int(core.sum()), margin=0.0, alpha=ALPHA)
    tested, held = (guarded(rule, gained, lost, core, hold=hold) == PROMOTE for hold in (False, True))
    return round(float(tested.mean() - held.mean()), 4)


def _drawn(
    generator: np.random.Generator, sizes: Counts, gains: Sequence[float], differs: Sequence[float], reps: int
) -> tuple[Counts, Counts]:
    """Items gained and lost in each slice, shape (reps, slices)."""
    cells = [
        generator.multinomial(size, [(differ + gain) / 2, (differ - gain) / 2, 1 - differ], size=reps)
        for size, gain, differ in zip(sizes.tolist(), gains, differs, strict=True)
    ]
    drawn = np.stack(cells, axis=1)
    return drawn[..., 0], drawn[..., 1]
