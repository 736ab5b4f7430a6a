"""What a process does first: private files, and no secret in any log or traceback."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from flows.workspace.guard import guard_logs, say_traceback
from schemas.secrets import know_secrets

# Where another test has set Prefect's loggers up, they miss a flow run.
pytestmark = pytest.mark.filterwarnings("ignore:Logger .prefect:UserWarning")

SECRET = "tell-nobody-4711"


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """What a handler that was there before, and one that comes later, write."""
    made, said = logging.getLogRecordFactory(), io.StringIO()
    first = logging.StreamHandler(said)
    logging.getLogger().addHandler(first)
    know_secrets({"MY_TOKEN": SECRET})
    guard_logs()
    yield said
    logging.getLogger().removeHandler(first)
    logging.setLogRecordFactory(made)


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
