"""Batched answers with a shared prefix equal those of a plain loop; a killed run continues."""

from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.tasks.model.test_generate import BODIES, SPEC, answers, assert_same, prompt_set, rows, stock_answers


@pytest.mark.model
def test_smollm2_answers_like_stock_generate(tmp_path: Path, smollm2: ModelRef) -> None:
    spec = SPEC.model_copy(update={"batch_size": 4})
    prompts = prompt_set(tmp_path / "prompts", n=6)
    assert_same(rows(answers(tmp_path, prompts, smollm2, spec, "a")), stock_answers(smollm2, prompts, spec))


@pytest.mark.model
def test_smollm2_in_bfloat16_stays_close_in_loss(tmp_path: Path, smollm2: ModelRef) -> None:
    prompts = prompt_set(tmp_path / "prompts", n=6)
    exact = rows(answers(tmp_path, prompts, smollm2, SPEC, "a"))
    rounded = rows(answers(tmp_path, prompts, smollm2, SPEC.model_copy(update={"dtype": "bfloat16"}), "b"))
    for one, other in zip(exact, rounded, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.02)
