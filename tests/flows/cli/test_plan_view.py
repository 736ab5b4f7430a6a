"""`tunegate plan` shows what a run needs from its machine, and why a step would run again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from flows.graph.keys import KeyParts
from tests.support.workplace import Workplace


def test_a_plan_does_not_check_this_machines_memory_for_remote_training(workplace: Workplace) -> None:
    found = workplace.json("plan", "small")
    assert found["training_memory_gib"] is not None
    assert found["training_path"].startswith(
        "the fast path; the model's own forward would take about 2.5 times its CPU"
    )
    workplace.declare(lambda document: document["pipelines"]["small"].update(engine="ray"))
    workplace.environ |= {"RAY_ADDRESS": "10.0.0.5:6379", "TUNEGATE_SHARED": "file:///mnt/shared"}
    found = workplace.json("plan", "small")
    assert found["training_memory_gib"] is found["training_path"] is None


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

    assert {step: reason for step, reason in why().items() if reason} == {"label_sources": "there is no champion yet"}
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
    assert workplace.json("plan", "small")["causes"]["new tickets"] == ["extract"]
    text = workplace.run("plan", "small").stdout
    assert "runs for: new tickets    extract" in text
    assert "new tickets; params.source.seed: 3 -> 4" in text


def test_a_plan_refuses_an_anchor_that_does_not_exist_even_before_the_first_run(empty_workplace: Workplace) -> None:
    def pin(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["gates"]["anchor"] = {"version": "7"}

    empty_workplace.declare(pin)
    for command in ("plan", "graph"):
        done = empty_workplace.run(command, "small")
        assert done.returncode == 2
        assert "gates.anchor.version is 7, and small has no such candidate; candidates: none" in done.stderr


def test_a_plan_before_curation_knows_rows_tokens_and_minutes(empty_workplace: Workplace) -> None:
    plan = empty_workplace.json("plan", "small")
    assert plan["source_rows"] > 240
    assert (plan["train_examples"], plan["held_out_items"], plan["optimiser_steps"]) == (32, 12, 6)
    assert 32 * 50 < plan["train_tokens"] < 32 * 512
    assert plan["sizes_from"] == "the rows of the source, before curation"
    assert plan["minutes"] > 0
    assert {rule["at_hand"] for rule in plan["gates"]} == {12}
    assert "a probe of this processor" in plan["minutes_from"]
    assert not list((empty_workplace.home / "store").glob("*/*"))
    # Of a first plan every step is new: the text says so once.
    shown = empty_workplace.run("plan", "small").stdout
    assert shown.count("never ran") == 1
    assert re.search(r"runs for: never ran +all \d+ steps that run", shown)
    assert sum(step["why"] == "never ran" for step in plan["steps"]) > 10
    # It names what the source lacks, and ends where it cannot be read, as a run would.
    empty_workplace.declare(
        lambda document: document["pipelines"]["small"]["train"].update(prompt={"user": "{rating}"})
    )
    assert any(
        "`rating`, which train.prompt.user needs" in each for each in empty_workplace.json("plan", "small")["warnings"]
    )
    source = {"kind": "files", "paths": ["t.csv"], "columns": {"body": "question"}}
    (empty_workplace.folder / "t.csv").write_text("id,text\n1,hello\n")
    empty_workplace.declare(lambda document: document["pipelines"]["small"].update(source=source))
    refused = empty_workplace.run("plan", "small")
    assert (refused.returncode, "TG0204" in refused.stderr) == (3, True)


def test_a_plan_as_of_a_day_is_that_of_the_run(workplace: Workplace) -> None:
    now = {"TUNEGATE_NOW": "2026-08-01T06:00:00+00:00"}
    rows = orjson.loads(workplace.run("plan", "small", "--as-of", "2026-07-12", "--json", **now).stdout)["source_rows"]
    assert 100 < rows < 240
    assert workplace.json("plan", "small")["steps"][0]["state"] == "reused"
    assert "TG0103" in workplace.run("plan", "small", "--as-of", "2026-08-01", **now).stderr
