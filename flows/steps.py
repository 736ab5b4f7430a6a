"""The one place where a step becomes a Prefect task.

Prefect gives it a name in the UI, retries by error class, states and logs. Prefect's own cache and result store are
off: the content-addressed store alone decides what is reused, so that no cached result can point at deleted data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.engine.disk import named_disk_errors
from flows.session import STAGES
from schemas.errors import ServiceError, TunegateError

if TYPE_CHECKING:
    from flows.engine.step import Step
    from flows.session import Session
    from schemas.artifacts import Artifact

RETRIES = 3
FIRST_DELAY_S = 2


def run_stage(session: Session, stage: str) -> None:
    """Run the stage's steps in order; when a sub-flow was started alone, first everything before it."""
    for earlier in STAGES[: STAGES.index(stage) + 1]:
        for step in session.stages[earlier]:
            if step.name not in session.done and not session.leaves_out(step):
                run_as_task(session, step) if session.shown_in_prefect else run_plainly(session, step)


def run_plainly(
    session: Session, step: Step, *, retries: int = RETRIES, delay_s: float = FIRST_DELAY_S
) -> Artifact | None:
    """Run the step as a plain call; transient errors are tried again as in a task run."""
    try:
        with _worded(step.name), named_disk_errors(session.settings.home):
            return session.run(step)
    except TunegateError as error:
        if not error.transient or not retries:
            raise
    time.sleep(delay_s)
    return run_plainly(session, step, retries=retries - 1, delay_s=2 * delay_s)


def run_as_task(session: Session, step: Step) -> Artifact | None:
    """Run the step as a Prefect task run; transient errors are tried again with growing, jittered delays."""

    # Prefect tasks made by one factory share a cache key by source: harmless here, since nothing is cached.
    @task(
        name=step.name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(FIRST_DELAY_S),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
    )
    def run() -> Artifact | None:
        with _worded(step.name), named_disk_errors(session.settings.home):
            return session.run(step)

    return run()


@contextmanager
def _worded(step: str) -> Iterator[None]:
    """Let no unexpected error's words through: they may quote a ticket, and Prefect keeps what it is told."""
    try:
        yield
    except TunegateError as error:
        if "--debug" not in sys.argv:  # what led to it may quote a ticket as well, and Prefect logs whole tracebacks
            raise error from None
        raise
    except (ConnectionError, TimeoutError) as error:
        raise ServiceError(
            f"{type(error).__name__} in step {step}", code="TG0704", where=step, hint="tunegate doctor"
        ) from None
    except Exception as error:
        raise TunegateError(
            f"internal error: {type(error).__name__} in step {step}",
            code="TG0001",
            where=step,
            hint="run it again as `tunegate --debug run ...` for the traceback",
        ) from None


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """True for errors that may pass (a service that does not answer); config, data and gate errors never do."""
    try:
        state.result()
    except TunegateError as error:
        return error.transient
    except BaseException:  # whatever else it was, trying again does not help
        return False
    return False
