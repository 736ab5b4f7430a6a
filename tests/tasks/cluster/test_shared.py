"""Folders on shared storage: complete or absent, verified, downloaded once per node."""

from pathlib import Path

import pytest

from schemas.errors import ConfigError, StorageError
from tasks.cluster.shared import LISTED, Shared
from tasks.storage.sealed_folder import seal, verify
from tests.support.power_cut import record_synced

URLS = ("file://{}", "memory://{}")
"""A mounted folder, and an object store without folders or renames."""


@pytest.fixture(params=URLS)
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return Shared(request.param.format(tmp_path / "shared"))


def folder_of(place: Path) -> Path:
    (place / "inner").mkdir(parents=True)
    (place / "a.bin").write_bytes(b"a" * 1000)
    (place / "inner" / "b.bin").write_bytes(b"b")
    return place


def test_a_sealed_folder_keeps_its_manifest(storage: Shared, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made")
    digest = seal(folder)
    address = storage.put(folder)
    assert storage.put(folder) == address
    downloaded = storage.download(address, tmp_path / "downloaded")
    assert verify(downloaded) == digest
    assert storage.cached(address) == storage.cached(address)
    assert verify(storage.cached(address)) == digest


def test_a_single_file_keeps_its_name(storage: Shared, tmp_path: Path) -> None:
    (tmp_path / "one.parquet").write_bytes(b"PAR1")
    assert (storage.cached(storage.put(tmp_path / "one.parquet")) / "one.parquet").read_bytes() == b"PAR1"


def test_a_power_cut_leaves_nothing_that_a_name_says_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    storage = Shared(f"file://{tmp_path / 'shared'}")
    synced = record_synced(monkeypatch)
    address = storage.put(folder_of(tmp_path / "made"))
    contents = [content for _, content in synced if isinstance(content, bytes)]
    assert contents[:2] == [b"a" * 1000, b"b"], "durable before the list that says so"
    assert LISTED in dict(synced)[tmp_path / "shared" / address]
    synced.clear()
    folder = storage.cached(address)
    assert {b"a" * 1000, b"b"} <= {content for _, content in synced if isinstance(content, bytes)}
    place, names = synced[-1]
    assert place == folder.parent
    assert address in names, "its name comes last"
    assert all(folder not in (path, *path.parents) for path, _ in synced), "all is durable before it has its name"


def test_a_removed_folder_is_absent(storage: Shared, tmp_path: Path) -> None:
    address = storage.put(folder_of(tmp_path / "made"))
    assert storage.has(address)
    storage.remove(address)
    storage.remove(address)
    assert not storage.has(address)
    with pytest.raises(StorageError, match="TG0568"):
        storage.download(address, tmp_path / "downloaded")
    assert not (tmp_path / "downloaded").exists()


def test_a_damaged_file_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    storage = Shared(f"file://{tmp_path / 'shared'}")
    address = storage.put(folder_of(tmp_path / "made"))
    (tmp_path / "shared" / address / "a.bin").write_bytes(b"a" * 999 + b"x")
    with pytest.raises(StorageError, match="TG0510"):
        storage.cached(address)
    assert not [path for path in (tmp_path / "cache" / "shared").iterdir() if path.suffix != ".lock"]


def test_an_interrupted_upload_is_absent_until_it_is_repeated(tmp_path: Path) -> None:
    storage = Shared(f"file://{tmp_path / 'shared'}")
    folder = folder_of(tmp_path / "made")
    address = storage.put(folder)
    (tmp_path / "shared" / address / LISTED).unlink()
    (tmp_path / "shared" / address / "a.bin").write_bytes(b"torn")
    assert not storage.has(address)
    assert storage.put(folder) == address
    assert (storage.download(address, tmp_path / "downloaded") / "a.bin").read_bytes() == b"a" * 1000


def test_read_only_storage_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file is in its place")
    with pytest.raises(StorageError, match="TG0568"), Shared(f"file://{tmp_path / 'shared'}").probe():
        pass


def test_storage_whose_package_is_not_installed_is_an_error() -> None:
    with pytest.raises(ConfigError, match="TG0119"):
        Shared("nowhere://bucket/prefix")
