"""A training that continues begins with the champion's weights, and only with an adapter of the same form."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import WEIGHTS
from tasks.storage.sealed_folder import seal
from tasks.train.job import ProgressLog, TrainJob
from tasks.train.launch import check_start
from tasks.train.part import run_rank
from tests.support.trained import save_perturbed

MakeSpec = Callable[..., TrainSpec]


@pytest.fixture
def champion(tiny_model: ModelRef, make_spec: MakeSpec, tmp_path: Path) -> TrainedRef:
    """An adapter of the default form with weights that no base has."""
    trained = save_perturbed(tiny_model, make_spec(), tmp_path / "champion")
    return trained.model_copy(update={"digest": seal(trained.root)})


def test_the_first_step_starts_from_the_champions_weights(
    tiny_model: ModelRef, dataset: DatasetRef, make_spec: MakeSpec, champion: TrainedRef, tmp_path: Path
) -> None:
    spec = make_spec(learning_rate=1e-8, allow_unusual_learning_rate=True, max_steps=1)
    keys = set()
    for start in (champion, None):
        scratch = tmp_path / f"from-{'champion' if start else 'base'}"
        scratch.mkdir()
        job = TrainJob(dataset=dataset, model=tiny_model, spec=spec, start=start, scratch=scratch, threads=1)
        assert run_rank(job, stop=lambda: False, log=ProgressLog(scratch / "progress.jsonl")) == 0
        keys.add(job.key())
        learned, before = load_file(scratch / "final" / WEIGHTS), load_file(champion.root / WEIGHTS)
        near = all(torch.allclose(learned[name], before[name], atol=1e-6) for name in before)
        assert near == (start is not None)
        recorded = orjson.loads((scratch / "final" / "training.json").read_bytes())["start"]
        assert recorded == (champion.digest if start else None)
    assert len(keys) == 2  # the champion's digest is part of the key


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"adapter": AdapterSpec(rank=8, alpha=8)}, "train.adapter.rank"),
        ({"adapter": AdapterSpec(rank=4, alpha=8, target_modules=("q_proj",))}, "train.adapter.target_modules"),
        ({"method": "qlora"}, "train.method"),
        ({"prompt": {"user": "{subject}"}}, "train.prompt.user"),
        ({"prompt": {"chat_template": "chatml"}}, "train.prompt.chat_template"),
    ],
)
def test_another_form_is_refused_and_named(
    tiny_model: ModelRef, make_spec: MakeSpec, champion: TrainedRef, changes: dict[str, object], where: str
) -> None:
    with pytest.raises(TrainingError, match="the champion was trained with") as refused:
        check_start(champion, tiny_model, make_spec(**changes))
    assert refused.value.where == where
    assert "start: base" in str(refused.value.hint)


def test_another_base_is_refused_and_settings_of_the_optimiser_may_differ(
    tiny_model: ModelRef, make_spec: MakeSpec, champion: TrainedRef
) -> None:
    check_start(champion, tiny_model, make_spec(learning_rate=1e-4, epochs=9, start="champion", seed=4))
    with pytest.raises(TrainingError, match="base_model"):
        check_start(champion, tiny_model.model_copy(update={"digest": "f" * 64}), make_spec())
