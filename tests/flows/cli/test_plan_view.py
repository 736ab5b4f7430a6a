"""`tunegate plan` shows what a run needs from its machine, and why a step would run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flows.graph.keys import KeyParts

if TYPE_CHECKING:
    from tests.support.workplace import Workplace


def test_a_plan_does_not_check_this_machines_memory_for_remote_training(workplace: Workplace) -> None:
    assert workplace.json("plan", "small")["training_memory_gib"] is not None
    workplace.declare(lambda document: document["pipelines"]["small"].update(engine="ray"))
    workplace.environ |= {"RAY_ADDRESS": "10.0.0.5:6379", "TUNEGATE_SHARED": "file:///mnt/shared"}
    assert workplace.json("plan", "small")["training_memory_gib"] is None


def rewrite_keys(home: Path, step: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite a step's results as if made from other inputs."""
    for file in list((home / "keys" / step).glob("*.json")):
        parts = orjson.loads(file.read_bytes())
        change(parts)
        key = KeyParts.model_validate(parts).key
        file.with_name(f"{key}.json").write_bytes(orjson.dumps(parts))
        file.unlink()
        (home / "store" / step / file.stem).rename(home / "store" / step / key)


def test_a_plan_gives_a_reason_for_each_step_that_would_run_again(workplace: Workplace) -> None:
    def why() -> dict[str, str]:
        return {step["step"]: step["why"] for step in workplace.json("plan", "small")["steps"]}

    assert set(why().values()) == {""}
    warnings = workplace.json("plan", "small")["warnings"]
    assert any("max_new_tokens 4 cuts 100% of the replies" in warning for warning in warnings)
    rewrite_keys(workplace.home, "encode", lambda parts: parts["code"].update({"tasks.model.chat_format": "00"}))
    rewrite_keys(workplace.home, "train", lambda parts: parts["libraries"].update(torch="1.0"))
    rewrite_keys(workplace.home, "items", lambda parts: parts["inputs"].update(splits="00"))
    workplace.declare(
        lambda document: document["pipelines"]["small"]["curate"]["steps"][2].update(uses="dedup", threshold=0.7)
    )
    found = why()
    assert found["dedup"] == "params.step.threshold: 0.8 -> 0.7"
    assert found["encode"] == "code of tasks.model.chat_format changed"
    assert found["train"].startswith("torch 1.0 -> ")
    workplace.declare()
    assert why()["items"] == "input splits changed"
    workplace.declare(lambda document: document["pipelines"]["small"]["source"].update(seed=4))
    assert why()["extract"] == "new tickets; params.source.seed: 3 -> 4"
    text = workplace.run("plan", "small").stdout
    assert "new tickets; params.source.seed: 3 -> 4" in text
