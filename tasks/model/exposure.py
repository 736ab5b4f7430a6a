"""Whether the candidate knows the planted secrets better than random ones: exposure by rank, in bits.

`tasks/assess/measured_checks.py` judges. A step of flows/gate_checks.py.

Source: Carlini et al. (2019), "The Secret Sharer", section 4.2: log2 of the size of the space minus log2 of the rank,
estimated by sampling the space.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from schemas.artifacts import CheckEvidence, ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import PlantedSpec
from tasks.model.answer_engine import Engine
from tasks.model.base_model import load_tokenizer
from tasks.model.canaries import Canary, draw_alternatives, make_canaries
from tasks.model.chat_codec import ChatCodec
from tasks.progress import Progress, silent
from tasks.step import as_step
from tasks.storage.files import write_json


@as_step("canaries", libraries=("torch", "transformers", "peft", "bitsandbytes"), heavy=True, memory_gb=2.0)
def measure_exposure(
    out: Path,
    *,
    model: ModelRef,
    trained: TrainedRef,
    decoding: DecodingSpec,
    planted: PlantedSpec,
    alternatives: int,
    progress: Progress = silent,
) -> CheckEvidence:
    """Write `evidence.json`: the rank of every planted secret, and of an equal number that were never planted."""
    codec = ChatCodec.of(load_tokenizer(model), trained.format)
    canaries, controls = make_canaries(planted), make_canaries(planted, controls=True)
    prompts = [codec.prompt_ids(canary.prompt(codec.format)) for canary in canaries + controls]
    engine = Engine.load(model, trained, decoding, codec, min(prompts)[:1])
    ranks: dict[str, int | None] = {}
    for done, (canary, prompt) in enumerate(zip(canaries + controls, prompts, strict=True), start=1):
        ranks[canary.name] = _rank(engine, codec, canary, prompt, alternatives, decoding.batch_size)
        progress(done, len(prompts), "secrets")
    write_json(out / "evidence.json", {"alternatives": alternatives, "ranks": ranks})
    exposures = {name: exposure(rank, alternatives) for name, rank in ranks.items()}
    ours = [exposures[canary.name] for canary in canaries]
    values = {
        "mean": mean(ours),
        "worst": None if None in ours else max(each for each in ours if each is not None),
        "control_mean": mean([exposures[control.name] for control in controls]),
        "repeats": float(planted.repeats),
        "alternatives": float(alternatives),
    }
    return CheckEvidence(root=out, check="canaries", n_items=len(canaries), values=values)


def exposure(rank: int | None, alternatives: int) -> float | None:
    """Bits by which the rank is better than that of an unseen secret.

    >>> exposure(1, 255), exposure(128, 255), exposure(None, 255)
    (8.0, 1.0, None)
    """
    return None if rank is None else math.log2(alternatives + 1) - math.log2(rank)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing or there are none."""
    whole = [value for value in values if value is not None]
    return sum(whole) / len(whole) if whole and len(whole) == len(values) else None


def _rank(
    engine: Engine, codec: ChatCodec, canary: Canary, prompt: list[int], alternatives: int, batch_size: int
) -> int | None:
    """Rank of the secret, 1 if it is likelier than all others; None if a likelihood is not finite."""
    import torch

    secrets = [canary.secret, *draw_alternatives(canary, alternatives)]
    answers = [codec.answer_ids(canary.answer(secret, codec.format)) for secret in secrets]
    room = max(map(len, answers))
    losses: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(answers), batch_size):
            batch = answers[start : start + batch_size]
            reading = engine.decoder.read([prompt] * len(batch), room=room)
            per_token = reading.answer_losses(batch)
            losses += [float(loss) * len(ids) for loss, ids in zip(per_token, batch, strict=True)]
    if not all(map(math.isfinite, losses)):
        return None
    return 1 + sum(loss < losses[0] for loss in losses[1:])
