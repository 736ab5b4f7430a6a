"""Planted regressions in the toy world: each is stopped by the part of the gate meant for it, and the champion stays.

All scenes share one champion. Every step runs as usual, except that training is a fork of this process, which has
torch loaded, instead of a new process.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.forked import ALONE, Forked
from benchmarks.regressions import (
    CHAMPION,
    PLANTED,
    SAME,
    SCENES,
    Played,
    Scene,
    parts_table,
    play,
    scenes_table,
    toy_world,
)
from tasks.train import launch

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    folder: Path = tmp_path_factory.mktemp("regressions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_start", Forked)
        for name, value in ALONE.items():
            patch.setenv(name, value)
        patch.delenv("TUNEGATE_HOME", raising=False)
        config = toy_world(folder).write(folder)
        yield {scene.name: play(scene, config) for scene in SCENES}


def test_the_first_champion_beats_the_best_prompting_arm(campaign: dict[str, Played]) -> None:
    first = campaign[CHAMPION.name]
    assert first.as_declared, first.decision.reason
    assert first.champion == "1"
    assert {finding.part for finding in first.decision.findings} >= {"contamination", "primary", "slices", "forgetting"}


@pytest.mark.parametrize("scene", SAME, ids=lambda scene: scene.name)
def test_a_candidate_equal_to_the_champion_is_held_in_both_modes(scene: Scene, campaign: dict[str, Played]) -> None:
    twin = campaign[scene.name]
    assert twin.decision.verdict == "HOLD", twin.decision.reason
    assert twin.as_declared
    assert twin.finding is not None
    assert (twin.finding.won, twin.finding.lost, twin.finding.difference) == (0, 0, 0.0)


@pytest.mark.parametrize("scene", PLANTED, ids=lambda scene: scene.name)
def test_a_planted_regression_is_stopped_by_its_part_of_the_gate(scene: Scene, campaign: dict[str, Played]) -> None:
    result = campaign[scene.name]
    assert result.as_declared, [(each.part, each.verdict, each.reason) for each in result.decision.findings]
    assert result.champion == "1"


def test_a_fault_triggers_no_other_part_of_the_gate(campaign: dict[str, Played]) -> None:
    """A ruined slice despite a gain overall, a ruined base despite correct tickets, a leak despite the best score."""
    for name, ruined in (("slice", "slices"), ("destroyed", "forgetting"), ("leaked", "contamination")):
        # Latency is reported and decides nothing: it depends on the machine's load.
        findings = [each for each in campaign[name].decision.findings if each.decides]
        blamed = {each.part for each in findings if each.verdict in ("BLOCK", "ERROR")}
        # At such a learning rate, rounding, and so the processor, decides whether a slice is lost too.
        assert blamed - ({"slices"} if name == "destroyed" else set()) == {ruined}, name
        assert campaign[name].exact > campaign[CHAMPION.name].exact
    assert "Lamp" in campaign["slice"].decision.reason


def test_seconds_and_dollars_are_reported_and_decide_nothing_on_a_cpu(campaign: dict[str, Played]) -> None:
    for result in campaign.values():
        found = {each.part: each for each in result.decision.findings}
        assert not found["latency"].decides
        assert not found["cost"].decides
        assert found["latency"].candidate is None  # digests must not depend on the clock
        assert result.seconds["latency_p95_s"] >= result.seconds["latency_p50_s"] > 0
        assert result.seconds["usd_per_1k"] > 0


def test_the_report_has_every_scene(campaign: dict[str, Played]) -> None:
    result = list(campaign.values())
    assert len(scenes_table(result).splitlines()) == len(parts_table(result).splitlines()) == 2 + len(SCENES)
