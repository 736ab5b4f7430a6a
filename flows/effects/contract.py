"""Act on the results of a pipeline's `checks`: show warnings, and end the run before anything is trained.

Freshness is judged again in every run, because a reused result ages.
"""

from collections.abc import Callable
from datetime import datetime

from flows.context.as_of import end_of
from flows.context.run_context import RunContext
from flows.workspace.clock import present
from schemas.artifacts import CheckResults
from schemas.data_checks import CheckResult, count_checks
from schemas.errors import DataError
from tasks.curate.data_checks import judge_now


def check_data(run: RunContext, *, results: CheckResults) -> None:
    """Note each check that did not pass.

    Raises:
        DataError: TG0222, a check with severity `fail` did not pass.
    """
    as_of = run.request.as_of
    now = present() if as_of is None else datetime.fromisoformat(end_of(as_of))
    judge_checks(run.spec.name, results, now=now, note=run.listeners.noted)


def judge_checks(
    pipeline: str, results: CheckResults, *, now: datetime, note: Callable[[str], None] = lambda _text: None
) -> None:
    """The same without a run.

    Args:
        note: Gets a sentence for each check with severity `warn` that did not pass.
    """
    judged = [judge_now(each, now) for each in results.results]
    for each in judged:
        if each.outcome == "warned":
            note(f"check {_sentence(each)}")
    failed = [each for each in judged if each.outcome not in ("passed", "warned")]
    if failed:
        raise DataError(
            f"{count_checks(judged)}: {'; '.join(map(_sentence, failed))}",
            code="TG0222",
            where=f"{pipeline}.checks",
            hint=f'tunegate data quarantine {pipeline} --sql "SELECT * FROM checks"',
        )


def _sentence(result: CheckResult) -> str:
    return f"{result.name}: {result.message}"
