"""A model directory of the llama architecture as one GGUF file, as llama.cpp and Ollama read it.

llama.cpp's own converter is a script in its repository and in no package, so this writes with `gguf`, the package that
the script writes with. Whoever calls it reads the file back and compares (`tasks/model/whole.py`). It knows nothing of
adapters and registries.

Source: names and the order of q and k rows as in llama.cpp's convert_hf_to_gguf.py; `convert.py` is the other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from schemas.artifacts import ModelRef
from schemas.export import GgufType
from tasks.model.convert import LAYER_NAMES, TOP_NAMES
from tasks.model.gguf import Floats
from tasks.model.tokenizer_to_gguf import add_tokenizer, no_gguf_form

if TYPE_CHECKING:
    from gguf import GGUFWriter

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
"""`general.file_type`."""
_BLOCK = 32
"""Weights of a row that share a scale in q8_0."""


def write_gguf(model: ModelRef, path: Path, *, kind: GgufType, name: str) -> None:
    """Write `path`; matrices in `kind`, norms in float32. Equal models give equal bytes.

    Args:
        model: A Hugging Face directory with float32 weights.
        kind: Of the matrices; in q8_0 those whose rows are no multiple of 32 become f16.
        name: Of the model, for people.

    Raises:
        ConfigError: TG0194, a model that this does not write.
    """
    from gguf import GGUFWriter

    config: dict[str, Any] = orjson.loads((model.root / "config.json").read_bytes())
    _check_architecture(config, model)
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[kind])
    _add_sizes(writer, config)
    add_tokenizer(writer, model)
    for tensor, weights in _tensors(model, config):
        _add_tensor(writer, tensor, weights, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_architecture(config: Mapping[str, Any], model: ModelRef) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    biased = [name for name in ("attention_bias", "mlp_bias") if config.get(name)]
    if config.get("model_type") != "llama":
        raise no_gguf_form(f"architecture {config.get('model_type')!r}", model)
    if rope.get("rope_type", "default") != "default":
        raise no_gguf_form(f"rotary embeddings of type {rope['rope_type']!r}", model)
    if biased or config.get("hidden_act") != "silu":
        raise no_gguf_form(f"{', '.join(biased) or config.get('hidden_act')}", model)


def _add_sizes(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta", config.get("rope_theta", 10000.0))))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _tensors(model: ModelRef, config: Mapping[str, Any]) -> Iterator[tuple[str, Floats]]:
    """GGUF name and weights of every tensor of the files, by name; a tied output matrix is left out."""
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for path in sorted(model.root.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            places |= dict.fromkeys(file.keys(), path)
    for name in sorted(places):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        with safe_open(places[name], framework="numpy") as file:
            yield _ggml_name(name, model), _permuted(name, file.get_tensor(name), config)


def _ggml_name(name: str, model: ModelRef) -> str:
    stem = name.removesuffix(".weight")
    if stem in _TOP:
        return f"{_TOP[stem]}.weight"
    _model, layers, number, part = (*stem.split(".", 3), "", "", "")[:4]
    if layers != "layers" or part not in _LAYER or not name.endswith(".weight"):
        raise no_gguf_form(f"tensor {name}", model)
    return f"blk.{number}.{_LAYER[part]}.weight"


def _permuted(name: str, weights: Floats, config: Mapping[str, Any]) -> Floats:
    """Rows of q and k as llama.cpp wants them: the two halves that RoPE rotates interleaved."""
    heads = config["num_attention_heads"]
    if name.endswith("k_proj.weight"):
        heads = config.get("num_key_value_heads", heads)
    elif not name.endswith("q_proj.weight"):
        return weights
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add_tensor(writer: GGUFWriter, name: str, weights: Floats, kind: GgufType) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if weights.ndim == 1 or kind == "f32":
        writer.add_tensor(name, weights.astype(np.float32, copy=False))
        return
    stored = "f16" if kind == "q8_0" and weights.shape[-1] % _BLOCK else kind
    type_ = GGMLQuantizationType[stored.upper()]
    writer.add_tensor(name, quantize(weights, type_), raw_dtype=type_)


_TOP = {hf: ggml for ggml, hf in TOP_NAMES.items()}
_LAYER = {hf: ggml for ggml, hf in LAYER_NAMES.items()}
