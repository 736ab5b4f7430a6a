"""Checkpoints on shared storage: complete or absent, only the last ones, and none left when training is over."""

from pathlib import Path

import pytest

from tasks.cluster.depot import Depot, NodeFolder, Notes, clear_marked, mark
from tasks.cluster.shared import Shared
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal, verify
from tasks.train.job import ANSWERS, CHECKPOINTS


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(f"file://{tmp_path / 'shared'}")


def checkpoint(scratch: Path, step: int) -> Path:
    folder = scratch / CHECKPOINTS / f"step-{step:08d}"
    folder.mkdir(parents=True)
    write_json(folder / "state.json", {"step": step})
    seal(folder)
    return folder


def answers(scratch: Path, step: int) -> None:
    (scratch / ANSWERS / "key").mkdir(parents=True, exist_ok=True)
    write_json(scratch / ANSWERS / "key" / f"step-{step}.json", [{"text": f"at {step}"}])


def bring(depot: Depot, folder: Path) -> list[str]:
    folder.mkdir()
    depot.restore(folder)
    found = sorted(path for path in (folder / CHECKPOINTS).glob("*"))
    for path in found:
        verify(path)
    return [path.name for path in found]


def test_the_last_checkpoints_are_downloaded_with_their_answers_and_removed_at_the_end(
    tmp_path: Path, shared: Shared
) -> None:
    kept: list[int] = []
    depot, scratch = Depot(shared, "k1", on_saved=kept.append), tmp_path / "scratch"
    assert bring(depot, tmp_path / "before") == []
    for step in (2, 4, 6):
        answers(scratch, step)
        depot.save(scratch, checkpoint(scratch, step))
    assert kept == [2, 4, 6]
    assert bring(depot, tmp_path / "after") == ["step-00000004", "step-00000006"]
    assert len(list((tmp_path / "after" / ANSWERS / "key").iterdir())) == 3
    assert bring(Depot(shared, "k2"), tmp_path / "other") == [], "from another training"
    final = tmp_path / "final"
    final.mkdir()
    write_json(final / "training.json", {})
    seal(final)
    assert depot.result() is None
    assert depot.save_result(final) == depot.result()
    other_node = [path for path in (tmp_path / "shared").iterdir() if path.name != "trainings"]
    assert len(other_node) == 5, "two checkpoints, two answer files, the result"
    depot.clear()
    assert [path.name for path in (tmp_path / "shared").rglob("*")] == ["trainings"]


def test_a_damaged_checkpoint_or_note_is_skipped(tmp_path: Path, shared: Shared) -> None:
    warned: list[str] = []
    depot, scratch = Depot(shared, "k1", warn=warned.append), tmp_path / "scratch"
    for step in (2, 4):
        depot.save(scratch, checkpoint(scratch, step))
    notes = Notes(shared, "trainings/k1")
    newest = notes.read("step-00000004")
    assert newest is not None
    (tmp_path / "shared" / newest["checkpoint"] / "state.json").write_text("{}")
    assert bring(depot, tmp_path / "after") == ["step-00000002"]
    assert "step-00000004 on the shared storage is skipped: state.json differs from what was uploaded" in warned[0]
    path = tmp_path / "shared" / "trainings" / "k1" / "step-00000004.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert notes.read("step-00000004") is None
    assert bring(depot, tmp_path / "later") == ["step-00000002"]


def test_files_of_an_interrupted_training_are_found_by_its_mark(tmp_path: Path, shared: Shared) -> None:
    scratch = tmp_path / "home" / "scratch" / "train" / "key"
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "ids").write_text("token ids")
    scratch.mkdir(parents=True)
    mark(scratch, shared.url, "k1", shared.put(dataset))
    Depot(shared, "k1").save(scratch, checkpoint(scratch, 2))
    clear_marked(tmp_path / "home" / "scratch")
    assert [path.name for path in (tmp_path / "shared").rglob("*")] == ["trainings"]
    clear_marked(tmp_path / "home" / "scratch")


def test_a_nodes_folder_is_removed_by_its_last_worker_and_leftovers_of_a_killed_one_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path))
    made: list[Path] = []

    def make(place: Path) -> None:
        place.mkdir()
        made.append(place)

    killed = tmp_path / "shared" / "trainings" / ("f" * 16)
    killed.mkdir(parents=True)
    with NodeFolder("a" * 64) as first:
        assert not killed.exists()
        with NodeFolder("a" * 64) as second:
            assert first.once("dataset", make) == second.once("dataset", make)
        assert first.root.exists(), "one worker is still running"
    assert len(made) == 1
    assert not first.root.exists()
