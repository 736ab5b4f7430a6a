"""Which exceptions a row can cause, as against the machine, the installation or the configuration.

`tasks/curate/row_faults.py` finds the row in its table.
"""

import traceback
from collections.abc import Callable, Collection, Iterator

from schemas.errors import TunegateError

CODE = "TG0218"


def is_row_fault(error: Exception, codes: Collection[str] = ()) -> bool:
    """True if a row can have caused the error, rather than the machine, the installation or the configuration.

    Args:
        codes: Error codes of ours that are about a row, such as a `python` step whose function raised.
    """
    if isinstance(error, TunegateError):
        return error.code in codes and not any(map(_is_machine_fault, _causes(error)))
    return not any(map(_is_machine_fault, _causes(error)))


def row_fault(error: Exception, step: str) -> tuple[str, str]:
    """Code and reason for the quarantine; never the message of a foreign exception, which may quote the row."""
    if isinstance(error, TunegateError):  # ours hold no text of a ticket
        return error.code, f"{error.where}: {error.message}" if error.where else error.message
    return CODE, f"{type(error).__name__} in step {step}."


def find_faulty(
    work: Callable[[int, int], object], start: int, stop: int, codes: Collection[str] = ()
) -> Iterator[tuple[int, Exception]]:
    """The rows of a range on which `work` raises when called for each alone, in order, with their exceptions.

    Costs about log2(n) calls for each of them, and one call for a range without any.

    Args:
        work: Called with the start and end of a range.
        codes: As for `is_row_fault`.

    Raises:
        Exception: What `work` raised, where no row can be the cause.
    """
    error = raised_by(work, start, stop, codes)
    if error is None or start == stop:
        return
    if stop - start == 1:
        yield start, error
        return
    middle = (start + stop) // 2
    yield from find_faulty(work, start, middle, codes)
    yield from find_faulty(work, middle, stop, codes)


def raised_by(work: Callable[[int, int], object], start: int, stop: int, codes: Collection[str]) -> Exception | None:
    """The exception that `work` raises on this range, if it is one that a row can cause.

    Raises:
        Exception: Any other that `work` raised.
    """
    try:
        work(start, stop)
    except Exception as error:
        if not is_row_fault(error, codes):
            raise
        traceback.clear_frames(error.__traceback__)  # the frames hold the rows
        return error
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_machine_fault(error: BaseException) -> bool:
    import duckdb
    import pyarrow as pa

    if isinstance(error, MemoryError | OSError | ImportError):
        return True
    if isinstance(error, duckdb.Error):
        # Conversion, overflow, invalid input and the like come from a value; these do not.
        machine = duckdb.OperationalError | duckdb.InternalError | duckdb.FatalException | duckdb.InterruptException
        return isinstance(error, machine)
    return isinstance(error, pa.ArrowCancelled) or type(error).__name__ == "OutOfMemoryError"  # torch's
