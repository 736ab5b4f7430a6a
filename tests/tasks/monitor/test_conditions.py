"""A tick's decision from its numbers, and the date of the next expected run."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.schedule import Arrivals, Decision, DriftSpec, RetrainSpec, Shift
from tasks.monitor.conditions import RETRY, Situation, before_curation, decide

NOW = datetime(2026, 7, 13, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
DRIFTED = Shift(kind="routing", distance=0.4, limit=0.15, p_chance=0.001, drifted=True)


def decided(spec: RetrainSpec, *, n_new: int = 0, n_edited: int = 0, last: datetime | None = NOW - WEEK,
            n_held_out: int = 100, n_fresh: int = 20, n_changed: int | None = None,
            **more: Any) -> Decision:  # fmt: skip
    arrivals = Arrivals(snapshot_id="s", n_curated=500, n_new=n_new, n_edited=n_edited, n_held_out=n_held_out,
                        n_fresh_held_out=n_fresh, n_changed=n_changed)  # fmt: skip
    return decide(spec, Situation(now=NOW, last=last, arrivals=arrivals, **more))


def test_enough_new_tickets_start_a_run_and_edits_count() -> None:
    spec = RetrainSpec(min_new=50)
    assert (decided(spec, n_new=50).run, decided(spec, n_new=49).run) == (True, False)
    assert decided(spec, n_new=30, n_edited=20).code == "enough"
    assert decided(spec, n_new=10).expected == "2026-08-10T05:00:00+00:00"  # 10 a week, 40 missing
    assert decided(spec, n_new=0).expected is None  # no arrival rate to estimate from
    nothing = decided(RetrainSpec(min_new=0))
    assert (nothing.run, nothing.code) == (False, "few")  # no new ticket, nothing to learn


def test_a_cooldown_is_checked_before_curation_unless_drift_may_end_it() -> None:
    spec = RetrainSpec(min_new=1, cooldown_days=10)
    early = before_curation(spec, now=NOW, last=NOW - WEEK)
    assert early is not None
    assert (early.code, early.expected) == ("cooldown", "2026-07-16T05:00:00+00:00")
    assert before_curation(spec, now=NOW, last=None) is None
    assert before_curation(spec, now=NOW + WEEK, last=NOW - WEEK) is None
    watched = spec.model_copy(update={"drift": DriftSpec(min_new=20)})
    assert before_curation(watched, now=NOW, last=NOW - WEEK) is None
    assert decided(watched, n_new=500).code == "cooldown"
    assert decided(watched, n_new=20, shifts=(DRIFTED,)).code == "drift"


def test_drift_only_accelerates() -> None:
    spec = RetrainSpec(min_new=100, drift=DriftSpec(min_new=20))
    assert decided(spec, n_new=30).run is False
    hastened = decided(spec, n_new=30, shifts=(DRIFTED,))
    assert (hastened.run, hastened.code, hastened.n_needed) == (True, "drift", 20)
    assert "routing 0.40" in hastened.reason
    assert decided(spec, n_new=19, shifts=(DRIFTED,)).run is False
    assert decided(spec, n_new=100, shifts=(DRIFTED,)).code == "enough"
    assert decided(RetrainSpec(min_new=10, drift=DriftSpec(min_new=20)), n_new=10, shifts=(DRIFTED,)).run is True
    short = decided(spec, n_new=30, shifts=(DRIFTED,), n_held_out=9, n_held_out_needed=10)
    assert short.code == "held_out"  # drift does not lower what the gate needs


def test_held_out_items_must_be_enough_for_the_gate_and_fresh() -> None:
    spec = RetrainSpec(min_held_out="planned", min_fresh_held_out=30)
    short = decided(spec, n_new=9, n_held_out=100, n_held_out_needed=140, n_fresh=20)
    assert (short.code, short.expected) == ("held_out", "2026-07-27T05:00:00+00:00")  # 20 a week, 40 missing
    never = decided(spec, n_new=9, n_held_out_needed=140, n_held_out_max=96)
    assert (never.code, never.expected) == ("held_out", None)
    assert "evaluate.max_items is 96" in never.reason
    stale = decided(spec, n_new=9, n_held_out_needed=100, n_fresh=20)
    assert (stale.code, stale.run) == ("fresh", False)
    assert decided(spec, n_new=9, n_held_out_needed=100, n_fresh=30).run is True
    first = decided(spec, n_new=9, n_held_out_needed=100, n_fresh=0, last=None)
    assert first.code == "first"  # no verdict has used any item


def test_after_a_long_wait_a_run_starts_with_few_tickets() -> None:
    spec = RetrainSpec(min_new=100, max_wait_days=10)
    waiting = decided(spec, n_new=5)
    assert (waiting.run, waiting.expected) == (False, "2026-07-16T05:00:00+00:00")
    assert decided(spec, n_new=5, last=NOW - 2 * WEEK).code == "waited"
    assert decided(spec, n_new=0, last=NOW - 2 * WEEK).run is False


def test_a_clock_set_back_gives_no_expected_date() -> None:
    assert decided(RetrainSpec(min_new=100), n_new=5, last=NOW + WEEK).expected is None


def test_after_a_hold_its_tickets_are_still_new_and_a_quarter_of_the_minimum_must_have_changed() -> None:
    """The week of the review: 786 good tickets wait, 14 come, and the file of the 800 bad ones is gone."""
    spec = RetrainSpec(min_new=200)
    left_out = decided(spec, n_new=800, n_changed=814)
    assert (left_out.run, left_out.code) == (True, "enough")
    assert left_out.reason == "800 new and 0 edited tickets that no promoted candidate knew, 200 are enough"
    assert decided(spec, n_new=1650, n_changed=50).run is True  # a good week, while the bad file stays
    few = decided(spec, n_new=1614, n_changed=14)
    assert (few.run, few.code) == (False, "tried")
    assert "14 are new, edited or gone since the last verdict, 50 are needed" in few.reason
    assert few.expected == "2026-07-31T05:00:00+00:00"  # 14 a week, 36 missing
    assert decided(spec, n_new=800, n_changed=0).code == "tried"  # other settings, the same tickets
    assert decided(spec, n_new=199, n_changed=199).code == "few"
    assert decided(RetrainSpec(), n_new=1, n_changed=1).run is True  # the default: any new ticket
    assert decided(RetrainSpec(min_new=200, max_wait_days=7), n_new=800, n_changed=1).run is True
    assert decided(RetrainSpec(min_new=200, max_wait_days=7), n_new=20, n_changed=0).run is False
    assert decided(RetrainSpec(min_new=200, cooldown_days=8), n_new=800, n_changed=814).code == "cooldown"


def test_drift_does_not_lower_what_must_have_changed_since_a_hold() -> None:
    spec = RetrainSpec(min_new=200, drift=DriftSpec(min_new=20))
    for shifts in ((), (DRIFTED,)):
        few = decided(spec, n_new=300, n_changed=5, shifts=shifts)
        assert (few.run, few.code) == (False, "tried")
        assert "50 are needed" in few.reason
    assert decided(spec, n_new=100, n_changed=50, shifts=(DRIFTED,)).code == "drift"


def test_one_ticket_is_and_more_are() -> None:
    assert decided(RetrainSpec(), n_new=3).reason.endswith(", 1 is enough")
    assert decided(RetrainSpec()).reason.endswith(", 1 is needed")
    again = decided(RetrainSpec(min_new=4), n_new=5, n_changed=0)
    assert again.reason.endswith("0 are new, edited or gone since the last verdict, 1 is needed")
    assert "1 is new, edited" in decided(RetrainSpec(min_new=8), n_new=9, n_changed=1).reason
    short = decided(RetrainSpec(min_held_out=2), n_held_out=1, n_held_out_needed=2)
    assert short.reason == "1 held-out item, and 2 are needed"
    unused = decided(RetrainSpec(min_fresh_held_out=1), n_fresh=0)
    assert unused.reason == "0 held-out items that no verdict has seen, 1 is needed"


def test_drift_ends_a_cooldown_once() -> None:
    spec = RetrainSpec(min_new=100, cooldown_days=10, drift=DriftSpec(min_new=20))
    assert decided(spec, n_new=30, shifts=(DRIFTED,)).code == "drift"
    assert decided(spec, n_new=60, n_changed=30, shifts=(DRIFTED,)).code == "cooldown"


def test_hourly_ticks_after_a_hold_do_not_train_each_hour() -> None:
    """Two tickets an hour for two weeks, and no candidate is ever good enough."""
    spec, n_known, n_tickets, runs = RetrainSpec(min_new=48), 0, 0, []
    last: datetime | None = NOW
    for hour in range(1, 14 * 24 + 1):
        n_tickets += 2
        now = NOW + timedelta(hours=hour)
        tried = bool(runs)
        arrivals = Arrivals(snapshot_id="s", n_curated=n_tickets, n_new=n_tickets, n_edited=0, n_held_out=50,
                            n_fresh_held_out=5, n_changed=n_tickets - n_known if tried else None)  # fmt: skip
        if decide(spec, Situation(now=now, last=last, arrivals=arrivals, used=NOW if tried else None)).run:
            runs.append(hour)
            n_known, last = n_tickets, now
    assert runs[:4] == [24, 30, 36, 42]  # 48 tickets, then a quarter of them each
    assert len(runs) == 1 + (14 * 24 - 24) // 6
    assert RETRY == 0.25
