"""Which files a source means: none that never ends, and no way in circles."""

import os
import time
from pathlib import Path

import pytest

from schemas.errors import ConfigError, TunegateError
from schemas.source import FilesSource
from tasks.sources.files import find_files


def names(pattern: str, root: Path) -> list[str]:
    return [file.name for file in find_files(FilesSource(kind="files", paths=(pattern,)), root=root)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Exports, a hidden file, a pipe, and links that lead back."""
    (tmp_path / "in" / "may").mkdir(parents=True)
    for name in ("in/a.jsonl", "in/may/b.jsonl", "in/.hidden.jsonl"):
        (tmp_path / name).write_text("{}\n")
    for name in ("in/x", "in/y", "in/may/z"):
        (tmp_path / name).symlink_to(tmp_path / "in")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "in" / "self.jsonl").symlink_to("self.jsonl")
    os.mkfifo(tmp_path / "in" / "pipe.jsonl")
    return tmp_path


def test_links_to_folders_above_are_not_followed_by_two_stars(folder: Path) -> None:
    began = time.process_time()
    assert names("in/**/*.jsonl", folder) == ["in/a.jsonl", "in/may/b.jsonl"]
    assert names("**/*.json?", folder) == ["in/a.jsonl", "in/may/b.jsonl"]
    assert names("in/.*.jsonl", folder) == ["in/.hidden.jsonl"]
    assert time.process_time() - began < 5


def test_a_glob_with_many_two_stars_is_refused_at_once(folder: Path) -> None:
    deep = folder / "in"
    for n in range(20):
        deep = deep / f"d{n}"
    deep.mkdir(parents=True)
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"TG0130.*`\*\*` 40 times; allowed are 3"):
        names("in/" + "**/" * 40 + "*.jsonl", folder)
    assert names("**/**/in/**/*.jsonl", folder) == ["in/a.jsonl", "in/may/b.jsonl"]
    assert time.process_time() - began < 5


@pytest.mark.parametrize("pattern", ["loop", "loop/a.jsonl", "loop/*.jsonl", "in/self.jsonl"])
def test_a_link_back_to_itself_is_named(folder: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"TG0130.*link back to itself"):
        names(pattern, folder)


@pytest.mark.parametrize("pattern", ["in/pipe.jsonl", "/dev/zero", "/dev/zer*"])
def test_a_pipe_or_a_device_is_no_source(folder: Path, pattern: str) -> None:
    with pytest.raises(TunegateError, match=r"TG0130.*not a regular file|TG0201"):
        names(pattern, folder)
