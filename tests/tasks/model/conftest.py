"""A tiny GGUF of the llama architecture, written by the reference library."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGUFWriter

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghij0123456789", "Ġ", "ab", "Ċ", "ĊĊ"]


def smollm_writer(path: Path, *, architecture: str = "llama", pre: str = "smollm") -> GGUFWriter:
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["a b", "Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    return writer


def write(writer: GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp_order(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorder q and k like llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute)."""
    rows, columns = weights.shape
    return weights.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tiny_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {
        "model.embed_tokens.weight": (len(TOKENS), 64),
        "model.norm.weight": (64,),
        "model.layers.0.input_layernorm.weight": (64,),
        "model.layers.0.post_attention_layernorm.weight": (64,),
        "model.layers.0.self_attn.q_proj.weight": (64, 64),
        "model.layers.0.self_attn.k_proj.weight": (32, 64),
        "model.layers.0.self_attn.v_proj.weight": (32, 64),
        "model.layers.0.self_attn.o_proj.weight": (64, 64),
        "model.layers.0.mlp.gate_proj.weight": (96, 64),
        "model.layers.0.mlp.up_proj.weight": (96, 64),
        "model.layers.0.mlp.down_proj.weight": (64, 96),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


GGML_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def as_gguf(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {}
    for name, weights in tensors.items():
        stem = name.removesuffix(".weight").removeprefix("model.layers.0.")
        ggml = GGML_NAMES[stem] if stem in ("model.embed_tokens", "model.norm") else f"blk.0.{GGML_NAMES[stem]}"
        heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(stem)
        named[f"{ggml}.weight"] = llama_cpp_order(weights, heads) if heads else weights
    return named


@pytest.fixture(scope="session")
def gguf_kit() -> SimpleNamespace:
    """Parts for building GGUF files in tests: names, tensors, writer."""
    return SimpleNamespace(
        tokens=TOKENS,
        names=GGML_NAMES,
        writer=smollm_writer,
        write=write,
        tensors=tiny_tensors,
        as_gguf=as_gguf,
        llama_cpp_order=llama_cpp_order,
    )


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete one-layer model."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(smollm_writer(path), as_gguf(tiny_tensors()))
    return path
