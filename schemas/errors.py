"""Errors for people: what happened, where, what is allowed, and the next command.

::

    TunegateError                exit code 1
    |-- ConfigError              2     pipelines.yaml, settings or arguments (TG01xx)
    |-- DataError                3     rows, files, chat format (TG02xx, TG03xx)
    |-- TrainingError            4     divergence, wrong adapter keys, a stopped worker (TG04xx)
    |   |-- OutOfMemoryError           the worker could not allocate what it needs (TG0405)
    |   `-- ProcessLostError           the worker was killed or crashed (TG0405, TG0407); worth a retry
    |-- StorageError             1     disk full, a damaged or missing artefact (TG05xx)
    |-- LockedError              6     another run holds the pipeline (TG05xx)
    |-- GateError                9     no verdict is possible: NaN, missing metric, leak (TG06xx)
    |-- ServiceError             7     MLflow, Prefect, an index or a hub does not answer (TG07xx)
    `-- SecurityError            2     a path, identifier or statement that is refused (TG08xx)

Secrets of the environment are masked in all of them. Only ``ServiceError`` and ``ProcessLostError`` are worth a retry
(``transient``): everything else fails the same way again. `flows/cli/app.py` prints errors and maps them to exit codes.
"""

from collections.abc import Sequence
from typing import ClassVar

from schemas.secrets import masked


class TunegateError(Exception):
    """An expected failure, shown without a traceback.

    Args:
        message: What happened, with the value got and what is allowed.
        code: Stable identifier such as ``TG0201``; documented in docs/reference/errors.md.
        where: Place of the fault: ``file:line``, ``pipeline.step`` or a path.
        hint: The next command or change to try.
    """

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(masked(message))
        self.message = masked(message)
        self.code = code
        self.where = None if where is None else masked(where)
        self.hint = None if hint is None else masked(hint)

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"\nhint: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The same error as an object for ``--json``."""
        return {"code": self.code, "message": self.message, "where": self.where, "hint": self.hint}


class SeveralErrors(TunegateError):  # noqa: N818  it has several
    """Several errors that were found together; its code, place and exit code are those of the first.

    Attributes:
        errors: At least one, in the order in which they are shown.
    """

    def __init__(self, errors: Sequence[TunegateError]) -> None:
        first, self.errors = errors[0], tuple(errors)
        super().__init__(first.message, code=first.code, where=first.where, hint=first.hint)
        self.exit_code = first.exit_code  # type: ignore[misc]  # of the class, in the others

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.errors))

    def to_json(self) -> dict[str, object]:
        """The first error, and all of them under `errors`."""
        found: list[object] = []
        for error in self.errors:
            one = error.to_json()
            inner = one.pop("errors", None)
            found += inner if isinstance(inner, list) else [one]
        return {**super().to_json(), "errors": found}


class ConfigError(TunegateError):
    """The configuration, a setting or an argument is wrong."""

    exit_code = 2


class DataError(TunegateError):
    """The data cannot be used as it is."""

    exit_code = 3


class TrainingError(TunegateError):
    """Training or generation failed."""

    exit_code = 4


class OutOfMemoryError(TrainingError):
    """The training process reported that it could not allocate memory. The same settings fail again."""


class ProcessLostError(TrainingError):
    """The training process was killed by a signal that we did not send: kill -9, the kernel for lack of memory, a crash
    in native code. Another attempt continues from the last checkpoint, so a retry may help."""

    transient = True


class StorageError(TunegateError):
    """The disk or an artefact on it failed."""


class LockedError(TunegateError):
    """Another process holds a lock that this one needs."""

    exit_code = 6


class GateError(TunegateError):
    """No verdict is possible; nothing is promoted."""

    exit_code = 9


class ServiceError(TunegateError):
    """An external service failed; a retry may help."""

    exit_code = 7
    transient = True


class SecurityError(TunegateError):
    """A path, an identifier or a statement was refused."""

    exit_code = 2
