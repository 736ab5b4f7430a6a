"""Decisions of a person about champions: one transaction each, recorded."""

import json
import time

import pytest

from tests.flows.ledger.test_promotions import actions, record, submit

PLACES = ("ledger.promote.opened", "ledger.promote.written", "ledger.promote.committed")


@pytest.mark.parametrize("place", PLACES)
def test_a_decision_killed_anywhere_happens_completely_or_not(start, ledger, record, submit, place):
    submit(1, None)
    submit(2, "1", approval=True)
    record(3, "BLOCK")
    steps = [("approve", "run-2", "2"), ("force", "3", "3"), ("rollback", "r", "2")]
    before = "1"
    for command, argument, after in steps:
        killed = start(ledger, command, argument, failpoint=place)
        killed.communicate()
        assert killed.returncode == -9
        committed = place == "ledger.promote.committed"
        assert ledger.champion("replies").version == (after if committed else before)
        if not (command == "rollback" and committed):  # repeating it would roll back again
            again = start(ledger, command, argument)
            assert json.loads(again.communicate()[0]) == {"version": after}
        before = after
    assert actions(ledger) == [("promote", "1"), ("wait", "2"), ("approve", "2"), ("force", "3"), ("rollback", "2")]


def test_of_eight_simultaneous_decisions_one_moves_the_champion(start, ledger, record, submit):
    submit(1, None)
    submit(2, "1", approval=True)
    submit(3, "1", approval=True)
    for number in (4, 5):
        record(number, "BLOCK")
    start_at = time.time() + 4
    decisions = [("approve", "run-2"), ("approve", "run-3"), ("force", "4"), ("force", "5")] * 2
    processes = [start(ledger, *one, "1", start_at) for one in decisions]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    champion = ledger.champion("replies").version
    moves = [event for event in ledger.history() if event.action in ("approve", "force")]
    assert [event.to_version for event in moves] == [champion]
    assert [one["version"] for one in answers if "version" in one] == [champion] * 2  # a repeated decision counts once
    assert {one["code"] for one in answers if "code" in one} == {"TG0620"}
