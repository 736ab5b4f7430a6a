"""What the ledger tells the gate: the anchor, and how much evidence earlier verdicts used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.context.registry_state import Standing, standing_of
from flows.graph.store import Obtained
from flows.ledger.ledger import Ledger
from schemas.artifacts import Artifact, BundleRef, ChampionRef, ModelRef, TrainedRef
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from schemas.verdicts import Spent

REFRESH = {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.05}}


def artifact(digest: str) -> Artifact:
    return Artifact(root=Path("/x"), digest=digest)


def spec(**gates: Any) -> PipelineSpec:
    return PipelineSpec.model_validate({
        "name": "demo", "source": {"kind": "generated"}, "train": {"base_model": "m"}, "register": {"name": "replies"},
        "gates": {"rules": [REFRESH], **gates},
    })  # fmt: skip


def judge(ledger: Ledger, run_id: str, items: str, model: str, *, gate: bool = True, name: str = "replies") -> None:
    """A run that came to its gate, or failed at it."""
    ledger.start_run(run_id, pipeline="demo", model_name=name, input_digest="", config_json="{}")
    for step, digest in (("items", items), ("train", model)):
        ledger.record_step(run_id, step, Obtained(artifact(digest), "k", reused=False, seconds=0.0))
    if gate:
        ledger.record_step(run_id, "gate", Obtained(artifact("g"), "k", reused=False, seconds=0.0))
    else:
        ledger.record_failure(run_id, "gate", ValueError("no"))


def test_verdicts_on_the_same_items_and_looks_at_the_same_candidate_are_counted_once_each(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a")
    judge(ledger, "2", "monday", "b")
    judge(ledger, "3", "monday", "b")  # again: the same look
    judge(ledger, "4", "monday", "c", gate=False)  # no verdict was given
    judge(ledger, "5", "tuesday", "b")
    judge(ledger, "6", "monday", "d", name="another name")
    standing = standing_of(spec(), ledger)
    assert standing.spent(artifact("monday"), artifact("z")) == Spent(looks=0, verdicts=3)
    assert standing.spent(artifact("tuesday"), artifact("z")) == Spent(looks=0, verdicts=1)
    assert standing.spent(artifact("wednesday"), artifact("b")) == Spent(looks=2, verdicts=0)
    assert standing.spent(artifact("wednesday"), artifact("z")) == Spent()


def test_sets_that_share_items_spend_each_others_evidence(tmp_path: Path) -> None:
    """Another `max_items`, another seed, another name: the same items have judged the same candidates."""
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
    standing = standing_of(spec(), ledger)
    assert standing.spent(artifact("twelve"), artifact("z")).verdicts == 5  # a to d, and half of e
    assert standing.spent(artifact("eleven"), artifact("z")).verdicts == 5  # a to d, and 5/11 of e
    assert standing.spent(artifact("half"), artifact("z")).verdicts == 4  # a and e, half of b, c and d
    assert standing.spent(artifact("others"), artifact("z")).verdicts == 1  # half of a and e each
    assert standing.spent(artifact("eleven"), artifact("a")).verdicts == 4  # its own verdicts are looks
    assert standing.spent(artifact("eleven"), artifact("a")).looks == 2
    assert standing.spent(artifact("unknown"), artifact("z")).verdicts == 0


def test_what_came_after_a_verdict_does_not_change_it_when_it_is_given_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judge(ledger, "1", "monday", "a")
    first = standing_of(spec(), ledger).spent(artifact("monday"), artifact("b"))
    for run_id, items, model in (("2", "monday", "b"), ("3", "monday", "c"), ("4", "tuesday", "b")):
        judge(ledger, run_id, items, model)
    assert standing_of(spec(), ledger).spent(artifact("monday"), artifact("b")) == first == Spent(verdicts=1)
    assert standing_of(spec(), ledger).spent(artifact("tuesday"), artifact("b")) == Spent(looks=1)


def test_without_a_ledger_nothing_is_known_and_nothing_is_spent() -> None:
    assert standing_of(spec(), None) == Standing()
    assert Standing().spent(artifact("a"), artifact("b")) == Spent()


def champion(ledger: Ledger, number: int, expected: str | None) -> None:
    root = ledger.root / "store"
    ref = ChampionRef(
        name="replies", version="", run_id=f"r{number}",
        model=ModelRef(root=root, digest="base", uri="m", n_parameters=1, vocab_size=1, context_length=1),
        trained=TrainedRef(root=root, digest=f"t{number}", method="lora", format="instruction", base_digest="base",
                           n_trainable=1, n_steps=1, n_tokens=1, train_loss=1.0),
        prompt=PromptSpec(), max_new_tokens=8, bundle=BundleRef(root=root, digest="b", n_bytes=1),
        verdict_digest="v", promoted_at="",
    )  # fmt: skip
    version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better")
    ledger.promote("replies", expected=expected, version=version, run_id=ref.run_id, reason="better")


def test_the_anchor_is_the_first_champion_or_the_pinned_version(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert standing_of(spec(), ledger).anchor is None
    for number, expected in ((1, None), (2, "1"), (3, "2")):
        champion(ledger, number, expected)
    standing = standing_of(spec(), ledger)
    assert standing.champion is not None
    assert standing.anchor is not None
    assert (standing.champion.version, standing.anchor.version) == ("3", "1")
    pinned = standing_of(spec(anchor={"version": "2"}), ledger).anchor
    assert pinned is not None
    assert pinned.trained.digest == "t2"
    assert standing_of(spec(anchor=None), ledger).anchor is None
    improve = {"metric": "exact", "change_threshold": {"mode": "improve"}}
    assert standing_of(spec(rules=[improve]), ledger).anchor is None


def test_a_pinned_version_that_is_not_there_is_named_before_anything_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    champion(ledger, 1, None)
    with pytest.raises(ConfigError, match="TG0196") as caught:
        standing_of(spec(anchor={"version": "9"}), ledger)
    assert "there are: v1" in caught.value.message
