"""How far the candidate's next-token probabilities have moved from its base's, on texts other than tickets.

`tasks/assess/forgetting.py` judges KL(base || candidate) in nats per token. A step of flows/gate_checks.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import CheckEvidence, ModelRef, PromptSet, TrainedRef
from schemas.evaluation import DecodingSpec
from tasks.model.adapter import load_trained
from tasks.model.base_model import load_tokenizer, named_panics
from tasks.step import as_step
from tasks.storage.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_TOKENS = 64
"""Maximum tokens of each text."""
DIGITS = 6
"""Significant digits of the result."""


@as_step("divergence", libraries=("torch", "transformers", "peft", "bitsandbytes"), heavy=True, memory_gb=2.0)
def measure_divergence(
    out: Path, *, suite: PromptSet, model: ModelRef, trained: TrainedRef, decoding: DecodingSpec
) -> CheckEvidence:
    """Write `evidence.json`: mean KL(base || candidate) per token over the suite's neutral texts, and per text.

    Every token except a text's first counts, predicted from those before it; computed in float32 for any weights.

    Raises:
        DataError: TG0314, the tokenizer gives up on a text.
    """
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(suite.root / "neutral.parquet")["text"].to_pylist()
    tokenizer = load_tokenizer(model)
    with named_panics():
        ids = [list(tokenizer.encode(text, add_special_tokens=False))[:MAX_TOKENS] for text in texts]
    ids = [row for row in ids if len(row) > 1]
    before = log_probabilities(load_trained(model, None, dtype=decoding.dtype, threads=decoding.threads), ids)
    after = log_probabilities(load_trained(model, trained, dtype=decoding.dtype, threads=decoding.threads), ids)
    sums = [float((p.exp() * (p - q)).sum(-1).double().sum()) for p, q in zip(before, after, strict=True)]
    n_tokens = sum(len(row) - 1 for row in ids)
    mean = sum(sums) / n_tokens if n_tokens else math.nan
    per_text = [float(f"{total / (len(row) - 1):.{DIGITS}g}") for total, row in zip(sums, ids, strict=True)]
    kl = float(f"{mean:.{DIGITS}g}") if math.isfinite(mean) else None
    write_json(out / "evidence.json", {"kl": kl, "n_tokens": n_tokens, "per_text": per_text if kl is not None else []})
    values = {"kl": kl, "tokens": float(n_tokens)}
    return CheckEvidence(root=out, check="divergence", n_items=len(ids), values=values)


def log_probabilities(model: nn.Module, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities of each row's tokens except the first, (length - 1, vocabulary), float32."""
    import torch

    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = model(input_ids=torch.tensor([list(row)], device=device), use_cache=False).logits[0, :-1]
            found.append(logits.float().log_softmax(-1).cpu())
    return found
