"""A run without Prefect: from its start if no server answers, or from what is in the store if Prefect fails later."""

from collections.abc import Callable

from prefect.exceptions import CancelledRun, TerminationSignal

from flows.context.outcome import Outcome
from flows.context.request import STAGES, Stage
from flows.graph.execute import RunEndedError, run_plainly
from flows.graph.prefect_runner import give_up
from flows.run.open_run import OpenRun
from flows.run.placement import first_missing
from flows.schedule.deployed_run import wait_for_resource
from flows.schedule.worth import close_outcome, is_worth_running, is_worth_training
from schemas.errors import ServiceError, TunegateError


def with_prefect(opened: OpenRun, work: Callable[[], object]) -> Outcome:
    """Run the work, which uses Prefect; if Prefect fails, continue without it. Return how the run ended.

    What our code raises is kept in the run, so anything else is Prefect's.

    Raises:
        TunegateError: a node failed.
        RunEndedError: the run was cancelled.
    """
    run, context = opened.run, opened.context
    try:
        work()
    except BaseException as error:
        raised = run.raised or _signal_below(error)
        if raised is not None:
            raise raised from None
        if isinstance(error, CancelledRun):
            raise RunEndedError(str(error)) from None
        if not isinstance(error, Exception) or isinstance(error, TunegateError | RunEndedError):
            raise
        give_up()
        if not context.is_complete:
            context.listeners.noted(f"Prefect no longer answers ({type(error).__name__}); the run continues without it")
            run_without_prefect(opened)
    return close_outcome(opened)


def _signal_below(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that Prefect could not report, and raised this error about instead."""
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit | TerminationSignal):
        error = error.__context__
    return error


def run_without_prefect(opened: OpenRun) -> Outcome:
    """Run the stages in order on threads of this process; what has ended already is not done again.

    Raises:
        TunegateError: a node failed; TG0701, a stage is placed on a work pool.
        RunEndedError: the run was cancelled.
    """
    if is_worth_running(opened):
        _run_stage(opened, "curate")
        if is_worth_training(opened):
            with wait_for_resource(opened):
                for stage in STAGES[1:]:
                    if opened.context.request.reaches(stage):
                        _run_stage(opened, stage)
    return close_outcome(opened)


def _run_stage(opened: OpenRun, stage: Stage) -> None:
    context, run = opened.context, opened.run
    pool = context.spec.place.pool_of(stage)
    if pool is not None and first_missing(opened, stage) is not None:
        raise ServiceError(
            f"stage {stage} is placed on pool {pool!r}, which needs Prefect's server", code="TG0701",
            where=f"{context.spec.name}.place.{stage}", hint="start the server, or run without `place`",
        )  # fmt: skip
    if any(node.name not in run.outcomes for node in run.nodes(stage)):
        context.listeners.entered(stage)
    run_plainly(run, stage=stage)
