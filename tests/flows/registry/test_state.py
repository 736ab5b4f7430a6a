"""What the gate reads from the ledger: the anchor, and how much evidence earlier verdicts have used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.graph.store import Obtained
from flows.ledger.ledger import Ledger
from flows.ledger.promotions import NEVER, Waits
from flows.ledger.rows import RunVerdict
from flows.registry.state import RegistryState, describe_champion, recipe_of, registry_state_of, terms_of
from schemas.artifacts import Artifact, BundleRef, ChampionRef, ModelRef
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from schemas.verdicts import Terms, UsedBudget, Verdict
from tasks.assess import user_metrics
from tasks.assess.looks import is_spent
from tests.support.refs import trained_ref
from tests.support.specs import pipeline_spec

REFRESH = {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.05}}


def artifact(digest: str) -> Artifact:
    return Artifact(root=Path("/x"), digest=digest)


def spec(**gates: Any) -> PipelineSpec:
    return pipeline_spec(register={"name": "replies"}, gates={"rules": [REFRESH], **gates})


def spec_with(*, rules: list[dict[str, Any]], **evaluate: Any) -> PipelineSpec:
    return pipeline_spec(register={"name": "replies"}, gates={"rules": rules}, evaluate=evaluate)


def judge(
    ledger: Ledger,
    run_id: str,
    items: str,
    model: str,
    *,
    gate: bool = True,
    name: str = "replies",
    by: PipelineSpec | None = None,
    verdict: Verdict = "HOLD",
) -> None:
    """Record a run that reached its gate, or failed at it; with `by` it has ended."""  # fmt: skip
    ledger.start_run(run_id, pipeline="demo", model_name=name, config_json="{}")
    ledger.set_digests(run_id, inputs="", code="", terms=terms_of(by or spec()))
    if by is not None:
        ledger.finish_run(run_id, status="DONE", verdict=verdict, exit_code=0)
    for step, digest in (("items", items), ("train", model)):
        ledger.record_step(run_id, step, Obtained(artifact(digest), "k", reused=False, seconds=0.0))
    if gate:
        ledger.record_step(run_id, "gate", Obtained(artifact("g"), "k", reused=False, seconds=0.0))
    else:
        ledger.record_failure(run_id, "gate", ValueError("no"))


def test_verdicts_on_the_same_items_and_looks_at_the_same_candidate_count_once_each(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a")
    judge(ledger, "2", "monday", "b")
    judge(ledger, "3", "monday", "b")  # a repeated look
    judge(ledger, "4", "monday", "c", gate=False)  # no verdict
    judge(ledger, "5", "tuesday", "b")
    judge(ledger, "6", "monday", "d", name="another name")
    registry_state = registry_state_of(spec(), ledger)
    assert registry_state.used_budget(artifact("monday"), artifact("z")) == UsedBudget(looks=0, verdicts=3)
    assert registry_state.used_budget(artifact("tuesday"), artifact("z")) == UsedBudget(looks=0, verdicts=1)
    wednesday = registry_state.used_budget(artifact("wednesday"), artifact("b"))
    assert (wednesday.looks, wednesday.edited, wednesday.verdicts) == (2, 0, 0)
    assert registry_state.used_budget(artifact("wednesday"), artifact("z")) == UsedBudget()


def test_sets_that_share_items_use_up_each_others_evidence(tmp_path: Path) -> None:
    """With another `max_items`, seed or name, the same items still judged the same candidates."""
    ledger = Ledger(tmp_path)
    for number, model in enumerate("abcd"):
        judge(ledger, str(number), "twelve", model, name=f"name {number}")
    judge(ledger, "5", "half", "e")
    judge(ledger, "6", "half", "a")
    ids = [f"t{number}" for number in range(24)]
    ledger.record_held_out("twelve", ids[:12])
    ledger.record_held_out("eleven", ids[:11])
    ledger.record_held_out("half", ids[6:18])
    ledger.record_held_out("others", ids[12:])
    registry_state = registry_state_of(spec(), ledger)
    assert registry_state.used_budget(artifact("twelve"), artifact("z")).verdicts == 5  # a to d, and half of e
    assert registry_state.used_budget(artifact("eleven"), artifact("z")).verdicts == 5  # a to d, and 5/11 of e
    assert registry_state.used_budget(artifact("half"), artifact("z")).verdicts == 4  # a and e, half of b, c and d
    assert registry_state.used_budget(artifact("others"), artifact("z")).verdicts == 1  # half of a and e each
    assert registry_state.used_budget(artifact("eleven"), artifact("a")).verdicts == 4  # its own verdicts are looks
    assert registry_state.used_budget(artifact("eleven"), artifact("a")).looks == 2
    assert registry_state.used_budget(artifact("unknown"), artifact("z")).verdicts == 0


def test_looks_at_a_growing_set_are_known_as_such(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ids = [f"t{number}" for number in range(24)]
    judge(ledger, "1", "small", "a")
    judge(ledger, "2", "larger", "a")
    for name, chosen in (("small", ids[:6]), ("larger", ids[:12]), ("all", ids), ("other", ids[3:20])):
        ledger.record_held_out(name, chosen)
    gone = registry_state_of(spec(), ledger)
    registry_state = replace(gone, changed_items=lambda *_: 0)
    found = {
        name: registry_state.used_budget(artifact(name), artifact("a"))
        for name in ("all", "other", "larger", "unknown")
    }
    assert {name: (each.looks, each.nested) for name, each in found.items()} == {
        "all": (2, (6, 12)), "other": (2, ()), "larger": (1, (6,)), "unknown": (2, ()),
    }  # fmt: skip

    # What they share is not the evidence of then if references were corrected, or is not known to be.
    corrected = replace(gone, changed_items=lambda digest, _: int(digest == "small"))
    for state, changed in ((gone, 0), (corrected, 1)):
        used = state.used_budget(artifact("all"), artifact("a"))
        assert (used.looks, used.nested, used.changed) == (2, (), changed)


def test_other_rules_on_the_same_items_are_a_look_after_a_refusal(tmp_path: Path) -> None:
    """Of six settings of a gate, an equal candidate passes one in 76 %."""
    ledger = Ledger(tmp_path)
    wider = {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.1}}
    strict, loose = spec(looks={"max": 3}), spec(looks={"max": 3}, rules=[wider])

    def used(by: PipelineSpec, model: str = "a") -> UsedBudget:
        return registry_state_of(by, ledger).used_budget(artifact("monday"), artifact(model))

    judge(ledger, "1", "monday", "a", by=strict)
    assert used(strict) == UsedBudget(), "a repeated look"
    assert used(spec(looks={"max": 3}, power={"effect": 0.01}, strict_power=True, interim={})) == UsedBudget()
    first = pytest.approx(0.0007, abs=5e-5)
    assert (used(loose).looks, used(loose).edited, used(loose).spent, used(loose).nested) == (1, 1, (first,), ())
    assert used(loose, "b") == UsedBudget(verdicts=1), "of another candidate it is a verdict as before"
    for evaluate in (
        {"fields": "(?P<category>[a-z]+)"}, {"max_new_tokens": 9}, {"arms": ["zero_shot"]}, {"seed": 1},
    ):  # fmt: skip
        assert used(spec_with(rules=[REFRESH], **evaluate)).looks == 1, evaluate
    judge(ledger, "2", "monday", "a", by=loose, verdict="BLOCK")
    assert (used(strict), used(loose).looks) == (UsedBudget(), 1), "each as it was the first time"
    narrower = {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.01}}
    third = used(spec(looks={"max": 3}, rules=[narrower]))
    assert (third.looks, third.edited, sum(third.spent)) == (2, 2, pytest.approx(0.0164, abs=5e-5))


def test_what_a_look_spent_is_what_its_own_gates_declared(tmp_path: Path) -> None:
    """Whoever allows more looks after a HOLD has spent the error probability already."""
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a", by=spec())
    more = spec(looks={"max": 3})
    used = registry_state_of(more, ledger).used_budget(artifact("tuesday"), artifact("a"))
    assert (used.looks, used.edited, used.spent) == (1, 0, (pytest.approx(0.05),))
    assert is_spent(more.gates, used)
    assert not is_spent(spec(looks={"max": 3}, confidence=0.9).gates, used)


def test_repeating_a_look_with_another_share_of_the_error_probability_spends_the_largest(tmp_path: Path) -> None:
    """Three declared looks, one after the first HOLD, and three again would spend it all and a third more."""
    ledger = Ledger(tmp_path)
    more = spec(looks={"max": 3})
    for run_id, by in (("1", more), ("2", spec()), ("3", more)):
        assert registry_state_of(by, ledger).used_budget(artifact("monday"), artifact("a")) == UsedBudget()
        judge(ledger, run_id, "monday", "a", by=by)
    used = registry_state_of(more, ledger).used_budget(artifact("tuesday"), artifact("a"))
    assert (used.looks, used.spent) == (1, (pytest.approx(0.05),))
    assert is_spent(more.gates, used)


def test_the_order_of_the_rules_may_change_and_the_code_of_a_metric_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terms(*rules: dict[str, Any]) -> Terms:
        metric = {"uses": "entry_point", "name": "polite", "continuous": True, "higher_is_better": True}
        return terms_of(spec_with(rules=list(rules), metrics=[metric]))

    limit = {"metric": "polite", "value_threshold": 0.5}
    not_installed = terms(limit, REFRESH)
    assert not_installed == terms(REFRESH, limit)
    digest = iter(["one", "one", "another"])
    monkeypatch.setattr(user_metrics, "entry_point_digest", lambda _: next(digest))
    before, same, edited = (terms(limit, REFRESH) for _ in range(3))
    assert before == same
    assert len({each.rules for each in (not_installed, before, edited)}) == 3


def test_a_lower_target_of_what_is_routed_is_an_edited_rule_where_one_judges_it() -> None:
    def rules(metric: str, target: float) -> str:
        judged = {"metric": metric, "value_threshold": 0.3}
        abstain = {"field": "category", "target": target}
        return terms_of(spec_with(rules=[judged], fields=r"\[(?P<category>\w+)\]", abstain=abstain)).rules

    assert rules("coverage", 0.95) != rules("coverage", 0.9)
    assert rules("exact", 0.95) == rules("exact", 0.9)


def test_rules_may_change_while_a_candidate_waits_for_a_person(tmp_path: Path) -> None:
    """Its run ended in HOLD, but the gate refused nothing."""
    ledger = Ledger(tmp_path)
    judge(ledger, "r1", "monday", "a", by=spec(), verdict="HOLD")
    stricter = spec(min_items=60)
    assert registry_state_of(stricter, ledger).used_budget(artifact("monday"), artifact("a")).looks == 1
    promote(ledger, 1, None, waits=Waits(approval=True))
    assert registry_state_of(stricter, ledger).used_budget(artifact("monday"), artifact("a")) == UsedBudget()


def test_rules_whose_verdict_was_an_error_are_edited_ones_after_a_refusal_by_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    loose = spec(confidence=0.9)
    judge(ledger, "1", "monday", "a", by=loose, verdict="ERROR")
    assert registry_state_of(loose, ledger).used_budget(artifact("monday"), artifact("a")) == UsedBudget()
    judge(ledger, "2", "monday", "a", by=spec())
    assert registry_state_of(loose, ledger).used_budget(artifact("monday"), artifact("a")).edited == 1


@pytest.mark.parametrize("verdict", ["PROMOTE", "UNCOMPARED", "ERROR"])
def test_an_edit_is_no_look_where_nothing_was_refused(verdict: Verdict, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a", by=spec(), verdict=verdict)
    edited = registry_state_of(spec(min_items=60), ledger)
    assert edited.used_budget(artifact("monday"), artifact("a")) == UsedBudget()
    assert edited.used_budget(artifact("tuesday"), artifact("a")).looks == 1, "other items are"


def test_later_verdicts_do_not_change_a_repeated_verdict(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a")
    first = registry_state_of(spec(), ledger).used_budget(artifact("monday"), artifact("b"))
    for run_id, items, model in (("2", "monday", "b"), ("3", "monday", "c"), ("4", "tuesday", "b")):
        judge(ledger, run_id, items, model)
    assert (
        registry_state_of(spec(), ledger).used_budget(artifact("monday"), artifact("b"))
        == first
        == UsedBudget(verdicts=1)
    )
    assert registry_state_of(spec(), ledger).used_budget(artifact("tuesday"), artifact("b")).looks == 1


def test_of_a_past_day_later_verdicts_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    for day, items, model in ((1, "monday", "a"), (2, "monday", "b"), (3, "tuesday", "b")):
        monkeypatch.setenv("TUNEGATE_NOW", f"2026-06-0{day}T23:00:00+00:00")
        judge(ledger, str(day), items, model)
        monkeypatch.setenv("TUNEGATE_NOW", f"2026-06-0{day + 1}T01:00:00+00:00")  # the verdict is of the next day
        ledger.finish_run(str(day), status="DONE", verdict="HOLD", exit_code=8)
    judge(ledger, "4", "wednesday", "b")  # still running
    found = {
        day: registry_state_of(spec(), ledger, before=f"2026-06-0{day}T00:00:00+00:00")
        .used_budget(artifact("thursday"), artifact("b"))
        .looks
        for day in (1, 2, 3, 4, 5)
    }
    assert found == {1: 0, 2: 0, 3: 0, 4: 1, 5: 2}
    earlier = registry_state_of(spec(), ledger, before="2026-06-03T00:00:00+00:00")
    assert earlier.used_budget(artifact("monday"), artifact("z")) == UsedBudget(verdicts=1)
    assert registry_state_of(spec(), ledger).used_budget(artifact("thursday"), artifact("b")).looks == 3


def test_before_the_first_run_no_budget_is_used(tmp_path: Path) -> None:
    for registry_state in (RegistryState(), registry_state_of(spec(), Ledger(tmp_path))):
        assert registry_state.used_budget(artifact("a"), artifact("b")) == UsedBudget()


def promote(ledger: Ledger, number: int, expected: str | None, *, better_than: str = "", waits: Waits = NEVER) -> None:
    root = ledger.root / "store"
    ref = ChampionRef(
        name="replies", version="", run_id=f"r{number}",
        model=ModelRef(root=root, digest="base", uri="m", n_parameters=1, vocab_size=1, context_length=1),
        trained=trained_ref(root, digest=f"t{number}"),
        prompt=PromptSpec(), max_new_tokens=8, bundle=BundleRef(root=root, digest=f"b{number}", n_bytes=1),
        verdict_digest="v", promoted_at="",
    )  # fmt: skip
    evidence = {"better_than": better_than}
    version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better", evidence=evidence)
    ledger.promote("replies", expected=expected, version=version, verdict=RunVerdict(ref.run_id, "better"), waits=waits)


def test_the_anchor_is_the_best_champion_or_the_pinned_version(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert registry_state_of(spec(), ledger).anchor is None
    for number, expected in ((1, None), (2, "1"), (3, "2")):
        promote(ledger, number, expected, better_than="1" if number == 2 else "")
    registry_state = registry_state_of(spec(), ledger)
    assert registry_state.champion is not None
    assert registry_state.anchor is not None
    assert (registry_state.champion.version, registry_state.anchor.version) == ("3", "2")
    pinned = registry_state_of(spec(anchor={"version": "1"}), ledger).anchor
    assert pinned is not None
    assert pinned.trained.digest == "t1"
    assert registry_state_of(spec(anchor=None), ledger).anchor is None
    improve = {"metric": "exact", "change_threshold": {"mode": "improve"}}
    assert registry_state_of(spec(rules=[improve]), ledger).anchor is None


def test_two_trainings_of_one_recipe_share_a_fault_whatever_their_seed() -> None:
    def recipe(**sections: Any) -> str:
        return recipe_of(pipeline_spec(register={"name": "replies"}, gates={"rules": [REFRESH]}, **sections))

    same = recipe(train={"base_model": "m"})
    assert recipe(train={"base_model": "m", "seed": 9, "threads": 2, "save_every": 5}) == same
    assert recipe(train={"base_model": "m", "epochs": 2}) != same
    assert recipe(train={"base_model": "m"}, curate={"corrections": "fixes.jsonl"}) == same
    assert recipe(train={"base_model": "m"}, curate={"steps": [{"uses": "dedup"}]}) != same


def test_a_champion_that_learned_other_answers_is_named(tmp_path: Path) -> None:
    """It loses every comparison, so that a candidate worse than the base model would replace it."""
    ledger = Ledger(tmp_path)
    other = pipeline_spec(register={"name": "replies"}, train={"base_model": "m", "prompt": {"answer": "{body}"}})
    assert describe_champion(other, registry_state_of(other, ledger)) is None
    promote(ledger, 1, None)
    assert describe_champion(spec(), registry_state_of(spec(), ledger)) is None
    warning = describe_champion(other, registry_state_of(other, ledger))
    assert warning is not None
    assert "champion version 1 learned to answer '{reply}', and answers are compared with '{body}' now" in warning


def test_an_unknown_pinned_version_is_refused_before_anything_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    promote(ledger, 1, None)
    with pytest.raises(ConfigError, match="TG0196") as caught:
        registry_state_of(spec(anchor={"version": "9"}), ledger)
    assert "candidates: v1" in caught.value.message


def test_the_champion_of_a_past_moment_is_the_one_that_the_ledger_recorded_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "store").mkdir()
    for number, expected in ((1, None), (2, "1")):
        monkeypatch.setenv("TUNEGATE_NOW", f"2026-06-0{number}T12:00:00+00:00")
        promote(ledger, number, expected)
    ledger.rollback("replies", expected="2", to="1", reason="worse", actor="me")
    found = [
        registry_state_of(spec(), ledger, before=f"2026-06-0{day}T00:00:00+00:00").champion for day in (1, 2, 3)
    ]  # fmt: skip
    assert [ref and ref.version for ref in found] == [None, "1", "1"]
    assert found[1] is not None
    assert found[1].promoted_at == "2026-06-01T12:00:00+00:00"
    (tmp_path / "store").rmdir()
    with pytest.raises(ConfigError, match="TG0159"):
        registry_state_of(spec(), ledger, before="2026-06-02T00:00:00+00:00")


def test_looks_by_edited_rules_are_not_those_of_one_growing_comparison(tmp_path: Path) -> None:
    """The levels of nested sets count on what two looks have in common, and other rules have less."""
    ledger = Ledger(tmp_path)
    three, edited = spec(looks={"max": 3}), spec(looks={"max": 3}, min_items=60)
    judge(ledger, "1", "small", "a", by=three)
    for name, n in (("small", 6), ("larger", 12)):
        ledger.record_held_out(name, [f"t{number}" for number in range(n)])
    found = {
        by: replace(registry_state_of(each, ledger), changed_items=lambda *_: 0).used_budget(
            artifact("larger"), artifact("a")
        )
        for by, each in (("same", three), ("edited", edited))
    }
    assert (found["same"].nested, found["edited"].nested) == ((6,), ())
    assert found["same"].spent == found["edited"].spent


def test_what_a_declared_look_spent_follows_from_its_items(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    by = spec(looks={"at": [6, 12, 18], "spend": "equal"})
    judge(ledger, "1", "larger", "a", by=by)
    ledger.record_held_out("larger", [f"t{number}" for number in range(12)])
    ledger.record_held_out("all", [f"t{number}" for number in range(18)])
    state = registry_state_of(by, ledger)
    assert state.used_budget(artifact("all"), artifact("a")).spent == (pytest.approx(0.1 / 3),)
    assert [each.held_out for each in state.looks_at("a")] == ["larger"]
