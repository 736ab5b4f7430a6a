"""Write a trained model as one complete Hugging Face directory, and compare it with what the gate judged.

Every model written here was read back and answers as base and adapter do on held-out texts. Called by
tasks/release/export.py; knows nothing of registries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import orjson

from schemas.artifacts import ModelRef, TrainedRef
from tasks.files import write_json
from tasks.model.answer_engine import stops_of
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec, training_template
from tasks.model.merge import Parity, Stored, check_parity, copy_tokenizer, merge_adapter
from tasks.progress import silent_report

Dtype = Literal["auto", "float32", "bfloat16"]
Texts = Sequence[Sequence[int]]


def write_merged(
    model: ModelRef,
    trained: TrainedRef,
    *,
    texts: Texts,
    stored: Stored,
    dtype: Dtype,
    out: Path,
    report: Callable[[str], None] = silent_report,
) -> Parity:
    """Write base and adapter, or the fully trained model, as one directory with training's stop tokens.

    Args:
        model: The base.
        trained: The adapter or the fully trained model.
        texts: Held-out texts as token ids, for the comparison.
        stored: Number type of the written weights.
        dtype: Number type in which a qlora adapter's 4-bit base is loaded for answering.
        out: An empty directory.
        report: Called with what is done now, in words.

    Raises:
        TrainingError: TG0403, the written model does not answer as its parts.
        StorageError: files are missing or damaged.
    """
    report("merge the adapter and write the weights" if trained.method != "full" else "write the weights")
    whole = _whole(model, trained, stored=stored, dtype=dtype, out=out)
    _write_stop_tokens(whole, trained)
    report("read them back")
    return check_parity(model, trained, whole, texts=texts, stored=stored, dtype=dtype, report=report)


def _whole(model: ModelRef, trained: TrainedRef, *, stored: Stored, dtype: Dtype, out: Path) -> ModelRef:
    """Write the model as one directory, without comparing it."""
    import torch

    if trained.method != "full":
        return merge_adapter(model, trained, out=out, stored=stored, dtype=dtype)
    loaded = load_base(model.model_copy(update={"root": trained.root}), dtype=torch.float32)
    copy_tokenizer(model.root, out)
    loaded.to(torch.float32 if stored == "float32" else torch.bfloat16).save_pretrained(out)
    return model.model_copy(update={"root": out, "digest": "", "uri": f"file:{out.name}"})


def _write_stop_tokens(whole: ModelRef, trained: TrainedRef) -> None:
    """Write training's stop tokens and template, for programs that read only these files."""
    from transformers import GenerationConfig

    codec = ChatCodec.of(load_tokenizer(whole), trained.format)
    written = GenerationConfig.from_pretrained(whole.root)  # saved with the weights, which need not be loaded for it
    stops = sorted(stops_of(codec, written.eos_token_id))
    settings = whole.root / "generation_config.json"
    present = orjson.loads(settings.read_bytes()) if settings.is_file() else {}
    write_json(settings, {**present, "eos_token_id": stops[0] if len(stops) == 1 else stops, "do_sample": False})
    template = training_template(codec.tokenizer)
    if template is not None:
        (whole.root / "chat_template.jinja").write_text(template, encoding="utf-8")
