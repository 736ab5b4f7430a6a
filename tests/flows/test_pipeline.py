"""What ends a run and what only ends the use of Prefect, and how Prefect sees a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect import flow
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.context.outcome import Ending, Outcome
from flows.context.request import RunRequest
from flows.graph.execute import RunEndedError
from flows.pipeline import assess, curate, finetune, release, run_pipeline, state_of
from flows.run.open_run import OpenRun, open_run
from flows.schedule.without_prefect import with_prefect
from flows.workspace.settings import load_settings
from schemas.errors import ServiceError
from schemas.load import load_file
from tests.support.commands import NOWHERE
from tests.support.workplace import Workplace


@pytest.fixture
def opened(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenRun]:
    """A run until curation, with all results in the store."""
    for name, value in workplace.environ.items():
        monkeypatch.setenv(name, value)
    config = workplace.folder / "pipelines.yaml"
    spec, settings = load_file(config).get("small"), load_settings(config)
    with open_run(spec, settings, RunRequest(until="curate"), root=config.parent) as found:
        yield found


def test_without_its_server_prefect_fails_and_the_run_reaches_its_end(opened: OpenRun) -> None:
    @flow
    def body() -> None:
        raise AssertionError("the flow must not run")

    with temporary_settings({PREFECT_API_URL: NOWHERE, PREFECT_CLIENT_MAX_RETRIES: 0}):
        outcome = with_prefect(opened, body)
    assert outcome.verdict == "DONE"
    assert all(end.reused for name, end in opened.run.outcomes.items() if opened.run.graph.nodes[name].kind == "step")


def raises(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_what_our_code_raises_ends_the_run(opened: OpenRun) -> None:
    with pytest.raises(ServiceError, match="TG0704"):
        with_prefect(opened, raises(ServiceError("it does not answer", code="TG0704")))
    with pytest.raises(RunEndedError), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        with_prefect(opened, raises(CancelledRun("the run was cancelled")))
    assert not opened.run.outcomes


@pytest.mark.parametrize("ours", [ServiceError("a node failed", code="TG0704"), KeyboardInterrupt(), SystemExit(143)])
def test_what_a_dead_server_hides_is_raised_and_nothing_is_done_again(opened: OpenRun, ours: BaseException) -> None:
    """Prefect cannot report the end of the flow, and raises an error about that."""

    def work() -> None:
        try:
            with opened.run.keeping_errors():
                raise ours
        finally:
            raise OSError("no server")

    def unkept() -> None:
        try:
            raise ours
        finally:
            raise OSError("no server")

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        if not isinstance(ours, Exception):  # a signal while Prefect's engine has the thread
            with pytest.raises(type(ours)):
                with_prefect(opened, unkept)
        with pytest.raises(type(ours)):
            with_prefect(opened, work)
    assert not opened.run.outcomes


def test_a_run_decides_once_whether_it_is_worth_it(opened: OpenRun) -> None:
    """A promotion, say, would change the answer."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        opened.context.decided["running"] = True
        opened.context.outcome = Outcome(
            run_id=opened.context.run_id, pipeline="small", verdict="PROMOTE", reason="met"
        )
        opened.context.decided["training"] = False
        assert with_prefect(opened, raises(OSError("no server"))).verdict == "PROMOTE"


def test_prefect_failing_after_the_last_stage_repeats_nothing(opened: OpenRun, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        opened.context.is_complete = True
        opened.context.outcome = Outcome(run_id=opened.context.run_id, pipeline="small", verdict="HOLD", reason="few")
        assert with_prefect(opened, raises(OSError("no server"))).verdict == "HOLD"
    assert not opened.run.outcomes


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("PROMOTE", "COMPLETED"),
        ("SKIP", "COMPLETED"),
        ("UNCOMPARED", "COMPLETED"),
        ("BLOCK", "FAILED"),
        ("ERROR", "FAILED"),
    ],
)
def test_prefect_shows_the_verdict_as_the_name_of_the_state(verdict: Ending, kind: str) -> None:
    state = state_of(Outcome(run_id="r", pipeline="small", verdict=verdict, reason="because"))
    assert (state.name, state.type.value, state.message) == (verdict, kind, "because")


def test_no_flow_is_retried_by_a_default_of_prefect() -> None:
    for each in (run_pipeline, curate, finetune, assess, release):
        assert (each.retries, each.persist_result) == (0, False)
