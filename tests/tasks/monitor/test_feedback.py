"""Feedback is ingested once and redacted; bad lines are counted by reason; an earlier state never changes."""

import json
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, LockedError
from schemas.feedback import Acceptance, FeedbackSpec, LiveQuality
from tasks.assess.gate import live_findings
from tasks.monitor.feedback import (
    FeedbackRules,
    IngestedFeedback,
    acceptance_of,
    feedback_state,
    ingest_feedback,
    latest_decisions,
)
from tasks.monitor.learn import learn_from_feedback
from tests.support.plant import raise_on
from tests.tasks.curate.conftest import MakeTickets, make_tickets
from tests.tasks.monitor.conftest import ticket

__all__ = ["make_tickets"]
VERSIONS = frozenset({"1", "2"})


def line(number: int, outcome: str = "accepted", **more: Any) -> bytes:
    row = {"ticket_id": f"T-{number:03}", "version": "1", "outcome": outcome, "at": "2026-07-01T10:00:00Z", **more}
    return json.dumps(row).encode() + b"\n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "feedback.duckdb"


def ingest(database: Path, *lines: bytes, redact: tuple[RedactStep, ...] = ()) -> IngestedFeedback:
    return ingest_feedback(lines, FeedbackRules(VERSIONS, redact), source="file", database=database)


def state(database: Path) -> int:
    found = feedback_state(database)
    return 0 if found is None else found.last


def test_ingesting_a_file_twice_adds_nothing(database: Path) -> None:
    assert feedback_state(database) is None
    lines = [line(1), line(2, "rejected"), line(3, "edited", reply="Better."), line(1)]
    assert ingest(database, *lines) == IngestedFeedback(4, 3, 1, ())
    before = feedback_state(database)
    assert ingest(database, *lines) == IngestedFeedback(4, 0, 4, ())
    assert feedback_state(database) == before
    [rate] = acceptance_of(database, FeedbackSpec(), upto=state(database))
    assert (rate.version, rate.n, rate.n_accepted) == ("1", 3, 2)
    assert 0 < rate.lower < 2 / 3 < rate.upper < 1
    [strict] = acceptance_of(database, FeedbackSpec(counts=("accepted",)), upto=state(database))
    assert strict.n_accepted == 1


def test_the_latest_decision_on_a_suggestion_counts_and_earlier_states_do_not_change(database: Path) -> None:
    ingest(database, line(1), line(2, at="2026-07-01T12:00:00+02:00"))
    seen = state(database)
    ingest(database, line(1, "rejected", at="2026-07-02T09:00:00Z"), line(2, "rejected", at="2026-06-30T09:00:00Z"))
    ingest(database, line(1, version="2"))
    rates = {each.version: (each.n, each.n_accepted) for each in acceptance_of(database, FeedbackSpec(), upto=99)}
    assert rates == {"1": (2, 1), "2": (1, 1)}
    assert [each.n_accepted for each in acceptance_of(database, FeedbackSpec(), upto=seen)] == [2]
    assert latest_decisions(database, upto=seen) == {"T-001": ("accepted", None), "T-002": ("accepted", None)}
    assert {name: outcome for name, (outcome, _) in latest_decisions(database, upto=99).items()} == {
        "T-001": "rejected",  # July 2nd decides; the decision of June 30th on T-002 arrives later but is older
        "T-002": "accepted",
    }


