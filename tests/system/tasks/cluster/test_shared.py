"""Folders on shared storage: complete or absent, verified, downloaded once per node."""

import multiprocessing
from pathlib import Path

import pytest

from tasks.cluster.shared import Shared
from tests.tasks.cluster.test_shared import folder_of


def download_cached(url: str, address: str) -> str:
    return str(Shared(url).cached(address))


def test_many_processes_of_a_node_download_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    url = f"file://{tmp_path / 'shared'}"
    address = Shared(url).put(folder_of(tmp_path / "made"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        places = pool.starmap(download_cached, [(url, address)] * 4)
    assert len(set(places)) == 1
