"""GGUF files: blocks decoded like ggml does, names and rotations as in transformers, damaged files refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import load_file

from schemas.artifacts import ModelRef


@pytest.mark.model
def test_smollm2_is_bit_identical_to_gguf_pys_dequantisation(smollm2: ModelRef, gguf_kit: SimpleNamespace) -> None:
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
            stem = next(ours for ours, theirs in gguf_kit.names.items() if f"{theirs}.weight" == part)
            ours = got[f"model.layers.{layer}.{stem}.weight"]
        else:
            ours = got[{"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[_blk] + ".weight"]
        if part in ("attn_q.weight", "attn_k.weight"):
            ours = gguf_kit.llama_cpp_order(ours, 9 if part.startswith("attn_q") else 3)
        theirs = dequantize(tensor.data, tensor.tensor_type).reshape(ours.shape)
        assert np.array_equal(theirs.view(np.uint32), np.ascontiguousarray(ours).view(np.uint32)), tensor.name
