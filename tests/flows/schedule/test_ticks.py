"""Late or overlapping ticks are skipped as declared; `tests/system/flows/schedule` has ticks that run."""

from typing import Any

import pytest

from flows.context.request import RunRequest
from flows.ledger.ledger import Ledger
from flows.schedule.ticks import skip_without_lock
from flows.workspace.lock import pipeline_lock
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError
from schemas.load import load_file
from tests.support.workplace import Workplace


def skip_reason(workplace: Workplace, tick: RunRequest, now: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setenv("TUNEGATE_NOW", now)
    monkeypatch.setenv("TUNEGATE_HOME", str(workplace.home))
    config = workplace.folder / "pipelines.yaml"
    outcome = skip_without_lock(load_file(config).get("small"), load_settings(config), tick)
    return None if outcome is None else outcome.reason


def test_missed_ticks_are_caught_up_as_declared(bare_workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    def declare(**schedule: Any) -> None:
        bare_workplace.declare(
            lambda document: document["pipelines"]["small"].update(
                schedule={"cron": "0 5 * * *", "timezone": "Europe/Berlin", **schedule}
            )
        )

    missed = [
        RunRequest(tick="schedule", due=datetime.fromisoformat(f"2026-07-{day:02}T03:00:00+00:00"))
        for day in range(1, 6)
    ]
    now = "2026-07-05T09:00:00+00:00"

    def run_of(**schedule: Any) -> list[bool]:
        declare(**schedule)
        return [skip_reason(bare_workplace, tick, now, monkeypatch) is None for tick in missed]

    assert run_of() == [False, False, False, False, True]
    assert run_of(catch_up="all", overlap="queue") == [True] * 5
    assert run_of(catch_up="none") == [False] * 5
    assert run_of(catch_up="none", late_minutes=600) == [False] * 4 + [True]
    rows = Ledger(bare_workplace.home).ticks("small")
    assert len(rows) == 4 + 5 + 4
    assert rows[0].decision.reason.startswith("the tick of 2026-07-01T03:00:00+00:00 was missed")
    assert rows[4].decision.expected == "2026-07-06T03:00:00+00:00"
    assert {row.status for row in Ledger(bare_workplace.home).runs(limit=50)} == {"SKIPPED"}
    with pytest.raises(ConfigError, match="TG0111"):
        declare_and_load(bare_workplace, declare)


def declare_and_load(workplace: Workplace, declare: Any) -> None:
    declare(catch_up="all")  # together with overlap: skip
    load_file(workplace.folder / "pipelines.yaml")


def test_a_tick_during_a_run_is_skipped_or_waits_as_declared(
    bare_workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    def declare(overlap: str) -> None:
        bare_workplace.declare(
            lambda document: document["pipelines"]["small"].update(schedule={"cron": "0 5 * * 1", "overlap": overlap})
        )

    tick = RunRequest(tick="schedule", due=datetime.fromisoformat("2026-07-06T05:00:00+00:00"))
    now = "2026-07-06T05:00:10+00:00"
    declare("skip")
    with pipeline_lock(bare_workplace.home, "small", wait_s=0, run_id="r1"):
        reason = skip_reason(bare_workplace, tick, now, monkeypatch)
        assert reason is not None
        assert reason.startswith("run r1 is in progress since")
    ledger = Ledger(bare_workplace.home)
    monkeypatch.setenv("TUNEGATE_NOW", "2026-07-06T04:00:00+00:00")
    ledger.start_run("r1", pipeline="small", model_name="small", config_json="{}")
    monkeypatch.setenv("TUNEGATE_NOW", "2026-07-06T06:00:00+00:00")
    ledger.finish_run("r1", status="DONE", verdict="HOLD", exit_code=8)
    # Prefect starts a pipeline's ticks one by one; this one was due while r1 was in progress.
    later = skip_reason(bare_workplace, tick, "2026-07-06T06:00:05+00:00", monkeypatch)
    assert later == "run r1 was in progress until 2026-07-06T06:00:00+00:00 (schedule.overlap: skip)"
    assert ledger.ticks("small")[-1].decision.expected == "2026-07-13T05:00:00+00:00"
    declare("queue")
    with pipeline_lock(bare_workplace.home, "small", wait_s=0, run_id="r2"):
        assert skip_reason(bare_workplace, tick, now, monkeypatch) is None
