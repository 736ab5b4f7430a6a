"""GGUF files: blocks as ggml's own code reads them, names and rotations as transformers wants them, damage refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from schemas.artifacts import ModelRef
from schemas.errors import DataError
from tasks.model.convert import convert_gguf
from tasks.model.gguf import GgufFile

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0")
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


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_bit_by_bit_as_ggml_reads_it(tmp_path: Path, kind: str) -> None:
    weights = np.random.default_rng(7).normal(size=(6, 64)).astype(np.float32)
    number = GGMLQuantizationType[kind]
    stored = quantize(weights, number)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("t.weight", stored, raw_dtype=None if kind in ("F32", "F16") else number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(tmp_path / "m.gguf") as file:
        got = file.dequantise("t.weight")
    assert got.dtype == np.float32
    assert np.array_equal(got.view(np.uint32), dequantize(stored, number).astype(np.float32).view(np.uint32))
    assert np.abs(got - weights).max() < 0.5


def llama_cpp_order(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """As llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute) writes q and k."""
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


def test_a_converted_model_has_the_original_tensors_and_loads(tmp_path: Path) -> None:
    import torch

    from tasks.model.base_model import load_base, load_tokenizer

    original = tiny_tensors()
    write(smollm_writer(tmp_path / "m.gguf"), as_gguf(original))
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "m.gguf", out)
    got = load_file(out / "model.safetensors")
    assert got.keys() == original.keys()
    for name, weights in original.items():
        assert np.array_equal(got[name], weights), name
    ref = ModelRef(root=out, uri="", n_parameters=0, vocab_size=len(TOKENS), context_length=128)
    model = load_base(ref, dtype=torch.float32)
    assert model.config.rms_norm_eps == 1e-5
    assert model.config.rope_parameters["rope_theta"] == 10000.0
    assert model.config.tie_word_embeddings
    tokenizer = load_tokenizer(ref)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("ab\n\n10<|im_end|>")) == [
        "ab", "ĊĊ", "1", "0", "<|im_end|>",
    ]  # fmt: skip
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.chat_template == "{{ messages[0].content }}"


def test_converting_twice_gives_equal_bytes(tmp_path: Path) -> None:
    from tasks.files import seal

    write(smollm_writer(tmp_path / "m.gguf"), as_gguf(tiny_tensors()))
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        convert_gguf(tmp_path / "m.gguf", tmp_path / name)
        digests.append(seal(tmp_path / name))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"architecture": "gemma2"}, "TG0313"), ({"pre": "llama-bpe"}, "TG0312")],
)
def test_a_model_that_is_not_understood_is_refused(tmp_path: Path, options: dict[str, str], code: str) -> None:
    write(smollm_writer(tmp_path / "m.gguf", **options), {})
    with pytest.raises(DataError, match=code):
        convert_gguf(tmp_path / "m.gguf", tmp_path)


def test_a_tensor_without_a_meaning_is_refused(tmp_path: Path) -> None:
    tensors = as_gguf(tiny_tensors()) | {"rope_freqs.weight": np.ones(16, np.float32)}
    write(smollm_writer(tmp_path / "m.gguf"), tensors)
    with pytest.raises(DataError, match="rope_freqs"):
        convert_gguf(tmp_path / "m.gguf", tmp_path)


def test_damaged_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    whole = tmp_path / "m.gguf"
    write(smollm_writer(whole), as_gguf(tiny_tensors()))
    data = whole.read_bytes()
    for size in (0, 3, 20, 60, 400, len(data) // 2, len(data) - 9000):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match="TG031"):
            convert_gguf(cut, tmp_path)


@pytest.mark.parametrize("place", [8, 16])
def test_impossible_counts_end_quickly(tmp_path: Path, place: int) -> None:
    path = tmp_path / "m.gguf"
    write(smollm_writer(path), {})
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, place, 2**60)
    path.write_bytes(data)
    with pytest.raises(DataError, match="TG0310"):
        GgufFile(path)


def test_an_unknown_quantisation_names_the_known_ones(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("t.weight", np.zeros((1, 144), np.uint8), raw_dtype=GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(DataError, match="Q4_1"):
        file.dequantise("t.weight")


@pytest.mark.model
def test_smollm2_is_bit_identical_to_gguf_pys_dequantisation(smollm2: ModelRef) -> None:
    import os

    cache = Path(os.environ.get("TUNEGATE_CACHE", Path.home() / ".cache" / "tunegate"))
    (path,) = (cache / "gguf").glob("b179c9523d0e*.gguf")
    got = load_file(smollm2.root / "model.safetensors")
    reader = GGUFReader(path)
    assert len(reader.tensors) == len(got) == 272
    for tensor in reader.tensors:
        _blk, _, rest = tensor.name.partition(".")
        layer, _, part = rest.partition(".")
        if tensor.name.startswith("blk."):
            stem = next(ours for ours, theirs in GGML_NAMES.items() if f"{theirs}.weight" == part)
            ours = got[f"model.layers.{layer}.{stem}.weight"]
        else:
            ours = got[{"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[_blk] + ".weight"]
        if part in ("attn_q.weight", "attn_k.weight"):
            ours = llama_cpp_order(ours, 9 if part.startswith("attn_q") else 3)
        theirs = dequantize(tensor.data, tensor.tensor_type).reshape(ours.shape)
        assert np.array_equal(theirs.view(np.uint32), np.ascontiguousarray(ours).view(np.uint32)), tensor.name
