"""What a process sets up first: private files, and no secret in any log or traceback."""

import io
import logging
from collections.abc import Iterator

import pytest

from flows.workspace.guard import guard_logs, print_traceback
from schemas.secrets import know_secrets

# Prefect's loggers, if another test has set them up, warn of a missing flow run.
pytestmark = pytest.mark.filterwarnings("ignore:Logger .prefect:UserWarning")

SECRET = "secret-token-4711"


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Output of a handler added before the guard and one added after it."""
    factory, stream = logging.getLogRecordFactory(), io.StringIO()
    first = logging.StreamHandler(stream)
    logging.getLogger().addHandler(first)
    know_secrets({"MY_TOKEN": SECRET})
    guard_logs()
    yield stream
    logging.getLogger().removeHandler(first)
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("name", ["", "tunegate.store", "prefect.flow_runs", "urllib3.connectionpool", "made.later"])
def test_no_logger_writes_a_secret_in_message_arguments_or_traceback(output: io.StringIO, name: str) -> None:
    log = logging.getLogger(name)
    own = logging.StreamHandler(output)  # like Prefect's loggers
    log.addHandler(own)
    try:
        log.error("got %s", SECRET)
        log.error("got %(who)s", {"who": SECRET})
        log.error(f"got {SECRET} and %s", "more")
        log.error("a message that does not fit %s %s", SECRET)
        try:
            raise ConnectionError(f"401 for {SECRET}")
        except ConnectionError:
            log.exception("it failed")
    finally:
        log.removeHandler(own)
    text = output.getvalue()
    assert SECRET not in text
    assert text.count("got ${env:MY_TOKEN}") >= 3
    assert "ConnectionError: 401 for ${env:MY_TOKEN}" in text
    assert "Traceback" in text


def test_prefects_own_loggers_write_no_secret(output: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    from prefect.logging import get_logger

    log = get_logger("flow_runs")
    handler = logging.StreamHandler(output)
    log.addHandler(handler)
    try:
        log.error("state %s", SECRET)
    finally:
        log.removeHandler(handler)
    assert "state ${env:MY_TOKEN}" in output.getvalue()
    assert SECRET not in output.getvalue() + "".join(capfd.readouterr())


def test_records_without_secrets_are_unchanged(output: io.StringIO) -> None:
    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "n %d", (3,), None)
    assert (record.msg, record.args) == ("n %d", (3,))
    guard_logs()
    assert logging.getLogRecordFactory().guards  # type: ignore[attr-defined]


def test_a_traceback_is_printed_without_secrets(output: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError("then") from error
    except RuntimeError as error:
        print_traceback(error)
    text = capsys.readouterr().err
    assert "ValueError: ${env:MY_TOKEN}" in text
    assert "RuntimeError: then" in text
