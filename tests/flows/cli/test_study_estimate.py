"""`tunegate study estimate` and `tunegate data preview`, by the real command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.workplace import Workplace


def test_estimate_answers_for_a_known_base_without_a_pipeline_file(bare_workplace: Workplace) -> None:
    told = bare_workplace.json("study", "estimate", "--base", "llama-2-7b", "--target", "q_proj", "--target", "v_proj")
    by_method = {row["method"]: row for row in told["methods"]}
    assert told["n_parameters"] == 6_738_415_616
    assert by_method["lora"]["n_trainable"] == 8_388_608
    assert by_method["qlora"]["smallest_card"] == "24 GB"
    assert by_method["full"]["free_share"]["80 GB"] < 0
    table = bare_workplace.run("study", "estimate", "--base", "llama-2-7b").stdout
    assert "39,976,960 (0.5933%)" in table


def test_estimate_reads_the_shapes_of_a_pipelines_own_base(empty_workplace: Workplace) -> None:
    told = empty_workplace.json("study", "estimate", "small")
    assert told["n_parameters"] < 1_000_000
    assert all(row["smallest_card"] == "24 GB" for row in told["methods"])
    # The fixture put MLflow's store there, and a command its temporary files.
    assert sorted(path.name for path in empty_workplace.home.iterdir()) == ["mlflow", "tmp"]
    assert list((empty_workplace.home / "tmp").iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("small", "--base", "llama-2-7b")])
def test_estimate_wants_one_of_pipeline_and_base(workplace: Workplace, arguments: tuple[str, ...]) -> None:
    done = workplace.run("study", "estimate", *arguments)
    assert done.returncode == 2
    assert "TG0139" in done.stderr


def test_preview_shows_what_carries_loss_and_trains_nothing(workplace: Workplace) -> None:
    trained = {path.name for path in (workplace.home / "store" / "train").iterdir()}
    told = workplace.json("data", "preview", "small", "-n", "4")
    assert len(told["examples"]) == 4
    for example in told["examples"]:
        assert len(example["input_ids"]) == len(example["loss_mask"]) == sum(run["n_tokens"] for run in example["runs"])
        prompt, answer = example["runs"]
        assert (prompt["carries_loss"], answer["carries_loss"]) == (False, True)
        assert prompt["text"].endswith("<|im_start|>assistant\n")
        assert answer["text"].endswith("<|im_end|>")
        assert answer["n_tokens"] == sum(example["loss_mask"])
    assert {path.name for path in (workplace.home / "store" / "train").iterdir()} == trained
    assert workplace.json("runs") == {"runs": []}
    plain = workplace.run("data", "preview", "small", "-n", "1").stdout
    assert f"ticket {told['examples'][0]['ticket_id']}:" in plain
    assert f"⟦{told['examples'][0]['runs'][1]['text']}⟧" in plain
