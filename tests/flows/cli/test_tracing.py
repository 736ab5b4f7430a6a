"""What `tunegate data forget` prints about a customer's data."""

import pytest

from flows.cli.output import Result, render
from flows.cli.tracing import holdings_text
from schemas.forget import Holding, Holdings


def test_rows_that_the_user_must_remove_are_printed_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    source = Holding(kind="source", place="t.jsonl", n_rows=2, fate="yours", note="lines 1, 2: remove them there")
    render(Result(None, holdings_text(Holdings(owner="o1", n_tickets=2, held=(source,), versions=()))), as_json=False)
    printed = capsys.readouterr().out
    assert "lines 1, 2: remove them there" in printed
    assert "2 tickets" in printed
