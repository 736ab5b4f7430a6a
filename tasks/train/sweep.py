"""Which settings a sweep tries next, given the results of earlier trials. It trains nothing.

Each suggestion depends only on the sweep and the earlier values, so a killed sweep resumes with the trial it was in.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from schemas.choice import OptunaSweep, RangeSpec, Setting, number_kind

STARTUP_SHARE = 3
"""One in this many trials is random before the sampler models the results: at least 3 trials, at most 10."""


def suggest(sweep: OptunaSweep, values: Sequence[float | None], *, higher_is_better: bool) -> dict[str, Setting]:
    """Settings (path in `train` -> value) of the trial after those with these `values`.

    Args:
        values: Results of the trials so far, in order; None for one that failed. Earlier calls suggested these trials.

    >>> sweep = OptunaSweep(kind="optuna", over={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})
    >>> suggest(sweep, [1.5], higher_is_better=False) == suggest(sweep, [1.5], higher_is_better=False)
    True
    """
    text = sweep.model_dump_json(include={"kind", "n_trials", "seed", "over"})
    return {path: _setting(sweep, path, drawn) for path, drawn in _drawn(text, tuple(values), higher_is_better)}


@functools.lru_cache(maxsize=4096)
def _drawn(text: str, values: tuple[float | None, ...], higher_is_better: bool) -> tuple[tuple[str, Any], ...]:
    """Path -> number in a range, or index into a list of values."""
    import optuna

    # Optuna logs to stderr, which would only be noise here.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweep = OptunaSweep.model_validate_json(text)
    spaces = {path: _space(path, declared) for path, declared in sweep.over.items()}
    number = len(values) + 1
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=min(10, max(3, sweep.n_trials // STARTUP_SHARE)), seed=_seed(sweep.seed, number)
    )
    study = optuna.create_study(sampler=sampler, direction="maximize" if higher_is_better else "minimize")
    for count, value in enumerate(values):
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        drawn = dict(_drawn(text, values[:count], higher_is_better))
        study.add_trial(optuna.trial.create_trial(state=state, value=value, params=drawn, distributions=spaces))
    return tuple(study.ask(spaces).params.items())


def _space(path: str, declared: tuple[Setting, ...] | RangeSpec) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(declared, RangeSpec):
        return CategoricalDistribution(range(len(declared)))  # indices: a value may be a list, which Optuna rejects
    if number_kind(path) is int:
        return IntDistribution(int(declared.low), int(declared.high), log=declared.log)
    return FloatDistribution(declared.low, declared.high, log=declared.log)


def _setting(sweep: OptunaSweep, path: str, drawn: Any) -> Setting:
    declared = sweep.over[path]
    return drawn if isinstance(declared, RangeSpec) else declared[drawn]  # type: ignore[no-any-return]


def _seed(seed: int, number: int) -> int:
    """Seed of one trial's sampler: each trial draws its own numbers, whatever happened to the ones before."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")
