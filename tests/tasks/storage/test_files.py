"""Files of a configuration stay in its folder, a folder can be listed while others change it, writes survive a cut."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from flows.curation_steps import declaration_faults
from schemas.checks import JudgeSpec
from schemas.curation_steps import SqlStep
from schemas.errors import SecurityError
from tasks.assess.llm_judge import labels_digest
from tasks.storage.files import files_below, inside, package_files, whole_file, write_atomic
from tests.support.power_cut import record_synced


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a pipelines.yaml, with a file inside and one outside."""
    (tmp_path / "project" / "sql").mkdir(parents=True)
    (tmp_path / "project" / "sql" / "a.sql").write_text("select * from tickets")
    (tmp_path / "outside.sql").write_text("select * from tickets")
    (tmp_path / "project" / "link.sql").symlink_to(tmp_path / "outside.sql")
    return tmp_path / "project"


@pytest.mark.parametrize("name", ["sql/a.sql", "sql/../sql/a.sql", "absent.sql"])
def test_files_in_the_folder_are_found(root: Path, name: str) -> None:
    assert inside(name, root, where="here") == (root / name).resolve()


@pytest.mark.parametrize("name", ["../outside.sql", "link.sql", "/etc/passwd", "~/x.sql", "sql/../../outside.sql"])
def test_files_outside_the_folder_are_refused(root: Path, name: str) -> None:
    with pytest.raises(SecurityError, match="TG0818"):
        inside(name, root, where="here")


def test_the_sql_of_a_step_and_the_labels_of_a_judge_must_be_in_the_folder(root: Path) -> None:
    step = SqlStep(uses="sql", name="latest", file="../outside.sql")
    (fault,) = declaration_faults((step,), pipeline="small", root=root)
    assert (type(fault), fault.code) == (SecurityError, "TG0818")
    assert "curate.sql.latest" in str(fault)
    judge = JudgeSpec.model_construct(labels="../outside.sql")
    with pytest.raises(SecurityError, match="TG0818"):
        labels_digest(judge, root=root)


def test_files_are_listed_while_folders_are_renamed_and_removed(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "file").touch()
    seen = []
    for path in files_below(tmp_path):
        seen.append(path.relative_to(tmp_path).as_posix())
        for folder in tmp_path.iterdir():
            if folder != path.parent:
                shutil.rmtree(folder)
    assert len(seen) == 1
    (tmp_path / "e").touch()
    assert {path.name for path in files_below(tmp_path)} == {"e", "file"}
    assert list(files_below(tmp_path / "nowhere")) == []


def test_a_power_cut_leaves_the_old_bytes_or_all_the_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = record_synced(monkeypatch)
    target = tmp_path / "champion.json"
    write_atomic(target, b"old")
    synced.clear()
    write_atomic(target, b"all the new ones")
    (aside, content), *_, (folder, names) = synced
    assert content == b"all the new ones"
    assert aside != target, "it has its name only once it is durable"
    assert (folder, names) == (tmp_path, {target.name})


def test_a_file_that_fails_while_it_is_written_leaves_the_old_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "index.parquet"
    write_atomic(target, b"old")
    with pytest.raises(OSError, match="No space left"):
        write_half(target)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(target.name, b"old")]


def write_half(path: Path) -> None:
    with whole_file(path, mode=0o600) as aside:
        aside.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_files_that_python_and_numba_keep_are_not_files_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "acme_steps" / "__pycache__"
    kept.mkdir(parents=True)
    for name in ("kernel.cpython-311.pyc", "kernel.count-3.py311.nbi"):
        (kept / name).touch()
    for name in ("__init__.py", "words.txt"):
        (tmp_path / "acme_steps" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert [name for name, _ in package_files("acme_steps.kernel")] == [
        "acme_steps/__init__.py",
        "acme_steps/words.txt",
    ]
