"""Convert a GGUF file of the llama architecture to a Hugging Face directory in float32.

The rebuilt tokenizer splits text exactly as the model's own; transformers' GGUF support does not (it separates two line
breaks when a digit follows).

float32, not bfloat16: weights in Q4_1 (scale * q + minimum) have no exact bfloat16 form, so only float32 preserves the
file's values. A float32 run and a float32 merge of an adapter then start from the true weights, and a bfloat16 load
rounds once, to the same numbers that a bfloat16 file would hold. It costs 538 instead of 269 MB.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import DataError
from tasks.model.gguf import Floats, GgufFile
from tasks.storage.files import sha256_file, write_json

CONVERTER = 1
"""Part of the cache's key: increase it when the same GGUF would give different files."""

TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3
"""`tokenizer.ggml.token_type` of control tokens."""
_USER_DEFINED = 4


def convert_gguf(path: Path, out: Path) -> None:
    """Write config.json, model.safetensors, the tokenizer's files, generation_config.json and origin.json.

    Raises:
        DataError: not a readable GGUF, or its architecture is not llama.
    """
    from safetensors.numpy import save_file

    with GgufFile(path) as file:
        metadata = file.metadata
        _check_architecture(metadata, path)
        try:
            roles = write_tokenizer(metadata, out)
            tied = "output.weight" not in file.tensors
            write_json(out / "config.json", _config(metadata, roles, tied=tied))
            tensors = dict(_rename(name, file.dequantise(name), metadata) for name in sorted(file.tensors))
        except KeyError as error:
            raise DataError(f"the GGUF lacks {error}", code="TG0310", where=str(path)) from None
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "generation_config.json", {"do_sample": False, **_token_ids(roles)})
    write_json(
        out / "origin.json",
        {
            "gguf_sha256": sha256_file(path),
            "converter": CONVERTER,
            "name": metadata.get("general.name"),
            "license": metadata.get("general.license"),
        },
    )


def read_gguf_config(path: Path) -> tuple[dict[str, object], str | None]:
    """The config.json that `convert_gguf` would write, and the file's chat template; reads no tensor.

    Raises:
        DataError: TG0310, as `convert_gguf`.
    """
    with GgufFile(path) as file:
        metadata = file.metadata
        _check_architecture(metadata, path)
        try:
            config = _config(metadata, {}, tied="output.weight" not in file.tensors)
        except KeyError as error:
            raise DataError(f"the GGUF lacks {error}", code="TG0310", where=str(path)) from None
        return config, metadata.get("tokenizer.chat_template") or None


def _check_architecture(metadata: Mapping[str, Any], path: Path) -> None:
    if metadata.get("general.architecture") != "llama":
        raise DataError(
            f"architecture {metadata.get('general.architecture')!r} is not convertible from GGUF, only 'llama' is",
            code="TG0310",
            where=str(path),
            hint="use the Hugging Face directory of this model (`file:` or `hf://`)",
        )


def _rename(name: str, weights: Floats, metadata: Mapping[str, Any]) -> tuple[str, Floats]:
    parts = name.split(".")
    if parts[-1] != "weight":
        raise KeyError(f"a meaning for tensor {name}")
    if parts[0] != "blk":
        return f"{TOP_NAMES[parts[0]]}.weight", weights
    _blk, layer, part, _weight = parts
    if part in ("attn_q", "attn_k"):
        heads = metadata["llama.attention.head_count"]
        if part == "attn_k":
            heads = metadata.get("llama.attention.head_count_kv", heads)
        weights = _undo_permutation(weights, heads)
    return f"model.layers.{int(layer)}.{LAYER_NAMES[part]}.weight", weights


def _undo_permutation(weights: Floats, n_heads: int) -> Floats:
    """Restore Hugging Face's row order of q and k: llama.cpp interleaves the two halves that RoPE rotates."""
    rows, columns = weights.shape
    paired = weights.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return np.ascontiguousarray(paired.swapaxes(1, 2).reshape(rows, columns))


def _config(metadata: Mapping[str, Any], roles: Mapping[str, int], *, tied: bool) -> dict[str, object]:
    def of(name: str) -> Any:
        return metadata[f"llama.{name}"]

    heads = of("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": metadata.get("llama.rope.dimension_count", of("embedding_length") // heads),
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": _shortest(of("attention.layer_norm_rms_epsilon")),
        "rope_parameters": {"rope_type": "default", "rope_theta": _shortest(of("rope.freq_base"))},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        **_token_ids(roles),
    }


def _token_ids(roles: Mapping[str, int]) -> dict[str, int]:
    return {f"{role}_token_id": number for role, number in roles.items() if role != "unk"}


def _shortest(value: float) -> float:
    """The shortest number that rounds to this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def write_tokenizer(metadata: Mapping[str, Any], out: Path) -> dict[str, int]:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Returns:
        Token ids by role (bos, eos, pad, unk), for those in the file.

    Raises:
        DataError: the tokenizer is not byte-level BPE with SmolLM's splitting, or its parts do not match.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, splitting = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if (kind, splitting) != ("gpt2", "smollm"):
        raise DataError(
            f"tokenizer {kind!r} with splitting {splitting!r} cannot be read from GGUF, only 'gpt2' with 'smollm' can",
            code="TG0310",
            hint="use the Hugging Face directory of this model (`file:` or `hf://`)",
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise DataError("tokens, token types and merges do not match", code="TG0310")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # ggml's `smollm` splits off single digits, then applies GPT-2's byte-level splitting.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.save(str(out / "tokenizer.json"))

    roles = _roles(metadata, len(tokens))
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": metadata["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            "additional_special_tokens": control,
            **{f"{role}_token": tokens[number] for role, number in roles.items()},
        },
    )
    template = metadata.get("tokenizer.chat_template")
    if template:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    return roles


def _roles(metadata: Mapping[str, Any], n_tokens: int) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    found = {role: metadata.get(f"tokenizer.ggml.{name}_token_id") for role, name in names.items()}
    roles = {role: int(number) for role, number in found.items() if number is not None}
    if any(number >= n_tokens for number in roles.values()):
        raise DataError("a special token is outside the vocabulary", code="TG0310")
    return roles
