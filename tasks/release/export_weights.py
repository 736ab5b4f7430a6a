"""Export whole weights, with the adapter merged into the base: for any program, and for Ollama with a Modelfile."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tasks.files import verify
from tasks.release.export_format import Exported, export_format, gone
from tasks.release.serve import read_serving


@export_format("merged")
def write_merged_weights(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights with config and tokenizer, and compare them with what the gate judged."""
    from tasks.model.merge import held_out_texts, write_merged

    if source.prompts is None:
        raise gone("the set of held-out prompts, needed to compare the converted model,")
    verify(source.prompts.root)
    written = write_merged(
        source.model, source.trained, texts=held_out_texts(source.prompts, source.model), stored=source.stored,
        dtype=read_serving(source.bundle.root).decoding.dtype, out=out, report=source.report,
    )  # fmt: skip
    return {name: float(figure) for name, figure in asdict(written).items()}


@export_format("ollama")
def write_ollama(source: Exported, out: Path) -> dict[str, float]:
    """Write the weights and a Modelfile."""
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec
    from tasks.release.modelfile import modelfile

    serving = read_serving(source.bundle.root)
    codec = ChatCodec.of(load_tokenizer(source.model), serving.trained.format)
    text = modelfile(serving, codec)  # before the weights, since the template may be refused
    (out / "Modelfile").write_text(text, encoding="utf-8")
    return write_merged_weights(source, out)
