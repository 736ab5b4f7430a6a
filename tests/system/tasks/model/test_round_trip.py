"""The candidate's files, loaded in another process, give the candidate's answers; changed files are found."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tasks.assess.checks  # registers the checks
from schemas.artifacts import CheckEvidence, ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import GateError
from schemas.evaluation import DecodingSpec
from schemas.gates import GateRule, GatesSpec
from schemas.training import TrainSpec
from tasks.assess.check import check_findings
from tasks.model.divergence import measure_divergence
from tasks.model.generate import generate_answers
from tasks.model.round_trip import check_round_trip, is_intact
from tasks.storage.sealed_folder import seal
from tests.support.trained import save_perturbed

Trip = Callable[..., CheckEvidence]
DECODING = DecodingSpec(max_new_tokens=4, batch_size=8, threads=1, dtype="float32")


@pytest.fixture(scope="module")
def candidate(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> TrainedRef:
    """An adapter that changes the answers, as after training."""
    spec = TrainSpec(base_model="file:tiny", dtype="float32")
    trained = save_perturbed(tiny_model, spec, tmp_path_factory.mktemp("trained"), seed=1)
    return trained.model_copy(update={"digest": seal(trained.root)})


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    root = tmp_path_factory.mktemp("prompts")
    turns = [f'[{{"role":"user","content":"Lamp number {number} does not work."}}]' for number in range(5)]
    table = {"item_id": [f"i{number}" for number in range(5)], "messages": turns, "answer": ["We are sorry."] * 5}
    pq.write_table(pa.table(table), root / "prompts.parquet")
    pq.write_table(
        pa.table({"text": ["The lamp was switched on.", "Hello again, dear reader."]}), root / "neutral.parquet"
    )
    return PromptSet(root=root, arm="tuned", format="instruction", n_items=5)


@pytest.fixture(scope="module")
def trip(
    tiny_model: ModelRef, candidate: TrainedRef, prompts: PromptSet, tmp_path_factory: pytest.TempPathFactory
) -> Trip:
    new, scratch = tmp_path_factory.mktemp("answers"), tmp_path_factory.mktemp("scratch")
    answered: Predictions = generate_answers(
        prompts=prompts, model=tiny_model, trained=candidate, decoding=DECODING, out=new, scratch=scratch
    )

    def run(**change: Any) -> CheckEvidence:
        given = {
            "prompts": prompts, "predictions": answered, "model": tiny_model, "trained": candidate,
            "decoding": DECODING, "n_prompts": 3, "out": tmp_path_factory.mktemp("trip"),
        } | change  # fmt: skip
        return check_round_trip(**given)

    return run


def test_in_bfloat16_another_batch_may_sum_in_another_order(
    trip: Trip, tiny_model: ModelRef, candidate: TrainedRef, prompts: PromptSet, tmp_path: Path
) -> None:
    half = DECODING.model_copy(update={"dtype": "bfloat16"})
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    answered = generate_answers(
        prompts=prompts, model=tiny_model, trained=candidate, decoding=half, out=tmp_path / "out",
        scratch=tmp_path / "scratch",
    )  # fmt: skip
    evidence = trip(predictions=answered, decoding=half)
    assert evidence.values["float32"] == 0
    assert evidence.values["mean_gap"] is not None
    assert evidence.values["mean_gap"] < 0.05
    assert verdict(evidence) == "PROMOTE"


def verdict(evidence: CheckEvidence) -> str:
    gates = GatesSpec(rules=(GateRule(metric="exact", value_threshold=0.5),), contamination=None)
    [finding] = check_findings([evidence], gates)
    return finding.verdict


def test_a_new_process_gives_the_candidates_answers(trip: Trip) -> None:
    evidence = trip()
    assert (evidence.n_items, evidence.values["equal_answers"]) == (3, 3)
    assert evidence.values["mean_gap"] is not None
    assert evidence.values["mean_gap"] < 1e-5
    assert verdict(evidence) == "PROMOTE"
    assert "Lamp" not in (evidence.root / "evidence.json").read_text()
    assert verdict(evidence.model_copy(update={"values": evidence.values | {"mean_gap": None}})) == "ERROR"
    assert verdict(evidence.model_copy(update={"n_items": 0})) == "ERROR"
    for name in ("base_intact", "candidate_intact"):
        assert verdict(evidence.model_copy(update={"values": evidence.values | {name: 0.0}})) == "ERROR"


def test_files_other_than_the_judged_ones_are_found(trip: Trip, candidate: TrainedRef, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(candidate.root, other)
    tensors = load_file(other / "adapter_model.safetensors")
    save_file(
        {name: 2 * tensor for name, tensor in tensors.items()}, other / "adapter_model.safetensors", {"format": "pt"}
    )
    assert is_intact(candidate)
    assert not is_intact(candidate.model_copy(update={"root": other}))
    resealed = trip(trained=candidate.model_copy(update={"root": other, "digest": seal(other)}))
    assert resealed.values["candidate_intact"] == 1
    assert verdict(resealed) == "ERROR"  # other logits than during evaluation


def test_a_candidate_that_does_not_load_is_an_error(trip: Trip, candidate: TrainedRef, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(GateError, match=r"TG0611.*StorageError"):
        trip(trained=candidate.model_copy(update={"root": tmp_path}))


def test_divergence_is_zero_for_the_base_and_positive_for_the_candidate(
    tiny_model: ModelRef, candidate: TrainedRef, prompts: PromptSet, tmp_path: Path
) -> None:
    evidence = measure_divergence(suite=prompts, model=tiny_model, trained=candidate, decoding=DECODING, out=tmp_path)
    assert evidence.n_items == 2
    assert evidence.values["kl"] is not None
    assert evidence.values["kl"] > 0.001
    again = measure_divergence(suite=prompts, model=tiny_model, trained=candidate, decoding=DECODING, out=tmp_path)
    assert again.values == evidence.values
