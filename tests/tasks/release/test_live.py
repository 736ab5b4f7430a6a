"""A version answers with the files that were evaluated, or not at all."""

import shutil
from pathlib import Path

import pytest

from schemas.artifacts import BundleRef, ModelRef
from schemas.errors import StorageError
from schemas.evaluation import DecodingSpec
from schemas.release import ServingSpec
from schemas.training import PromptSpec
from tasks.release.live import LiveModels, Offer
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tests.support.refs import trained_ref


@pytest.mark.parametrize("changed", ["bundle", "model"])
def test_a_changed_candidate_is_not_served(tiny_model: ModelRef, tmp_path: Path, changed: str) -> None:
    base = tiny_model.model_copy(update={"root": Path(shutil.copytree(tiny_model.root, tmp_path / "base"))})
    trained = trained_ref(Path(), digest="t", base_digest=base.digest)
    serving = ServingSpec(
        name="replies", trained=trained, prompt=PromptSpec(), base=base, base_files={},
        decoding=DecodingSpec(max_new_tokens=4, batch_size=1, threads=1, dtype="float32"),
    )  # fmt: skip
    (tmp_path / "bundle").mkdir()
    write_json(tmp_path / "bundle" / "serving.json", serving.model_dump(mode="json"))
    bundle = BundleRef(root=tmp_path / "bundle", digest=seal(tmp_path / "bundle"), n_bytes=1)
    root = bundle.root if changed == "bundle" else base.root
    (root / "more.json").write_text("{}")
    seal(root)
    live = LiveModels(lambda: {"champion": Offer(version="1", verdict="PROMOTE", model=base, bundle=bundle)})
    with pytest.raises(StorageError, match=r"TG0549.*the model has sha256") as caught:
        live.find("champion")
    assert caught.value.where == str(root)
