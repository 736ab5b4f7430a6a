"""Ids become pseudonyms under a key of the environment: joins still work, and the key is nowhere."""

import re
from typing import Any

import pytest

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from tasks.curate.redact import redact_tickets
from tasks.curate.redaction.pseudonyms import fingerprint_key

KEY = "a long enough key for tests"
STEP = RedactStep(uses="redact", pseudonymise=("ticket_id", "customer_id", "thread_id"), key_env="TEST_KEY")
ROWS = [
    {"ticket_id": "3", "customer_id": "ann", "thread_id": "1", "body": "ann@example.org"},
    {"ticket_id": "1", "customer_id": "ann", "thread_id": "1", "body": "b"},
    {"ticket_id": "2", "customer_id": None, "body": "c"},
]


@pytest.fixture
def redacted(make_tickets: Any, new_folder: Any, rows_of: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*, key: str = KEY, step: RedactStep = STEP) -> tuple[Any, dict[str, dict[str, Any]]]:
        monkeypatch.setenv("TEST_KEY", key)
        result = redact_tickets(tickets=make_tickets(ROWS), step=step, out=new_folder())
        return result, {row["body"]: row for row in rows_of(result.tickets).values()}

    return run


def test_equal_ids_have_equal_pseudonyms_in_every_column_and_null_stays(redacted: Any) -> None:
    _, rows = redacted()
    first, second, third = rows["[EMAIL_1]"], rows["b"], rows["c"]
    assert first["customer_id"] == second["customer_id"]
    assert first["thread_id"] == second["thread_id"] == second["ticket_id"]
    assert third["customer_id"] is None
    assert third["thread_id"] is None
    ids = {row["ticket_id"] for row in rows.values()}
    assert len(ids) == 3
    assert all(re.fullmatch("p_[0-9a-f]{24}", value) for value in ids)


def test_the_rows_are_ordered_by_their_new_ids_and_the_bytes_repeat(redacted: Any) -> None:
    first, rows = redacted()
    again, _ = redacted()
    assert first.tickets.read_bytes() == again.tickets.read_bytes()
    ids = [row["ticket_id"] for row in rows.values()]
    assert ids == sorted(ids)


def test_another_key_gives_other_pseudonyms(redacted: Any) -> None:
    _, rows = redacted()
    _, others = redacted(key="another key, long enough")
    assert rows["b"]["ticket_id"] != others["b"]["ticket_id"]


def test_columns_not_named_stay(redacted: Any) -> None:
    step = RedactStep(uses="redact", pseudonymise=("customer_id",), key_env="TEST_KEY")
    _, rows = redacted(step=step)
    assert rows["b"]["ticket_id"] == "1"
    assert rows["b"]["thread_id"] == "1"
    assert rows["b"]["customer_id"] != "ann"


def test_the_key_is_in_no_file_and_in_no_note(redacted: Any) -> None:
    result, _ = redacted()
    assert KEY not in repr(result)
    assert result.notes["pseudonyms"] == 4
    for path in result.root.iterdir():
        assert KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize(("key", "fault"), [(None, "is not set"), ("", "is not set"), ("short", "fewer than 16")])
def test_a_missing_or_short_key_is_refused_before_anything_is_written(
    key: str | None, fault: str, make_tickets: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("TEST_KEY", key)
    out = new_folder()
    with pytest.raises(ConfigError, match="TG0190") as refused:
        redact_tickets(tickets=make_tickets(ROWS), step=STEP, out=out)
    assert fault in refused.value.message
    assert "TEST_KEY" in str(refused.value.hint)
    assert list(out.iterdir()) == []
    assert "short" not in str(refused.value)


def test_the_fingerprint_follows_the_key_and_does_not_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    first = fingerprint_key(STEP)
    assert first == fingerprint_key(STEP)
    assert KEY not in first
    monkeypatch.setenv("TEST_KEY", KEY + "!")
    assert fingerprint_key(STEP) != first
    monkeypatch.delenv("TEST_KEY")
    assert fingerprint_key(RedactStep(uses="redact")) == ""
