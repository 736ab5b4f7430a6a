"""`tunegate plan` says what a run needs of the machine that it runs on, and why a step would run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flows.graph.keys import KeyParts

if TYPE_CHECKING:
    from tests.support.workplace import Workplace


def test_a_plan_does_not_ask_this_machine_for_the_memory_of_others(workplace: Workplace) -> None:
    assert workplace.json("plan", "small")["training_memory_gib"] is not None
    workplace.declare(lambda document: document["pipelines"]["small"].update(engine="ray"))
    workplace.environ |= {"RAY_ADDRESS": "10.0.0.5:6379", "TUNEGATE_SHARED": "file:///mnt/shared"}
    assert workplace.json("plan", "small")["training_memory_gib"] is None


def made_otherwise(home: Path, step: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the results of a step have been made from something else than they were."""
    for file in list((home / "keys" / step).glob("*.json")):
        parts = orjson.loads(file.read_bytes())
        change(parts)
        key = KeyParts.model_validate(parts).key
        file.with_name(f"{key}.json").write_bytes(orjson.dumps(parts))
        file.unlink()
        (home / "store" / step / file.stem).rename(home / "store" / step / key)


def test_a_plan_says_why_each_step_would_run_again(workplace: Workplace) -> None:
    def why() -> dict[str, str]:
        return {step["step"]: step["why"] for step in workplace.json("plan", "small")["steps"]}

    assert set(why().values()) == {""}
    made_otherwise(workplace.home, "encode", lambda parts: parts["code"].update({"tasks.model.chat_format": "00"}))
    made_otherwise(workplace.home, "train", lambda parts: parts["libraries"].update(torch="1.0"))
    made_otherwise(workplace.home, "items", lambda parts: parts["inputs"].update(splits="00"))
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
