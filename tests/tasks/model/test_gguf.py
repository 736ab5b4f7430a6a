"""GGUF files: blocks decoded like ggml does, names and rotations as in transformers, damaged files refused."""

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

from schemas.artifacts import ModelRef
from schemas.errors import DataError
from tasks.model.convert import convert_gguf
from tasks.model.gguf import GgufFile

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_1", "Q8_0")


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_decoded_bit_by_bit_like_ggml(tmp_path: Path, kind: str) -> None:
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


def test_a_converted_model_has_the_original_tensors_and_loads(tmp_path: Path, gguf_kit: SimpleNamespace) -> None:
    import torch

    from tasks.model.base_model import load_base, load_tokenizer

    original = gguf_kit.tensors()
    gguf_kit.write(gguf_kit.writer(tmp_path / "m.gguf"), gguf_kit.as_gguf(original))
    out = tmp_path / "out"
    out.mkdir()
    convert_gguf(tmp_path / "m.gguf", out)
    got = load_file(out / "model.safetensors")
    assert got.keys() == original.keys()
    for name, weights in original.items():
        assert np.array_equal(got[name], weights), name
    ref = ModelRef(root=out, uri="", n_parameters=0, vocab_size=len(gguf_kit.tokens), context_length=128)
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


def test_converting_twice_gives_equal_bytes(tmp_path: Path, gguf_kit: SimpleNamespace) -> None:
    from tasks.storage.sealed_folder import seal

    gguf_kit.write(gguf_kit.writer(tmp_path / "m.gguf"), gguf_kit.as_gguf(gguf_kit.tensors()))
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        convert_gguf(tmp_path / "m.gguf", tmp_path / name)
        digests.append(seal(tmp_path / name))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("options", "code"), [({"architecture": "gemma2"}, "TG0310"), ({"pre": "llama-bpe"}, "TG0310")]
)
def test_a_model_of_an_unsupported_architecture_is_refused(
    tmp_path: Path, options: dict[str, str], code: str, gguf_kit: SimpleNamespace
) -> None:
    gguf_kit.write(gguf_kit.writer(tmp_path / "m.gguf", **options), {})
    with pytest.raises(DataError, match=code):
        convert_gguf(tmp_path / "m.gguf", tmp_path)


def test_an_unknown_tensor_is_refused(tmp_path: Path, gguf_kit: SimpleNamespace) -> None:
    tensors = gguf_kit.as_gguf(gguf_kit.tensors()) | {"rope_freqs.weight": np.ones(16, np.float32)}
    gguf_kit.write(gguf_kit.writer(tmp_path / "m.gguf"), tensors)
    with pytest.raises(DataError, match="rope_freqs"):
        convert_gguf(tmp_path / "m.gguf", tmp_path)


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path, gguf_kit: SimpleNamespace) -> None:
    whole = tmp_path / "m.gguf"
    gguf_kit.write(gguf_kit.writer(whole), gguf_kit.as_gguf(gguf_kit.tensors()))
    data = whole.read_bytes()
    for size in (0, 3, 20, 60, 400, len(data) // 2, len(data) - 9000):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match="TG031"):
            convert_gguf(cut, tmp_path)


@pytest.mark.parametrize("place", [8, 16])
def test_impossible_counts_are_refused_quickly(tmp_path: Path, place: int, gguf_kit: SimpleNamespace) -> None:
    path = tmp_path / "m.gguf"
    gguf_kit.write(gguf_kit.writer(path), {})
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, place, 2**60)
    path.write_bytes(data)
    with pytest.raises(DataError, match="TG0310"):
        GgufFile(path)


@pytest.mark.parametrize(
    ("alignment", "shape"),
    [
        (struct.pack("<II", 4, 0), (4, 8)),
        (struct.pack("<IQ", 8, 2) + b"32", (4, 8)),
        (struct.pack("<II", 4, 32), (512, 2**63 + 16)),  # overflows 64 bits to 8,192 weights
        (struct.pack("<II", 4, 32), (2**62, 4)),
        (struct.pack("<II", 4, 32), (2**63, 2**63, 0)),
    ],
)
def test_impossible_alignments_and_shapes_are_refused(tmp_path: Path, alignment: bytes, shape: tuple[int, ...]) -> None:
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 1, 1, 17) + b"general.alignment" + alignment
    head += struct.pack(f"<Q1sI{len(shape)}QIQ", 1, b"w", len(shape), *shape, 0, 0)
    (tmp_path / "m.gguf").write_bytes(head + bytes(256))
    with pytest.raises(DataError, match="TG0310"), GgufFile(tmp_path / "m.gguf") as file:
        file.dequantise("w")


@pytest.mark.parametrize(
    ("kind", "name"), [(GGMLQuantizationType.Q8_1, "Q8_1"), (GGMLQuantizationType.I64, "I64"), (999, "ggml type 999")]
)
def test_an_unsupported_quantisation_is_refused(tmp_path: Path, kind: int, name: str) -> None:
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<IQQIQ", 2, 64, 1, kind, 0)
    (tmp_path / "m.gguf").write_bytes(head + bytes(1024))
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(DataError, match=f"TG0310.*{name}"):
        file.dequantise("t")


def test_a_row_with_a_partial_block_is_refused(tmp_path: Path) -> None:
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 1, 0, 1) + b"t" + struct.pack("<IQQIQ", 2, 48, 2, 8, 0)
    (tmp_path / "m.gguf").write_bytes(head + bytes(1024))
    with GgufFile(tmp_path / "m.gguf") as file, pytest.raises(DataError, match=r"TG0310.*blocks"):
        file.dequantise("t")
