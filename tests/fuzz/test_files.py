"""Untrusted files: pipelines.yaml, GGUF weights, manifests, addresses of models."""

import struct
import tempfile
from pathlib import Path

import orjson
from hypothesis import strategies as st

from schemas.errors import DataError, StorageError, TunegateError
from schemas.load import load_file
from tasks.model.gguf import GgufFile
from tasks.model.model_uri import parse_model_uri
from tasks.storage.sealed_folder import MANIFEST, verify
from tests.fuzz.fuzzing import JSON, fuzz, mutated, mutated_text
from tests.support.project import PROJECT

YAML = [
    (PROJECT / "pipelines.yaml").read_text(),
    "version: 1\npipelines:\n  a: &x {extends: b}\n  b: *x\n  <<: [*x, *x]\n",
    "a: &a [" + "x," * 30 + "]\nb: &b [" + "*a," * 30 + "]\nc: [" + "*b," * 30 + "]\n",
    "? {a: 1}\n: !!python/object/apply:os.system [x]\n", "%YAML 1.1\n---\nyes: no\n...\n---\n", "- " * 200, "{" * 200,
]  # fmt: skip


@fuzz(mutated_text(YAML), examples=25)
def test_pipelines_yaml(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipelines.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load_file(path, environ={})
        except TunegateError as error:
            assert error.code.startswith("TG01")


def gguf() -> bytes:
    """Two pairs of metadata and one tensor of 32 float32."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 2)
    head += text("general.alignment") + struct.pack("<II", 4, 32)
    head += text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    head += text("w") + struct.pack("<IQQIQ", 2, 16, 2, 0, 0)
    return head + bytes(-len(head) % 32) + bytes(128)


@fuzz(mutated([gguf()]), examples=150)
def test_gguf(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        path.write_bytes(data)
        try:
            with GgufFile(path) as weights:
                for name in weights.tensors:
                    assert weights.dequantise(name).nbytes <= 64 * len(data)
        except DataError as error:
            assert error.code == "TG0310"


@fuzz(
    st.one_of(
        JSON,
        st.fixed_dictionaries({"files": JSON}),
        st.fixed_dictionaries({"files": st.dictionaries(st.sampled_from(["a", "../a", "/etc/passwd"]), JSON)}),
    ),
    examples=60,
)
def test_manifests(document: object) -> None:
    """A manifest either reports a damaged directory or gives the digest of exactly its files."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(b"x")
        try:
            (Path(folder) / MANIFEST).write_bytes(orjson.dumps(document))
        except TypeError:
            return
        try:
            verify(Path(folder))
        except StorageError as error:
            assert error.code == "TG0510"
        else:
            raise AssertionError("no generated manifest holds the right sha256")


ADDRESSES = [
    "pypi://dist@1.0/a/b.gguf#sha256=" + "a" * 64, "hf://org/name@" + "b" * 40, "file:models/x", "file:///a%2e%2e/b",
    "pypi://dist@1.0/a/../../b#sha256=" + "a" * 64 + "&wheel-sha256=" + "b" * 64,
]  # fmt: skip


@fuzz(mutated_text(ADDRESSES), examples=150)
def test_addresses_of_models(text: str) -> None:
    try:
        found = parse_model_uri(text)
    except TunegateError:
        return
    member = getattr(found, "member", "")
    assert ".." not in Path(member).parts
    assert not Path(member).is_absolute()
