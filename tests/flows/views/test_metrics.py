"""Metrics: what the ledger knows, in a form that Prometheus' own parser reads."""

import sqlite3
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from flows.champion.mlflow_sync import synchronise
from flows.cli.ops import metrics
from flows.ledger.promotions import Waits
from flows.ledger.rows import RunVerdict
from flows.views.metrics import exposition
from tasks.curate.warehouse_query import funnel_of
from tasks.release.endpoint import Access, Limits, Tenant, build_endpoint
from tasks.release.live import LiveModels
from tests.support.place import Place
from tests.support.workplace import Workplace

Metrics = dict[str, dict[tuple[str, ...], float]]


def read(text: bytes) -> Metrics:
    """Sample -> labels' values, by the labels' names -> value."""
    found: Metrics = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_runs_champions_and_what_waits_are_exported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_NOW", "2026-06-01T05:00:00Z")
    assert read(exposition(place.settings)) == {"tunegate_history_whole": {(): 1.0}, "tunegate_mlflow_pending": {(): 0}}
    for number, verdict in ((1, "PROMOTE"), (2, "BLOCK"), (3, "BLOCK")):
        if verdict == "PROMOTE":
            place.promote(number, after=None)
        else:
            place.record(number, "BLOCK")
        place.ledger.finish_run(f"run-{number}", status="DONE", verdict=verdict, exit_code=0)  # type: ignore[arg-type]
    place.record(4, "PROMOTE")
    place.ledger.promote(
        "replies", expected="1", version="4", verdict=RunVerdict("run-4", "better"), waits=Waits(approval=True)
    )
    monkeypatch.setenv("TUNEGATE_NOW", "2026-06-02T06:00:00Z")
    with place.ledger.pipeline_lock("small", wait_s=0, run_id="run-4"):
        series = read(exposition(place.settings))
    assert series["tunegate_runs"] == {
        ("small", "DONE", "PROMOTE"): 1.0, ("small", "DONE", "BLOCK"): 2.0, ("small", "RUNNING", ""): 1.0,
    }  # fmt: skip
    assert series["tunegate_champion_version"] == {("replies",): 1.0}
    assert series["tunegate_champion_age_seconds"] == {("replies",): 25 * 3600.0}
    assert series["tunegate_last_verdict_seconds"] == {("small",): 25 * 3600.0}
    assert series["tunegate_last_run_seconds"] == {("small",): 0.0}
    assert series["tunegate_approvals_waiting"] == {("replies",): 1.0}
    assert series["tunegate_pipeline_held"] == {("small",): 1.0}
    assert series["tunegate_mlflow_pending"] == {(): 6.0}
    assert synchronise(place.ledger, place.settings) is None
    assert read(exposition(place.settings))["tunegate_mlflow_pending"] == {(): 0.0}


def test_an_altered_history_is_a_metric_that_can_alarm(place: Place) -> None:
    place.promote(1, after=None)
    with closing(sqlite3.connect(place.ledger.path)) as db, db:
        db.execute("DELETE FROM champions")
    assert read(exposition(place.settings))["tunegate_history_whole"] == {(): 0.0}


def test_rows_by_fate_are_those_of_the_funnel_and_hold_no_text(
    empty_workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert empty_workplace.run("data", "curate", "small").returncode == 0
    monkeypatch.setenv("TUNEGATE_HOME", str(empty_workplace.home))
    assert metrics(config=empty_workplace.folder / "pipelines.yaml") == 0
    text = capsys.readouterr().out
    series = read(text.encode())
    funnel = funnel_of(empty_workplace.home / "warehouse" / "small" / "warehouse.duckdb")
    assert {step["step"] for step in funnel} == {step for _, _, step in series["tunegate_rows"]}
    for step in funnel:
        fates = {fate: series["tunegate_rows"][fate, "small", step["step"]] for fate in ("kept", "merged", "dropped")}
        assert fates == {"kept": step["n_out"], "merged": step["n_merged"], "dropped": step["n_dropped"]}
    assert series["tunegate_step_seconds"]["small", "extract"] > 0
    assert "T-0" not in text


def test_the_endpoint_counts_requests_by_route_and_asks_for_its_token() -> None:
    app = build_endpoint(
        [Tenant(LiveModels(dict), lambda turns: turns, "t" * 16)], limits=Limits(max_tokens=4), access=Access(),
        extra_metrics=lambda: b"# TYPE other gauge\nother 3\n",
    )  # fmt: skip
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
        for path in ("/.env", "/wp-login.php"):
            assert client.get(path).status_code == 404
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {'t' * 16}"})
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    series = read(answer.content)
    assert series["tunegate_requests_total"] == {
        ("/metrics", "401"): 1.0, ("/health", "200"): 1.0, ("other", "404"): 2.0,
    }  # fmt: skip
    assert series["tunegate_request_seconds_count"][("other",)] == 2.0
    assert series["other"] == {(): 3.0}
