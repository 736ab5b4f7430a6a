"""Which earlier verdicts on the champion the gate gets to see, and what happens when their scores are gone."""

from pathlib import Path

from flows.graph.store import Obtained, Store
from flows.ledger.ledger import Ledger
from flows.registry.champion_past import NEWEST, ChampionPast, PastVerdict, past_of
from schemas.artifacts import Artifact, BundleRef, ChampionRef, GateDecision, ModelRef, Scores
from schemas.schedule import Decision
from schemas.training import PromptSpec
from tests.support.refs import trained_ref


def champion_of(root: Path, run_id: str) -> ChampionRef:
    model = ModelRef(root=root, digest="base", uri="file:base", n_parameters=1, vocab_size=2, context_length=3)
    return ChampionRef(
        name="replies", version="1", run_id=run_id, model=model, trained=trained_ref(root, digest="a"),
        prompt=PromptSpec(), max_new_tokens=4, bundle=BundleRef(root=root, digest="b", n_bytes=1), verdict_digest="v",
        promoted_at="",
    )  # fmt: skip


def test_without_a_champion_there_is_no_past(tmp_path: Path) -> None:
    assert past_of(None, Ledger(tmp_path), Store(tmp_path)) == ChampionPast()


def test_results_that_are_gone_are_counted_and_nothing_fails(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.start_run("r1", pipeline="demo", model_name="replies", config_json="{}")
    for step in ("decontaminate", "items", "train", "scores_tuned", "gate"):
        found = Artifact(root=tmp_path, digest=f"{step}-digest")
        ledger.record_step("r1", step, Obtained(found, "0" * 64, reused=False, seconds=0.0))
    found = past_of(champion_of(tmp_path, "r1"), ledger, Store(tmp_path))
    assert found == ChampionPast((PastVerdict("items-digest", "train-digest", None, is_own=True),))
    assert past_of(champion_of(tmp_path, "unknown"), ledger, Store(tmp_path)) == ChampionPast()


def test_any_number_of_other_runs_hides_no_verdict_on_the_champion(tmp_path: Path) -> None:
    ledger, store = Ledger(tmp_path), Store(tmp_path)

    def judge(run_id: str, *, model: str = "replies", version: str = "1", as_of: str | None = None) -> None:
        ledger.start_run(run_id, pipeline="demo", model_name=model, config_json="{}", as_of=as_of)
        for step in ("items", "train"):
            made = Obtained(Artifact(root=tmp_path, digest=f"{step} of {run_id}"), "0" * 64, reused=False, seconds=0.0)
            ledger.record_step(run_id, step, made)
        ledger.record_step(run_id, "gate", store.obtain("gate", run_id, GateDecision, lambda out: GateDecision(
            root=out, verdict="HOLD", reason="", findings=(), n_items=1, champion_version=version, best_baseline=None,
        )))  # fmt: skip
        scores = store.obtain(
            "scores", run_id, Scores, lambda out: Scores(root=out, arm="champion", n_items=1, means={})
        )
        for arm in ("tuned", "champion"):
            ledger.record_step(run_id, f"scores_{arm}", scores)
        ledger.finish_run(run_id, status="DONE", verdict="HOLD", exit_code=0)

    for number in range(3):
        judge(f"r{number}")
    judge("other-model", model="routing")
    judge("other-champion", version="2")
    judge("of-a-day", as_of="2026-05-31")
    for number in range(120):
        pipeline, model = ("demo", "replies") if number % 2 else ("other", "routing")
        ledger.record_skip(
            f"skip{number}", pipeline=pipeline, model_name=model, cause="schedule", scheduled_for="",
            decision=Decision(run=False, code="few", reason="too few"),
        )  # fmt: skip
    found = past_of(champion_of(tmp_path, "r0"), ledger, store).verdicts
    assert [(each.candidate, each.is_own) for each in found] == [
        ("train of r0", True), ("train of r1", False), ("train of r2", False),
    ]  # fmt: skip
    assert all(each.scores is not None for each in found)


def test_a_repeated_verdict_sees_what_it_saw_at_first(tmp_path: Path) -> None:
    scores = Scores(root=tmp_path, arm="champion", n_items=1, means={})
    own = PastVerdict("items0", "a", scores, is_own=True)
    later = tuple(PastVerdict(f"items{n}", "b", scores) for n in range(1, 3 + NEWEST))
    past = ChampionPast((own, *later))
    assert past.before("new", "c").verdicts == (own, *later[-NEWEST:])
    assert past.before("items3", "b").verdicts == (own, *later[:2])
    assert past.before("items0", "a").verdicts == ()  # the champion itself, once more