def test_texts_are_redacted_and_ids_become_the_pipelines_pseudonyms(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_PSEUDONYM_KEY", "a key that is long enough")
    step = RedactStep(uses="redact", pseudonymise=("ticket_id",))
    ingest(database, line(1, "edited", reply="Write to ann@example.org"), redact=(step,))
    [(ticket_id, (outcome, reply))] = latest_decisions(database, upto=9).items()
    assert ticket_id.startswith("p_")
    assert (outcome, reply) == ("edited", "Write to [EMAIL_1]")
    ingest(database, line(2, "edited", reply="Write to ann@example.org"))  # redacted even without a declared step
    assert latest_decisions(database, upto=9)["T-002"] == ("edited", "Write to [EMAIL_1]")
    assert b"ann@example.org" not in database.read_bytes()


def test_a_bad_line_is_refused_with_a_reason_and_its_text_is_not_kept(database: Path) -> None:
    bad = (
        b"secret words, no JSON\n",
        line(1, "shrugged"),
        line(1, version="7"),
        line(1, reply="secret words"),  # accepted, but with another text
        line(1, at="yesterday"),
        line(1, customer="secret words"),
    )
    taken = ingest(database, *bad, line(2), b"\n")
    assert (taken.n_lines, taken.n_new) == (7, 1)
    assert [number for number, _ in taken.refused] == [1, 2, 3, 4, 5, 6]
    reasons = " ".join(reason for _, reason in taken.refused)
    assert "version 7 is not registered" in reasons
    assert "`outcome`" in reasons
    assert "secret" not in reasons
    assert b"secret words" not in database.read_bytes()
    with pytest.raises(ConfigError, match=r"TG0164.*none of 1 lines can be used; line 1: not a JSON object"):
        ingest(database, b"{\n")


def test_edited_replies_are_learned_and_accepted_suggestions_may_be_dropped(
    database: Path, make_tickets: MakeTickets, tmp_path: Path
) -> None:
    tickets = make_tickets([ticket(number, reply=f"reply {number}") for number in (1, 2, 3, 4)])
    ingest(database, line(1), line(2, "edited", reply="Better."), line(3, "rejected"), line(9, "edited", reply="x"))

    def learned(spec: FeedbackSpec, *, upto: int = 9) -> tuple[list[str], dict[str, int], int]:
        import pyarrow.parquet as pq

        out = tmp_path / f"learned-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        made = learn_from_feedback(tickets=tickets, spec=spec, upto=upto, database=database, out=out)
        return pq.read_table(made.tickets).column("reply").to_pylist(), made.notes, made.rows.n_dropped

    assert learned(FeedbackSpec()) == (
        ["reply 1", "Better.", "reply 3", "reply 4"], {"edited": 1, "own_answers": 1}, 0,
    )  # fmt: skip
    assert learned(FeedbackSpec(own_answers="drop"))[::2] == (["Better.", "reply 3", "reply 4"], 1)
    assert learned(FeedbackSpec(learn=False))[0][1] == "reply 2"
    assert learned(FeedbackSpec(), upto=1)[0][1] == "reply 2"


def live(n_accepted: int, n: int, *, candidate: str | None, floor: float | None = 0.5) -> list[tuple[str, bool]]:
    from tasks.assess.compare import clopper_pearson_interval

    bounds = clopper_pearson_interval(n_accepted, n, confidence=0.95)
    rate = Acceptance(version="1", n=n, n_accepted=n_accepted, lower=bounds.lower, upper=bounds.upper)
    quality = LiveQuality(
        spec=FeedbackSpec(min_acceptance=floor, min_suggestions=20), versions=(rate,), candidate=candidate, champion="1"
    )
    return [(finding.verdict, finding.decides) for finding in live_findings(quality)]


def test_a_floor_blocks_the_version_itself_but_never_its_replacement() -> None:
    assert live(20, 100, candidate="1") == [("BLOCK", True)]
    assert live(45, 100, candidate="1") == [("PROMOTE", True)]  # below the floor, but possibly by chance
    assert live(0, 19, candidate="1") == [("HOLD", False)]
    assert live(20, 100, candidate="2") == [("HOLD", False)]
    assert live(20, 100, candidate=None) == [("HOLD", False)]
    assert live(20, 100, candidate="1", floor=None) == [("HOLD", False)]
    assert list(live_findings(None)) == []


def test_writers_and_readers_wait_for_an_endpoint_that_holds_the_database(database: Path) -> None:
    ingest(database, line(1))
    with duckdb.connect(str(database)) as endpoint:
        threading.Timer(0.3, endpoint.close).start()
        assert state(database) == 1
    with duckdb.connect(str(database)) as endpoint:
        threading.Timer(0.3, endpoint.close).start()
        rules = FeedbackRules(frozenset("123"))
        taken = ingest_feedback([line(2)], rules, source="a file", database=database, wait_s=30)
    assert taken.n_new == 1
    with duckdb.connect(str(database)), pytest.raises(LockedError, match="TG0520"):
        ingest(database, line(3))


def test_a_line_that_fails_redaction_is_refused_and_the_others_are_ingested(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.monitor import feedback

    raise_on(monkeypatch, feedback, "redact_row", lambda given: "Kaboom" in str(given), IndexError)
    bad = line(2, "edited", reply="Kaboom my secret text")
    done = ingest(database, line(1), bad, line(3))
    assert done == IngestedFeedback(3, 2, 0, ((2, "IndexError in step feedback."),))
