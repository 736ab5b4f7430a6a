"""A state folder that is not what it should be: every command says so, and none calls it an internal error."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.settings import load_settings, open_ledger
from schemas.errors import StorageError
from tests.support.commands import run_here
from tests.support.forgetful_workspace import CUSTOMER, KEY, Workspace, build

NOBODY = 65534


@pytest.mark.parametrize(
    "words",
    [("runs",), ("status",), ("plan", "replies"), ("run", "replies"), ("doctor",), ("reconcile",), ("report", "r1"),
     ("up",), ("champion", "replies")],
)  # fmt: skip
def test_a_file_in_the_place_of_the_state_folder_is_named(
    refusal: Callable[..., str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("no folder")
    said = refusal(*words, TUNEGATE_HOME=str(tmp_path / "file"))
    assert "TG0559" in said
    assert str(tmp_path / "file") in said


@pytest.fixture
def foreign() -> Iterator[Workspace]:
    """A workspace that this user may read and another one may read alone."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    folder = Path(tempfile.mkdtemp())
    os.environ["VQ_KEY"] = KEY
    try:
        here = build(folder)
        open_ledger(here.settings).runs()
        for path in (folder, *folder.rglob("*")):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
        yield here
    finally:
        del os.environ["VQ_KEY"]
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "words",
    [("runs",), ("status",), ("doctor",), ("reconcile",), ("report", "r1"), ("history", "small"),
     ("forget", CUSTOMER, "--plan"), ("champion", "small"), ("plan", "small"), ("run", "small")],
)  # fmt: skip
def test_a_state_folder_that_may_only_be_read_is_no_internal_error(foreign: Workspace, words: tuple[str, ...]) -> None:
    def as_nobody() -> bytes:
        folder = foreign.settings.home.parent
        environ = {**os.environ, "TUNEGATE_CACHE": str(folder / "cache"), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
        done = run_here(words, cwd=folder, environ=environ)
        return f"{done.returncode}\n{done.stdout}\n{done.stderr}".encode()

    said = in_child(as_nobody)
    code, _, rest = said.partition("\n")
    assert code.isdecimal(), said
    assert "TG0001" not in rest
    if words[0] in ("reconcile", "report", "run"):
        assert code != "0"


def in_child(work: Callable[[], bytes]) -> str:
    """What the work says when another user does it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = work()
        except BaseException as error:
            said = repr(error).encode()
        with os.fdopen(writer, "wb") as stream:
            stream.write(said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said.decode()


def test_a_ledger_that_is_taken_away_while_a_run_works_is_named(place) -> None:
    from flows.engine.disk import named_disk_errors

    ledger = open_ledger(load_settings(place.home / "pipelines.yaml", environ={}))
    home = ledger.root
    ledger.start_run("r1", pipeline="small", model_name="small", input_digest="", config_json="{}")
    shutil.rmtree(home)
    with pytest.raises(StorageError, match=r"TG0559.*removed or replaced"), named_disk_errors(home):
        ledger.record_failure("r1", "extract", ValueError("x"))
