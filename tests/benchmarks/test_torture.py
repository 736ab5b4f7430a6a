"""The fault campaign covers every failpoint and counts what a try lost."""

from benchmarks.torture.__main__ import FAULTS
from benchmarks.torture.kills import ELSEWHERE, REACHED
from benchmarks.torture.trial import Tried, as_table, totals
from tasks.storage.failpoint import PLACES


def test_every_failpoint_is_in_the_campaign_or_listed_with_its_test() -> None:
    assert set(REACHED) | set(ELSEWHERE) == set(PLACES)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_try_that_loses_something_is_counted_and_a_skipped_fault_gives_its_reason() -> None:
    bad = Tried(FAULTS[0].name, 0, "killed", ("train is not in the ledger",), (), "", "", 1.0)
    good = Tried(FAULTS[0].name, 1, "killed", (), (), "", "", 1.0)
    none = Tried(FAULTS[0].name, 2, "operation 900 of 120", (), (), "", "", 1.0, fired=False)
    figures = {"tries": 3, "lost": 1, "wrong": 0, "stuck": 0, "recovered": 1, "missed": 0, "no_fault": 1}
    assert totals([bad, good, none]) == figures
    lines = as_table(FAULTS[:2], [bad, good, none], {FAULTS[1].name: "needs root"}).splitlines()
    assert lines[2].endswith("| 3 | 1 | 0 | 0 | 1 | 0 | 1 |")
    assert "skipped: needs root" in lines[3]
