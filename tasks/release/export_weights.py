"""Export whole weights, with the adapter merged into the base: for any program, and for Ollama with a Modelfile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.files import verify
from tasks.release.export_format import Exported, export_format, gone
from tasks.release.serve import read_serving

if TYPE_CHECKING:
    from tasks.model.merge import Parity


@export_format("merged")
def write_merged_weights(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights with config and tokenizer, and compare them with what the gate judged."""
    from tasks.model.whole import write_merged

    dtype = read_serving(source.bundle.root).decoding.dtype
    written = write_merged(
        source.model, source.trained, texts=_texts(source), stored=source.stored, dtype=dtype, out=out,
        report=source.report,
    )  # fmt: skip
    return _figures(written)


@export_format("ollama")
def write_ollama(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights and a Modelfile."""
    _write_modelfile(source, out)  # first, since the template may be refused
    return write_merged_weights(source, out)


def _write_modelfile(source: Exported, out: Path) -> None:
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec
    from tasks.release.modelfile import modelfile

    serving = read_serving(source.bundle.root)
    codec = ChatCodec.of(load_tokenizer(source.model), serving.trained.format)
    (out / "Modelfile").write_text(modelfile(serving, codec), encoding="utf-8")


def _texts(source: Exported) -> list[list[int]]:
    from tasks.model.merge import held_out_texts

    if source.prompts is None:
        raise gone("the set of held-out prompts, needed to compare the converted model,")
    verify(source.prompts.root)
    return held_out_texts(source.prompts, source.model)


def _figures(parity: Parity) -> dict[str, float]:
    return {
        "max_logit_difference": parity.max_logit_difference,
        "adapter_effect": parity.adapter_effect,
        "argmax_agreement": parity.argmax_agreement,
        "n_positions": float(parity.n_positions),
    }
