"""A file is opened at once or not at all."""

import os
import socket
from pathlib import Path

import pytest

from schemas.load import ConfigErrors, load_file
from schemas.regular_file import open_regular


def test_a_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to("a")
    with open_regular(tmp_path / "b") as stream:
        assert stream.read() == b"text"


def test_pipes_devices_sockets_and_folders_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "socket", tmp_path):
            with pytest.raises(OSError, match=r"pipe, a device|Is a directory|No such device"):
                open_regular(path)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_a_pipelines_yaml_that_never_ends_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigErrors, match=r"TG0110.*pipe, a device"):
        load_file(tmp_path / name)
