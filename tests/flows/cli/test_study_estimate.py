"""`tunegate study estimate` and `tunegate data preview`, by the real command."""

from tests.support.workplace import Workplace


def test_estimate_works_for_a_known_base_without_a_pipelines_file(bare_workplace: Workplace) -> None:
    result = bare_workplace.json(
        "study", "estimate", "--base", "llama-2-7b", "--target", "q_proj", "--target", "v_proj"
    )
    by_method = {row["method"]: row for row in result["methods"]}
    assert result["n_parameters"] == 6_738_415_616
    assert by_method["lora"]["n_trainable"] == 8_388_608
    assert by_method["qlora"]["smallest_card"] == "24 GB"
    assert by_method["full"]["free_share"]["80 GB"] < 0
    table = bare_workplace.run("study", "estimate", "--base", "llama-2-7b").stdout
    assert "39,976,960 (0.5933%)" in table


def test_estimate_counts_a_mixture_of_experts_and_leaves_out_what_cannot_load_it(bare_workplace: Workplace) -> None:
    table = bare_workplace.run("study", "estimate", "--base", "mistralai/Mixtral-8x7B-Instruct-v0.1").stdout
    assert "46,702,792,704 parameters (12,879,925,248 for each token)" in table
    assert "qlora cannot load this model" in table
    assert "\nqlora  " not in table


def test_estimate_reads_the_shapes_of_a_pipelines_own_base(empty_workplace: Workplace) -> None:
    result = empty_workplace.json("study", "estimate", "small")
    assert result["n_parameters"] < 1_000_000
    assert all(row["smallest_card"] == "24 GB" for row in result["methods"])
    # The fixture made MLflow's store, the command its temporary folder.
    assert sorted(path.name for path in empty_workplace.home.iterdir()) == ["mlflow", "tmp"]
    assert list((empty_workplace.home / "tmp").iterdir()) == []


def test_preview_shows_which_tokens_carry_loss_and_trains_nothing(workplace: Workplace) -> None:
    trained = {path.name for path in (workplace.home / "store" / "train").iterdir()}
    result = workplace.json("data", "preview", "small", "-n", "4")
    assert len(result["examples"]) == 4
    for example in result["examples"]:
        assert len(example["input_ids"]) == len(example["loss_mask"]) == sum(run["n_tokens"] for run in example["runs"])
        prompt, answer = example["runs"]
        assert (prompt["carries_loss"], answer["carries_loss"]) == (False, True)
        assert prompt["text"].endswith("<|im_start|>assistant\n")
        assert answer["text"].endswith("<|im_end|>")
        assert answer["n_tokens"] == sum(example["loss_mask"])
    assert {path.name for path in (workplace.home / "store" / "train").iterdir()} == trained
    assert workplace.json("runs") == {"runs": []}
    plain = workplace.run("data", "preview", "small", "-n", "1").stdout
    assert f"ticket {result['examples'][0]['ticket_id']}:" in plain
    assert f"⟦{result['examples'][0]['runs'][1]['text']}⟧" in plain
