"""The predicted peak memory of a training process, compared with real processes."""

import pytest

from schemas.training import TrainSpec
from tasks.train import memory
from tasks.train.memory import predict_process
from tasks.train.model_shapes import known_dims

SMOLLM2 = known_dims("smollm2-135m")

PEAKS = [
    # method, batch, tokens, bytes per number, checkpointing, measured MB (SmolLM2-135M, one thread, Linux, torch 2.15)
    ("lora", 4, 128, 4, False, 2557),
    ("lora", 8, 256, 4, False, 4997),
    ("lora", 4, 128, 4, True, 1865),
    ("lora", 4, 128, 2, False, 1936),
    ("qlora", 4, 128, 4, False, 2539),
    ("qlora", 4, 128, 2, False, 1755),
    ("full", 4, 128, 4, False, 4020),
    ("full", 4, 128, 4, True, 3546),
    ("full", 2, 128, 2, False, 3710),
]
"""Peak resident set sizes over three steps with loss on half of the tokens."""


@pytest.mark.parametrize(("method", "batch", "tokens", "number", "checkpointing", "measured"), PEAKS)
def test_measured_peaks_are_predicted_within_six_percent(
    method: str, batch: int, tokens: int, number: int, checkpointing: bool, measured: int
) -> None:
    spec = TrainSpec.model_validate(
        {
            "base_model": "x",
            "method": method,
            "learning_rate": 1e-4,
            "batch_size": batch,
            "gradient_checkpointing": checkpointing,
        }
    )
    found = predict_process(SMOLLM2, spec, number=number, max_tokens=tokens, supervised_share=0.5, stored=538_090_408)
    assert found.total / 1e6 == pytest.approx(measured, rel=0.06)
    assert found.total == max(found.load, sum(v for k, v in found.parts().items() if k not in ("total", "load")))


def test_the_constants_match_the_fast_path() -> None:
    from tasks.train.fast import attention, kernels

    # Private, because each is one of many terms of a prediction.
    assert (memory._LOSS_ROWS, memory._LONGEST_BLOCK) == (kernels.LOSS_ROWS, attention.LONGEST_BLOCK)


def test_only_adapted_layers_keep_activations() -> None:
    def activations(top: int | None) -> int:
        spec = TrainSpec.model_validate({"base_model": "x", "adapter": {"layers": top}})
        return predict_process(
            SMOLLM2, spec, number=4, max_tokens=100, supervised_share=0.5, stored=538_090_408
        ).activations

    assert activations(10) * 3 == pytest.approx(activations(None), rel=1e-6)
