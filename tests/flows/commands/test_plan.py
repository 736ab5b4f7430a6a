"""`tunegate plan` says what a run needs of the machine that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.workplace import Workplace


def test_a_plan_does_not_ask_this_machine_for_the_memory_of_others(workplace: Workplace) -> None:
    assert workplace.json("plan", "small")["training_memory_gib"] is not None
    workplace.declare(lambda document: document["pipelines"]["small"].update(engine="ray"))
    workplace.environ |= {"RAY_ADDRESS": "10.0.0.5:6379", "TUNEGATE_SHARED": "file:///mnt/shared"}
    assert workplace.json("plan", "small")["training_memory_gib"] is None
