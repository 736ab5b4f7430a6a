"""A folder is complete under its name or has none, after an exception, a kill, a race and a power cut."""

import errno
from pathlib import Path

import orjson
import pytest

from schemas.errors import StorageError
from tasks.storage.sealed_folder import (
    MANIFEST,
    remove_unfinished,
    seal,
    sealed_contents,
    sealed_folder,
    verify,
    whole_folder,
)
from tests.support.power_cut import record_synced


def test_a_folder_has_its_name_once_everything_in_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = record_synced(monkeypatch)
    place = tmp_path / "made" / "result"
    with whole_folder(place) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "rows.txt").write_bytes(b"rows")
        assert not place.exists()
    assert [path.name for path in place.parent.iterdir()] == ["result"]
    order = [path for path, _ in synced]
    assert order.index(folder / "deep" / "rows.txt") < order.index(folder) < order.index(place.parent)
    assert dict(synced)[folder / "deep" / "rows.txt"] == b"rows"
    assert dict(synced)[place.parent] == {"result"}, "its name is made durable last"


def test_a_sealed_folder_lists_its_files_and_says_what_was_added(tmp_path: Path) -> None:
    about: dict[str, object] = {}
    with sealed_folder(tmp_path / "result", mode=0o700, about=about) as folder:
        (folder / "rows.txt").write_bytes(b"rows")
        about["rows"] = 1  # known only once they are written
    assert orjson.loads((tmp_path / "result" / MANIFEST).read_bytes())["rows"] == 1
    assert (tmp_path / "result").stat().st_mode & 0o777 == 0o700
    contents = sealed_contents(tmp_path / "result")
    assert (contents.digest, contents.files) == (verify(tmp_path / "result"), {"rows.txt": 4})


def test_an_exception_leaves_the_place_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sealed_folder(tmp_path / "result") as folder:  # noqa: PT012
        (folder / "rows.txt").write_bytes(b"rows")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_faster_of_two_processes_wins_and_the_other_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "result"
    with pytest.raises(OSError, match="not empty") as caught, sealed_folder(place) as slower:  # noqa: PT012
        (slower / "rows.txt").write_bytes(b"slower")
        with sealed_folder(place) as faster:
            (faster / "rows.txt").write_bytes(b"faster")
    assert caught.value.errno == errno.ENOTEMPTY
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    verify(place)
    assert (place / "rows.txt").read_bytes() == b"faster"


def test_what_a_kill_left_of_a_folder_is_removed_and_nothing_of_its_neighbours(tmp_path: Path) -> None:
    for name in ("a[1]", ".a[1].0000.tmp", ".a1.0000.tmp"):
        (tmp_path / name).mkdir()
    remove_unfinished(tmp_path / "a[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a1.0000.tmp", "a[1]"]


def test_a_folder_that_cannot_be_created_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"TG0554.*cannot write: File exists"):
        whole_folder(tmp_path / "file" / "result").__enter__()


def test_a_folder_on_another_host_is_not_reported_as_damaged(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"TG0510.*no such folder on this machine") as caught:
        verify(tmp_path / "store" / "bundle" / "key")
    assert "share" in str(caught.value.hint)
    with pytest.raises(StorageError, match=r"TG0510.*there is no manifest"):
        verify(tmp_path)


def test_a_power_cut_after_sealing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = record_synced(monkeypatch)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rows.txt").write_bytes(b"rows")
    (tmp_path / "table.txt").write_bytes(b"table")
    digest = seal(tmp_path)
    durable = dict(synced)
    assert durable[tmp_path / "deep" / "rows.txt"] == b"rows"
    assert durable[tmp_path / "table.txt"] == b"table"
    assert durable[tmp_path / "deep"] == {"rows.txt"}
    assert durable[tmp_path] == {"deep", "table.txt", MANIFEST}
    assert verify(tmp_path) == digest
