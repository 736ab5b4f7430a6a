"""The pages of `tunegate ui` over facts made by hand: who may see them, what they show, that text stays text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from schemas.errors import ConfigError
from schemas.pages import Judged, MoveLine, Overview, PipelineLine, PipelinePage, Rows, RunLine
from tasks.release.pages.draw import MAX_CELL, cell
from tasks.release.pages.server import HEADERS, build_pages, cookie_name
from tests.tasks.release.reports.test_page import HOSTILE, Tags

TOKEN = "a-token-of-a-test"
RUN = RunLine(
    run_id="run-1", pipeline="support", status="DONE", verdict="BLOCK", reason=HOSTILE,
    started_at="2026-01-02T03:04:05+00:00", version="4", prefect_url="http://127.0.0.1:4200/runs/flow-run/x",
)  # fmt: skip
LINE = PipelineLine(
    name="support", model_name=HOSTILE, champion="3", since="2026-01-01T00:00:00+00:00", running="run-2",
    waiting=("4", "5"), last_run=RUN, has_warehouse=True,
)  # fmt: skip
COMPARED: Mapping[str, Any] = {
    "runs": [{"run_id": f"run-{place}", "pipeline": "support", "status": "DONE", "verdict": "HOLD", "reason": HOSTILE,
              "started_at": "2026-01-02T03:04:05", "code": "c", "snapshot": None, "n_items": 9} for place in (1, 2)],
    "settings": [{"what": "train.seed", "first": "1", "second": HOSTILE}],
    "data": {"fates": [], "reasons": [], "tickets": [], "trained_here_held_out_there": None},
    "metrics": {"confidence": 0.95, "lines": [{"metric": "exact", "n_common": 9, "lower": None, "upper": 0.25}]},
    "arms": [], "cost": [], "digests": [{"step": "train", "first": "d" * 64, "second": None, "same": False}],
}  # fmt: skip


class Made:
    """Facts that a test can expect."""

    asked: str | None = None

    def overview(self) -> Overview:
        return Overview(
            home="/somewhere", pipelines=(LINE,), runs=(RUN, RUN), servers=(("MLflow", "http://127.0.0.1:5000"),),
            mlflow_pending=2,
        )  # fmt: skip

    def pipeline(self, name: str) -> PipelinePage:
        if name != "support":
            raise ConfigError(f"no pipeline {name!r}", code="TG0104", where="pipelines.yaml", hint=HOSTILE)
        move = MoveLine("2026-01-01T00:00:00", "promote", None, "3", "PROMOTE", HOSTILE, "because", "run-1")
        judged = (
            Judged("run-1", "PROMOTE", "exact", 0.5, 0.4),
            Judged("run-2", "BLOCK", "exact", 0.3, 0.5),
            Judged("run-3", "HOLD", "format", float("nan"), None),
        )
        return PipelinePage(line=LINE, moves=(move,), judged=judged, runs=(RUN, RUN))

    def report(self, run_id: str) -> str:
        if run_id == "broken":
            raise ValueError("a ticket's words")
        return f"<!doctype html><title>{len(run_id)}</title>"

    def compare(self, first: str, second: str) -> Mapping[str, Any]:
        if "" in (first, second):
            raise ConfigError("no run ''", code="TG0151", where="runs")
        return COMPARED

    def rows(self, name: str, sql: str) -> Rows:
        self.asked = sql
        told = "TG0146: a question is one SELECT" if "drop" in sql.lower() else ""
        return Rows(
            pipeline=name, reasons=({"step": "rules", "n_rows": 1234},), sql=sql,
            rows=({"ticket_id": HOSTILE, "score": 0.25, "text": None},), limit=200, told=told,
        )  # fmt: skip


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def client(made: Made) -> TestClient:
    """Who opened the address that was printed."""
    client = TestClient(build_pages(made, token=TOKEN), base_url="http://127.0.0.1")
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def test_nothing_is_shown_without_the_token(made: Made) -> None:
    stranger = TestClient(build_pages(made, token=TOKEN), base_url="http://127.0.0.1")
    for path in ("/", "/pipelines/support", "/pipelines/support/rows?sql=SELECT+1", "/runs/run-1", "/compare?a=1&b=2"):
        for answer in (
            stranger.get(path),
            stranger.get(path, headers={"Cookie": f"{cookie_name(TOKEN)}=wrong"}),
            stranger.get(path, params={"token": "wrong"}),
        ):
            assert answer.status_code == 403
            assert "support" not in answer.text
    assert made.asked is None


def test_the_token_becomes_a_cookie_and_leaves_the_address(made: Made) -> None:
    client = TestClient(build_pages(made, token=TOKEN), base_url="http://127.0.0.1", follow_redirects=False)
    first = client.get("/", params={"token": TOKEN})
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=strict" in first.headers["set-cookie"]


def test_another_host_name_is_refused_so_that_no_site_can_point_its_name_here(made: Made) -> None:
    client = TestClient(build_pages(made, token=TOKEN), base_url="http://evil.example")
    assert client.get("/", params={"token": TOKEN}).status_code == 400


@pytest.mark.parametrize(
    "path", ["/", "/pipelines/support", "/pipelines/support/rows", "/compare?a=run-1&b=run-2", "/pipelines/other", "/x"]
)
def test_every_page_is_whole_runs_no_script_and_shows_hostile_text_as_text(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    page = Tags(answer.text)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\u202e" not in page.text
    if path != "/x":
        assert "<script>alert(1)</script>" in page.text


def test_the_first_page_links_to_runs_pipelines_and_the_other_servers(client: TestClient) -> None:
    links = {attributes.get("href") for tag, attributes in Tags(client.get("/").text).tags if tag == "a"}
    assert links >= {
        "/", "/pipelines/support", "/runs/run-1", "http://127.0.0.1:5000", "http://127.0.0.1:4200/runs/flow-run/x",
    }  # fmt: skip


def test_a_pipelines_page_draws_each_metric_once_and_leaves_out_what_is_no_number(client: TestClient) -> None:
    text = client.get("/pipelines/support").text
    assert text.count("<circle") == 2
    assert "run-2: 0.300, BLOCK" in text
    assert "nan" not in text


def test_a_question_is_passed_on_and_its_refusal_told_beside_it(client: TestClient, made: Made) -> None:
    assert "1,234" in client.get("/pipelines/support/rows").text
    answer = client.get("/pipelines/support/rows", params={"sql": "  DROP TABLE curated "})
    assert made.asked == "DROP TABLE curated"
    assert answer.status_code == 200
    assert "TG0146" in answer.text
    assert "Rows of the warehouse" not in answer.text


def test_what_is_not_there_is_404_with_its_code_and_what_to_do(client: TestClient) -> None:
    answer = client.get("/pipelines/other")
    assert answer.status_code == 404
    assert "TG0104" in answer.text
    assert client.get("/compare").status_code == 404
    assert client.post("/").status_code == 405


def test_a_long_cell_is_cut_and_says_so() -> None:
    assert cell("x" * (MAX_CELL + 5)).endswith("... (5 characters more)")


def test_a_fault_of_ours_is_told_without_its_words(client: TestClient) -> None:
    answer = client.get("/runs/broken")
    assert answer.status_code == 500
    assert "ValueError" in answer.text
    assert "words" not in answer.text
