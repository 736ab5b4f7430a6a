"""A real MLflow store on SQLite, and small sealed bundles to register in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.artifacts import BundleRef
from schemas.release import DatasetRecord, RunRecord
from tasks.release.tracking import choose_uri, open_client
from tasks.storage.sealed_folder import seal
from tests.support.place import empty_store  # noqa: F401
from tests.support.workplace import give_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def store_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:  # noqa: F811
    """The home folder with the MLflow store that these tests share."""
    home = tmp_path_factory.mktemp("mlflow-home")
    give_mlflow(home, empty_store)
    return home


@pytest.fixture
def uri(store_home: Path) -> str:
    return choose_uri("", None, home=store_home)


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return open_client(uri)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[str], BundleRef]:
    """A sealed directory that contains one line."""

    def make(text: str) -> BundleRef:
        root = tmp_path / f"bundle-{text}"
        root.mkdir()
        (root / "serving.json").write_text(f"{text}\n")
        return BundleRef(root=root, digest=seal(root), n_bytes=len(text) + 1)

    return make


@pytest.fixture
def make_record() -> Callable[..., RunRecord]:
    """A run's record."""

    def make(run_id: str, **changes: object) -> RunRecord:
        fields: dict[str, object] = {
            "run_id": run_id,
            "pipeline": "replies",
            "params": {"train.seed": "7", "train.adapter.rank": "16"},
            "metrics": {"exact": 0.75, "zero_shot/exact": 0.1},
            "tags": {"tunegate.verdict": "HOLD"},
            "datasets": (DatasetRecord(name="replies-train", context="training", digest="ab" * 32, n_rows=1234),),
        }
        return RunRecord.model_validate(fields | changes)

    return make
