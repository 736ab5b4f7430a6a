"""What `tunegate data forget` prints of what is held."""

from __future__ import annotations

import pytest

from flows.cli.text.forget import print_holdings
from schemas.forget import Holding, Holdings


def test_what_a_person_has_to_remove_is_printed_with_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    source = Holding(kind="source", place="t.jsonl", n_rows=2, fate="yours", note="lines 1, 2: remove them there")
    print_holdings(Holdings(owner="o1", n_tickets=2, held=(source,), versions=()))
    printed = capsys.readouterr().out
    assert "lines 1, 2: remove them there" in printed
    assert "2 tickets" in printed
