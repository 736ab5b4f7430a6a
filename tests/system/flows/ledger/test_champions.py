"""The champion: one transaction moves it, one of many processes wins, and its history reveals tampering."""

import json
import time

import pytest

from tasks.storage.failpoint import PLACES
from tests.flows.ledger.test_champions import promote

LEDGER_PLACES = [place for place in PLACES if place.startswith(("ledger.candidate", "ledger.promote"))]


@pytest.mark.parametrize("place", LEDGER_PLACES)
def test_a_promotion_killed_anywhere_happens_completely_or_not_and_a_rerun_completes_it(start, ledger, place, promote):
    promote(1, None)
    killed = start(ledger, "release", 2, "1", failpoint=place)
    killed.communicate()
    assert killed.returncode == -9
    committed = place == "ledger.promote.committed"
    assert ledger.champion("replies").version == ("2" if committed else "1")
    assert len(ledger.history()) == (2 if committed else 1)

    again = start(ledger, "release", 2, "1")
    assert json.loads(again.communicate()[0]) == {"version": "2"}
    assert [(event.from_version, event.to_version) for event in ledger.history()] == [(None, "1"), ("1", "2")]
    assert len(ledger.candidates("replies")) == 2
    answers = [(one.kind, one.payload["version"]) for one in ledger.pending_projections()]
    assert answers == [("candidate", "1"), ("champion", "1"), ("candidate", "2"), ("champion", "2")]


def test_of_eight_processes_that_promote_at_once_exactly_one_succeeds(start, ledger, promote):
    promote(100, None)
    start_at = time.time() + 6
    processes = [start(ledger, "release", number, "1", start_at) for number in range(8)]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    promoted = [one["version"] for one in answers if "version" in one]
    assert len(promoted) == 1
    assert ledger.champion("replies").version == promoted[0]
    refused = [one for one in answers if one.get("code") == "TG0620"]
    assert len(refused) == 7
    assert {one["message"] for one in refused} == {f"champion moved from v1 to v{promoted[0]} since this evaluation"}
    assert len(ledger.history()) == 2
    assert sorted(row.ref.version for row in ledger.candidates("replies")) == list("123456789")


def test_of_four_first_runs_on_a_fresh_machine_exactly_one_makes_the_first_champion(start, ledger):
    start_at = time.time() + 3
    processes = [start(ledger, "release", number, "", start_at) for number in range(4)]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    assert sorted(one.get("code", "promoted") for one in answers) == ["TG0620", "TG0620", "TG0620", "promoted"]
    assert len(ledger.history()) == 1
    assert len(ledger.candidates("replies")) == 4
