"""`tunegate reproduce` repeats a run from its inputs and finds the first byte that differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.workplace import Workplace


def test_a_run_that_is_not_there_is_told(workplace: Workplace) -> None:
    done = workplace.run("reproduce", "2026")
    assert done.returncode == 2
    assert "TG0151" in done.stderr
