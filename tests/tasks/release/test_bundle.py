"""What a bundle contains, and what it does not."""

import json
from pathlib import Path

import pytest

from schemas.artifacts import BundleRef, ModelRef, TrainedRef
from schemas.errors import StorageError
from schemas.evaluation import DecodingSpec
from schemas.training import PromptSpec
from tasks.release.bundle import bundle_candidate, check_evaluated
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import seal
from tests.support.refs import trained_ref


def test_a_bundle_contains_the_weights_and_how_they_serve(tiny_model: ModelRef, tmp_path: Path) -> None:
    bundle = make(tiny_model, tmp_path, "adapter_model.safetensors", "adapter_config.json", "training.json")
    assert sorted(path.name for path in bundle.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "serving.json", "training.json",
    ]  # fmt: skip
    serving = json.loads((bundle / "serving.json").read_text())
    assert serving["prompt"]["user"] == "{body}"
    assert serving["decoding"]["max_new_tokens"] == 9
    assert serving["trained"]["root"] == serving["base"]["root"] == "."
    assert serving["base_files"] == {
        path.name: sha256_file(path) for path in tiny_model.root.iterdir() if path.name != "MANIFEST.json"
    }
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= serving["base_files"].keys()
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in bundle.iterdir())


def test_equal_candidates_give_equal_bundles(tiny_model: ModelRef, tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        digests.add(seal(make(tiny_model, tmp_path / place, "adapter_model.safetensors")))
    assert len(digests) == 1


def test_a_candidate_without_weights_is_refused(tiny_model: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="TG0510"):
        make(tiny_model, tmp_path, "adapter_config.json")


def test_files_that_were_not_evaluated_are_not_registered(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("trained", "bundle")]
    for root in roots:
        root.mkdir()
        (root / "adapter_model.safetensors").write_text(root.name)
    trained = trained_ref(roots[0], digest=seal(roots[0]))
    bundle = BundleRef(root=roots[1], digest=seal(roots[1]), n_bytes=1)
    with pytest.raises(StorageError, match="TG0549"):
        check_evaluated(bundle, trained)
    (roots[0] / "adapter_model.safetensors").write_text("bundle")
    assert seal(roots[0]) == bundle.digest, "now both have the same files, but others than those that were evaluated"
    with pytest.raises(StorageError, match="TG0549"):
        check_evaluated(bundle, trained)


def make(model: ModelRef, folder: Path, *files: str) -> Path:
    """Bundle a made-up candidate with these files and the usual others."""
    for name in ("trained", "out"):
        (folder / name).mkdir()
    for name in (*files, "curves.parquet", "artifact.json", "MANIFEST.json"):
        (folder / "trained" / name).write_text(f"{name}\n")
    bundle_candidate(
        trained=TrainedRef(
            root=folder / "trained", digest="t", method="lora", format="instruction", base_digest=model.digest,
            n_trainable=1234, n_steps=5, n_tokens=6, train_loss=0.5,
        ),
        model=model,
        name="replies",
        prompt=PromptSpec(user="{body}"),
        decoding=DecodingSpec(max_new_tokens=9, batch_size=4, threads=None, dtype="auto"),
        out=folder / "out",
    )  # fmt: skip
    return folder / "out"
