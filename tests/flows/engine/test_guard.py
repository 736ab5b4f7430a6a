"""What a process does first: private files, and no secret in any log or traceback."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.engine.guard import guard_logs, say_traceback
from schemas import secrets
from schemas.secrets import know_secrets

# Where another test has set Prefect's loggers up, they miss a flow run.
pytestmark = pytest.mark.filterwarnings("ignore:Logger .prefect:UserWarning")

SECRET = "tell-nobody-4711"


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """What a handler that was there before, and one that comes later, write."""
    before, pattern = dict(secrets._known), secrets._pattern
    made, said = logging.getLogRecordFactory(), io.StringIO()
    first = logging.StreamHandler(said)
    logging.getLogger().addHandler(first)
    know_secrets({"MY_TOKEN": SECRET})
    guard_logs()
    yield said
    logging.getLogger().removeHandler(first)
    logging.setLogRecordFactory(made)
    secrets._known.clear()
    secrets._known.update(before)
    secrets._pattern = pattern


@pytest.mark.parametrize("name", ["", "tunegate.store", "prefect.flow_runs", "urllib3.connectionpool", "made.later"])
def test_no_logger_writes_a_secret_in_message_arguments_or_traceback(heard: io.StringIO, name: str) -> None:
    log = logging.getLogger(name)
    own = logging.StreamHandler(heard)  # as Prefect's loggers have
    log.addHandler(own)
    try:
        log.error("told %s", SECRET)
        log.error("told %(who)s", {"who": SECRET})
        log.error(f"told {SECRET} and %s", "more")
        log.error("a message that does not fit %s %s", SECRET)
        try:
            raise ConnectionError(f"401 for {SECRET}")
        except ConnectionError:
            log.exception("it failed")
    finally:
        log.removeHandler(own)
    told = heard.getvalue()
    assert SECRET not in told
    assert told.count("told ${env:MY_TOKEN}") >= 3
    assert "ConnectionError: 401 for ${env:MY_TOKEN}" in told
    assert "Traceback" in told


def test_prefects_own_loggers_write_none(heard: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    from prefect.logging import get_logger

    log = get_logger("flow_runs")
    handler = logging.StreamHandler(heard)
    log.addHandler(handler)
    try:
        log.error("state %s", SECRET)
    finally:
        log.removeHandler(handler)
    assert "state ${env:MY_TOKEN}" in heard.getvalue()
    assert SECRET not in heard.getvalue() + "".join(capfd.readouterr())


def test_what_needs_no_masking_is_left_as_it_was(heard: io.StringIO) -> None:
    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "n %d", (3,), None)
    assert (record.msg, record.args) == ("n %d", (3,))
    guard_logs()
    assert logging.getLogRecordFactory().guards  # type: ignore[attr-defined]


def test_a_traceback_is_said_without_secrets(heard: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError("then") from error
    except RuntimeError as error:
        say_traceback(error)
    told = capsys.readouterr().err
    assert "ValueError: ${env:MY_TOKEN}" in told
    assert "RuntimeError: then" in told


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_command_says_no_secret_even_with_debug(tmp_path: Path, project: Path, debug: list[str]) -> None:
    """A secret that reaches an internal error by way of a file's name: the worst that a person can do."""
    code = (
        "import flows.commands.config as c, flows.cli as f, os, sys\n"
        "def broken(**_): raise KeyError(os.environ['MY_TOKEN'])\n"
        "c.validate = broken\n"
        f"f.main({[*debug, 'validate', '--json']!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env={"MY_TOKEN": SECRET, "PATH": "/bin", "PYTHONPATH": str(project)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert SECRET not in done.stdout + done.stderr
    assert ("KeyError: '${env:MY_TOKEN}'" in done.stderr) == bool(debug)


def test_what_a_command_writes_is_its_users_alone(tmp_path: Path, project: Path) -> None:
    code = (
        "from flows.engine.guard import guard_process; guard_process()\n"
        "from pathlib import Path; Path('a').mkdir(); Path('a/b').write_text('x')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(project)}, check=True)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("a", "a/b")] == ["0o700", "0o600"]
