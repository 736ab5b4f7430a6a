"""A user's contract for a table of tickets: a pandera model in a Python file next to pipelines.yaml.

`schema.model: checks.py:Tickets` is the `DataFrameModel` or `DataFrameSchema` `Tickets` of `checks.py`; `user_code.py`
loads it. It judges the whole table at once and changes nothing: what it coerces or parses is judged in that form, and
not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from schemas.errors import ConfigError, DataError, TunegateError
from schemas.tables import TICKET_COLUMNS, TICKETS
from tasks.curate.redact import masked_form, masked_value
from tasks.curate.rows import TICKETS_ARROW, read_columns
from tasks.curate.user_code import entry_point, fingerprint_code, place_in, unusable
from tasks.tickets.row_fault import find_faulty

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pandera

BROKEN, RAISED = "TG0216", "TG0259"
"""A row breaks a contract; a check of one raised on it."""
MAX_NAME, MAX_VALUE = 120, 60
"""Characters of a check's name and of a value."""
_STRUCTURE = frozenset(
    {
        "INVALID_TYPE", "COLUMN_NOT_IN_SCHEMA", "COLUMN_NOT_ORDERED", "DUPLICATE_COLUMN_LABELS",
        "COLUMN_NOT_IN_DATAFRAME", "WRONG_FIELD_NAME", "WRONG_DATATYPE", "ADD_MISSING_COLUMN_NO_DEFAULT",
        "INVALID_COLUMN_NAME", "MISMATCH_INDEX",
    }
)  # fmt: skip
"""Reasons of pandera that are about the table's columns and not about a value."""
_ERRORS = frozenset({"CHECK_ERROR", "PARSER_ERROR", "SCHEMA_COMPONENT_PARSER", "DATAFRAME_PARSER"})
_PERSONAL = frozenset(column.name for column in TICKETS if column.pii != "none")


@dataclass(frozen=True)
class Contract:
    """A declared model."""

    declared: str
    """`checks.py:Tickets`."""
    where: str
    """The setting, for messages: `schema.model`."""
    root: Path
    """Folder of pipelines.yaml."""

    @property
    def entry_point(self) -> str:
        """As Python imports it: `checks:Tickets`."""
        file, _, name = self.declared.partition(":")
        return f"{file.removesuffix('.py').replace('/', '.')}:{name}"

    @property
    def place(self) -> str:
        return f"{self.where}: {self.declared}"

    def fingerprint(self) -> str:
        """Digest of its source; raises as `fingerprint_code`."""
        return fingerprint_code(self.entry_point, root=self.root, where=self.place)


class Violation(NamedTuple):
    """The first check that a row fails."""

    check: str
    column: str | None
    """None for a check of several columns."""
    value: str | None
    """Short, and without personal data: of texts and ids only the form, `xxx-999`."""


def find_violations(tickets: Path, contract: Contract) -> dict[int, Violation]:
    """Return number -> violation of each row that breaks the contract, in order. The whole table is in memory.

    Raises:
        ConfigError: TG0128, there is no such model, or it does not fit the columns of tickets.
        DataError: TG0222, a check of the table as a whole fails; TG0259, a check raises.
    """
    with _loaded(contract) as schema:
        return _violations(schema, frame_of(read_columns(tickets, TICKET_COLUMNS)), contract)


def raising_rows(tickets: Path, contract: Contract) -> Iterator[tuple[int, Exception]]:
    """Yield the rows on which a check raises when it sees them alone, by number and in order, with the error."""
    with _loaded(contract) as schema:
        frame = frame_of(read_columns(tickets, TICKET_COLUMNS))

        def work(start: int, stop: int) -> None:
            try:
                _violations(schema, frame.iloc[start:stop].reset_index(drop=True), contract)
            except DataError as error:
                if error.code == RAISED:  # a check of the whole table may well fail for a part of it
                    raise

        yield from find_faulty(work, 0, len(frame), (RAISED,))


def contract_faults(contract: Contract) -> Iterator[TunegateError]:
    """Yield what is wrong with the model itself, without any ticket."""
    try:
        with _loaded(contract) as schema:
            _check_fit(_errors(schema, frame_of(TICKETS_ARROW.empty_table()), contract), contract)
    except TunegateError as error:
        yield error


def frame_of(table: pa.Table) -> pd.DataFrame:
    """The tickets as pandas has them: `str`, `datetime64[us]`, `float64`, `Int64`, `boolean`, and `int` for lines.

    The types do not depend on which values are missing.
    """
    import pandas as pd

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    frame["source_line"] = frame["source_line"].astype("int64")
    return frame


def errors_of(schema: pandera.DataFrameSchema, frame: pd.DataFrame) -> list[Any]:
    """Return pandera's errors, one per check that fails, whatever its environment variables switch off."""
    import pandera.pandas as pandera
    from pandera.config import config_context

    with config_context(validation_enabled=True, validation_depth="SCHEMA_AND_DATA"):
        try:
            schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as errors:
            return list(errors.schema_errors)
    return []


