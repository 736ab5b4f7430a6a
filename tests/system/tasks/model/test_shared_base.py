"""The memory of one base and its adapters, on the real model: the figures of docs/how-to/export-and-serve.md."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import TrainSpec
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.shared_base import SharedBases
from tests.support.trained import save_perturbed

DECODING = DecodingSpec(max_new_tokens=8, batch_size=1, threads=1, dtype="float32")


def resident_mb() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmRSS")


def adapter(model: ModelRef, out: Path, seed: int) -> TrainedRef:
    """A perturbed adapter of rank 16 on all linear layers."""
    spec = TrainSpec.model_validate({"base_model": "x", "dtype": "float32"})
    return save_perturbed(model, spec, out, seed=seed, size=0.01)


@pytest.mark.model
@pytest.mark.campaign
def test_further_adapters_cost_a_fraction_of_a_base(
    smollm2: ModelRef, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    trained = [adapter(smollm2, tmp_path / str(seed), seed) for seed in range(3)]
    gc.collect()
    codec = ChatCodec.of(load_tokenizer(smollm2), "instruction")
    prompt = codec.prompt_ids([{"role": "user", "content": "Where is my parcel?"}])
    bases, loaded, sizes = SharedBases(), [], [resident_mb()]
    for each in trained:
        loaded.append(bases.load(smollm2, each, DECODING, codec))
        assert list(loaded[-1].generate(prompt, max_new_tokens=8))
        gc.collect()
        sizes.append(resident_mb())
    record_property("resident_mb", [round(size) for size in sizes])
    first, others = sizes[1] - sizes[0], sizes[3] - sizes[1]
    assert others / 2 < 0.2 * first
