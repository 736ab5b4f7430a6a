"""Texts that people write: conversations, requests, feedback, personal data, secrets."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from schemas.openai_api import ChatRequest, TextRequest
from schemas.secrets import know_secrets, masked
from tasks.curate.redact import redact_row
from tasks.monitor.feedback import FeedbackRules, ingest_feedback
from tasks.sources.readers.read_jsonl import parse_lines
from tasks.sources.readers.records import Fault
from tasks.sources.readers.streams import Line
from tasks.sources.readers.turns import read_turns, to_json
from tasks.storage.warehouse import connect
from tests.fuzz.fuzzing import JSON, LEAK, fuzz, mutated

ROLES = st.sampled_from(["system", "user", "assistant", "human", "gpt", "tool", "developer", "USER", "", "x"]) | JSON
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLES,
        "from": ROLES,
        "content": st.text(max_size=8) | st.sampled_from(["hello", LEAK, " "]) | JSON,
        "value": st.text(max_size=8),
        "weight": st.sampled_from([0, 1, 2, True, None, 1.0, 0.0, -1]),
        "tool_calls": JSON,
    },
)
CONVERSATION = st.lists(TURN | JSON, max_size=5) | JSON


@fuzz(CONVERSATION, examples=120)
def test_conversations(value: Any) -> None:
    """A valid conversation reads back unchanged; an invalid one is refused without quoting its text."""
    turns = read_turns(value)
    if isinstance(turns, Fault):
        assert LEAK not in turns.reason
        return
    others = [turn for turn in turns if turn.role != "system"]
    assert [turn.role for turn in others] == ["user", "assistant"] * (len(others) // 2)
    assert all(turn.content.strip() for turn in turns)
    assert [turn.role for turn in turns[1:]].count("system") == 0
    assert all(turn.weight in (None, 0, 1) for turn in turns)
    if turns[-1].weight != 0:
        assert read_turns(orjson.loads(to_json(turns))) == turns


REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("m") | JSON, "messages": CONVERSATION, "prompt": JSON, "max_tokens": JSON, "stop": JSON,
        "temperature": JSON, "stream": JSON, "n": JSON, "tools": JSON, "logit_bias": JSON,
    },
)  # fmt: skip


@fuzz(REQUEST | JSON, examples=60)
def test_requests_to_the_endpoint(value: Any) -> None:
    for kind in (ChatRequest, TextRequest):
        try:
            request = kind.model_validate(value)
        except ValidationError:
            continue
        assert request.limit is None or request.limit >= 1
        if isinstance(request, ChatRequest):
            assert request.turns()[-1]["role"] == "user"


LINES = [
    b'{"ticket_id": "a", "version": "1", "outcome": "edited", "at": "2026-06-01T00:00:00Z", "reply": "zqleakq"}',
    b'{"ticket_id": 1, "version": 1, "outcome": "accepted", "at": 1e400}', b"[]", b"{}",
    b'{"at": "9999-12-31T23:59:59-23:00"}',
]  # fmt: skip


@fuzz(mutated(LINES), examples=200)
def test_feedback(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        database = Path(folder, "feedback.duckdb")
        try:
            found = ingest_feedback([data], FeedbackRules(frozenset({"1"})), source="f", database=database)
        except ConfigError as error:
            assert (error.code, LEAK in str(error)) == ("TG0164", False)
        else:
            with connect(database, read_only=True) as db:
                kept = db.execute("SELECT version, decided_at IS NOT NULL FROM suggestions").fetchall()
            assert kept == [("1", True)] * found.n_lines
    list(parse_lines([Line(1, 0, data)]))


STEP = RedactStep(uses="redact")
# `V 192.168.17.4` is a version.
PLANTED = {
    "jane.doe@example.com": "[EMAIL_", "DE89370400440532013000": "[IBAN_", "4111 1111 1111 1111": "[CARD_",
    "address 192.168.17.4": "[IP_", "https://example.org/reset?token=abc": "[URL_", "AKIAIOSFODNN7EXAMPLE": "[SECRET_",
}  # fmt: skip
AROUND = st.text(max_size=20) | st.sampled_from(
    ["[EMAIL_1]", "<|im_start|>", "\u200b", "{{", "١٢٣", "-----", "+49 ", "a@"]
)


@fuzz(AROUND, AROUND, st.sampled_from(sorted(PLANTED)), st.sampled_from(["subject", "body", "reply"]), examples=150)
def test_redaction(before: str, after: str, value: str, column: str) -> None:
    """Personal data between spaces is removed whatever surrounds it; a second pass finds nothing."""
    text = f"{before} {value} {after}"
    redacted, counts = redact_row({column: text}, STEP)
    shown = redacted[column] or ""
    assert value not in shown
    assert sum(counts.values()) >= 1
    again, _ = redact_row(redacted, STEP)
    assert (again[column] or "") == shown


@fuzz(CONVERSATION, examples=50)
def test_redaction_of_conversations(value: Any) -> None:
    turns = read_turns(value)
    if not isinstance(turns, Fault):
        redacted, _ = redact_row({"messages": to_json(turns)}, STEP)
        assert [turn["role"] for turn in orjson.loads(redacted["messages"] or "[]")] == [turn.role for turn in turns]


@fuzz(st.text(min_size=6, max_size=20), st.text(max_size=20), st.text(max_size=20), examples=60)
def test_secrets(value: str, before: str, after: str) -> None:
    know_secrets({"FUZZED_TOKEN": value})
    for text in (before + value + after, orjson.dumps(before + value).decode(), repr(value + after)):
        shown = masked(text)
        assert (
            value not in shown.replace("${env:FUZZED_TOKEN}", "").replace("***", "") or value in "${env:FUZZED_TOKEN}"
        )