@contextmanager
def _loaded(contract: Contract) -> Iterator[pandera.DataFrameSchema]:
    """The model, for the duration of the block.

    Raises:
        ConfigError: TG0128, there is none, or it would let rows go without a record.
    """
    import pandera.pandas as pandera

    with entry_point(contract.entry_point, root=contract.root, where=contract.place) as found:
        try:
            is_model = isinstance(found, type) and issubclass(found, pandera.DataFrameModel)
            schema = found.to_schema() if is_model else found
        except Exception as error:
            raise _unfit(f"the model cannot be built ({type(error).__name__})", contract) from None
        if not isinstance(schema, pandera.DataFrameSchema):
            raise unusable(
                f"{contract.declared} is no DataFrameModel or DataFrameSchema of pandera.pandas", contract.place
            )
        for part in (schema, *schema.columns.values()):
            if part.drop_invalid_rows:
                raise _unfit("`drop_invalid_rows` would lose rows: each is quarantined, with the check", contract)
            for check in part.checks:
                if check.raise_warning:
                    what = f"check {_name(check)} only warns, and here each violation is quarantined"
                    raise _unfit(f"{what}: use `checks` with `severity: warn`", contract)
                check.n_failure_cases = None  # else only so many rows would be found
        yield schema


def _errors(schema: pandera.DataFrameSchema, frame: pd.DataFrame, contract: Contract) -> list[Any]:
    try:
        return errors_of(schema, frame)
    except TunegateError:
        raise
    except Exception as error:  # of a parser; those of checks are among the errors
        raise _raised(
            f"the model raised {type(error).__name__} at {place_in(contract.root, error)}", contract
        ) from None


def _violations(schema: pandera.DataFrameSchema, frame: pd.DataFrame, contract: Contract) -> dict[int, Violation]:
    errors = _errors(schema, frame, contract)
    found: dict[int, Violation] = {}
    for error in errors:
        if error.reason_code.name == "DATATYPE_COERCION":
            for number, column, value in _rows(error, len(frame)) or ():
                found.setdefault(number, Violation(_name(error.check), column, shown_value(column, value)))
    if found:  # they keep the column from being coerced, so that no check of it can be computed
        left = [number for number in range(len(frame)) if number not in found]
        others = _violations(schema, frame.iloc[left].reset_index(drop=True), contract)
        return dict(sorted({**found, **{left[number]: broken for number, broken in others.items()}}.items()))
    _check_fit(errors, contract)
    for error in errors:
        if error.reason_code.name in _ERRORS:
            raise _check_raised(error, contract)
        rows = _rows(error, len(frame))
        if rows is None:
            raise DataError(
                f"check {_name(error.check)} fails for the table as a whole: no row is at fault", code="TG0222",
                where=contract.place, hint="return a boolean for each row to quarantine rows, or correct the source",
            )  # fmt: skip
        for number, column, value in rows:
            if number not in found:
                found[number] = Violation(_name(error.check), column, shown_value(column, value))
    return dict(sorted(found.items()))


def _rows(error: Any, n_rows: int) -> list[tuple[int, str | None, Any]] | None:
    """Row, column and value of each failure; None if it has no rows. A check of several columns names none."""
    import pandas as pd

    cases = error.failure_cases
    if not isinstance(cases, pd.DataFrame) or "index" not in cases or cases["index"].isna().any():
        return None
    column = error.schema.name if "column" not in cases and error.schema.name in TICKET_COLUMNS else None
    values = [None] * len(cases) if column is None else cases["failure_case"].tolist()
    numbers = cases["index"].tolist()
    if not all(isinstance(number, int) and 0 <= number < n_rows for number in numbers):  # a parser changed the index
        return None
    return [(number, column, value) for number, value in zip(numbers, values, strict=True)]


def _check_fit(errors: list[Any], contract: Contract) -> None:
    """Raise if the model declares other columns or types than tickets have.

    Raises:
        ConfigError: TG0128.
    """
    for error in errors:
        if error.reason_code.name not in _STRUCTURE:
            continue
        if error.reason_code.name == "WRONG_DATATYPE":
            has = frame_of(TICKETS_ARROW.empty_table())[error.schema.name].dtype
            raise _unfit(f"column {error.schema.name} is declared as {error.schema.dtype}, and is {has}", contract)
        cases = error.failure_cases
        named = ", ".join(map(str, cases["failure_case"])) if hasattr(cases, "columns") else str(cases)
        what = error.reason_code.name.lower().replace("_", " ")
        raise _unfit(f"{what}: {named}; tickets have {', '.join(TICKET_COLUMNS)}", contract)


def shown_value(column: str | None, value: Any) -> str | None:
    """The value as the quarantine may show it: short, and of a column with personal data only its form.

    >>> shown_value("rating", 9.0), shown_value("ticket_id", "NB-4711"), shown_value(None, "x")
    ('9.0', 'xx-9999', None)
    """
    import pandas as pd

    if column is None:
        return None
    if pd.isna(value):
        return "null"
    text = str(value)
    if isinstance(value, str):
        text = masked_form(text) if column in _PERSONAL else masked_value(text)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _name(check: Any) -> str:
    """The check as pandera names it: `less_than_or_equal_to(9)`, or the name of a user's method."""
    text = str(getattr(check, "error", None) or getattr(check, "name", None) or check)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


def _check_raised(error: Any, contract: Contract) -> DataError:
    # pandera keeps `ValueError("its message")`, and the message may quote a ticket
    kind = re.match(r"\w*", str(error.failure_cases))
    return _raised(f"check {_name(error.check)} raised {kind.group() if kind else 'an error'}", contract)


def _raised(message: str, contract: Contract) -> DataError:
    return DataError(
        message, code=RAISED, where=contract.place, hint="a check has to bear every value: missing, empty, long"
    )


def _unfit(message: str, contract: Contract) -> ConfigError:
    return ConfigError(
        message, code="TG0128", where=contract.place,
        hint="docs/how-to/curate-tickets.md shows a contract, and the types of the columns",
    )  # fmt: skip
