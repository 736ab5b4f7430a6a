"""`checks`: what a pipeline demands of its tickets before it trains on them.

Each check is a sentence about one table: it passes or fails, and a check that cannot be computed fails.
`tasks/curate/data_checks.py` computes them; `schemas/checks.py` has the checks of the gate.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from schemas.counted import counted
from schemas.kinds import Kinds
from schemas.names import closest
from schemas.spec import Conflict, Frozen, Spec
from schemas.tables import TICKET_COLUMNS, TICKETS

Share = Annotated[float, Field(ge=0, le=1)]
CheckName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
CheckTable = Literal["raw_tickets", "curated"]
Severity = Literal["warn", "fail"]


def _ticket_column(name: str) -> str:
    if name not in TICKET_COLUMNS:
        raise ValueError(f"{name!r} is not a ticket column; {closest(name, TICKET_COLUMNS)}")
    return name


def _numeric_column(name: str) -> str:
    known = [column.name for column in TICKETS if column.sql_type in ("BIGINT", "DOUBLE")]
    if name not in known:
        raise ValueError(f"{name!r} is not a column of numbers; {closest(name, known)}")
    return name


CheckedColumn = Annotated[str, AfterValidator(_ticket_column)]
NumericColumn = Annotated[str, AfterValidator(_numeric_column)]


class DataCheckSpec(Spec):
    """What all checks have in common."""

    uses: str
    name: CheckName | None = None
    """Name of the check in results; derived from kind and column if not given."""
    table: CheckTable = "raw_tickets"
    """`raw_tickets`: the rows as read. `curated`: train, validation and test after every step."""
    severity: Severity = "fail"
    """`fail` ends the run after curation, before anything is trained; `warn` is a warning."""

    @property
    def label(self) -> str:
        """Name of the check."""
        return self.name or "_".join(filter(None, (self.uses, self.subject)))

    @property
    def subject(self) -> str:
        """What the check is about, as part of its default name."""
        return str(getattr(self, "column", ""))


class FreshnessCheck(DataCheckSpec):
    """The newest ticket is recent."""

    uses: Literal["freshness"]
    column: Literal["created_at", "updated_at"] = "created_at"
    """Time that is compared with the clock."""
    max_age_hours: float = Field(gt=0)
    """Greatest age of the newest ticket, hours."""


class VolumeCheck(DataCheckSpec):
    """The table has about as many rows as expected, or as in the last complete run."""

    uses: Literal["volume"]
    min_rows: int | None = Field(default=None, ge=1)
    """Least number of rows."""
    max_rows: int | None = Field(default=None, ge=1)
    """Greatest number of rows."""
    max_drop: Share | None = None
    """Greatest loss since the last complete run, as a share of its rows; the first run has none to compare with."""
    max_rise: float | None = Field(default=None, ge=0)
    """Greatest gain since the last complete run, as a share of its rows; 1 allows twice as many."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if (self.min_rows, self.max_rows, self.max_drop, self.max_rise) == (None,) * 4:
            raise ValueError("a volume check needs min_rows, max_rows, max_drop or max_rise")
        return self


class NullsCheck(DataCheckSpec):
    """Few values of a column are missing."""

    uses: Literal["nulls"]
    column: CheckedColumn
    """Ticket column."""
    max_share: Share = 0.0
    """Greatest share of rows without a value."""


class AcceptedValuesCheck(DataCheckSpec):
    """The values of a column are among those listed; missing values are not judged."""

    uses: Literal["accepted_values"]
    column: CheckedColumn
    """Ticket column."""
    values: tuple[str, ...] = Field(min_length=1)
    """Allowed values, as text."""
    max_share: Share = 0.0
    """Greatest share of rows with another value."""


class RangeCheck(DataCheckSpec):
    """The numbers of a column are within bounds; missing values are not judged, NaN is out of bounds."""

    uses: Literal["range"]
    column: NumericColumn
    """Ticket column of numbers."""
    min: float | None = None
    """Least value."""
    max: float | None = None
    """Greatest value."""
    max_share: Share = 0.0
    """Greatest share of rows out of bounds."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a range check needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class UniqueCheck(DataCheckSpec):
    """No two rows have the same values in these columns; rows that lack one of them are not judged."""

    uses: Literal["unique"]
    columns: tuple[CheckedColumn, ...] = Field(min_length=1)
    """Ticket columns, together."""
    max_share: Share = 0.0
    """Greatest share of rows that repeat an earlier row."""

    @property
    def subject(self) -> str:
        return "_".join(self.columns)


class RelationCheck(DataCheckSpec):
    """Each value of a column occurs in a column of a file, say a list of products; missing values are not judged."""

    uses: Literal["relation"]
    column: CheckedColumn
    """Ticket column."""
    file: str = Field(pattern=r"\.(csv|parquet)$")
    """CSV or Parquet, relative to pipelines.yaml."""
    to: str = Field(min_length=1)
    """Column of the file."""
    max_share: Share = 0.0
    """Greatest share of rows with an unknown value."""


class SqlCheck(DataCheckSpec):
    """A SELECT of yours over `raw_tickets` and `curated` returns the rows at fault."""

    uses: Literal["sql"]
    name: CheckName
    """Name of the check in results."""
    file: str = Field(pattern=r"\.sql$")
    """Path of a `.sql` file with one SELECT, relative to pipelines.yaml."""
    max_rows: int = Field(default=0, ge=0)
    """Greatest number of rows that it may return."""


DATA_CHECKS: Kinds[DataCheckSpec] = Kinds(
    FreshnessCheck, VolumeCheck, NullsCheck, AcceptedValuesCheck, RangeCheck, UniqueCheck, RelationCheck, SqlCheck
)
DataCheck = Annotated[DataCheckSpec, DATA_CHECKS]
"""One entry of `checks`; `uses` names its kind."""


def repeated_checks(checks: tuple[DataCheckSpec, ...]) -> list[Conflict]:
    """Return a fault for each check that has the name of an earlier one."""
    labels = [check.label for check in checks]
    return [
        Conflict(f"two checks are named {label!r}", at=("checks", place), hint="give one of them another `name`")
        for place, label in enumerate(labels)
        if label in labels[:place]
    ]


CheckOutcome = Literal["failed", "warned", "passed", "to be judged by the clock"]
"""What a run says of a check, in the order in which it says it."""


class CheckResult(Frozen):
    """What came of one check."""

    name: str
    uses: str
    checked_table: str
    severity: Severity
    status: Literal["passed", "failed", "error", "timed"]
    """`error`: it could not be computed, which counts as failed. `timed`: the age of the newest ticket depends on the
    clock, so each run judges it again."""
    observed: float | None
    """Measured value: hours, rows, a share or a change."""
    n_rows: int
    """Rows of the table."""
    n_failing: int | None
    """Rows at fault; null where rows are not judged one by one."""
    message: str
    """Measured value and limit in a sentence, without a value of any ticket."""
    newest: str | None = None
    """Of a freshness check: time of the newest ticket, UTC, ISO 8601."""
    max_age_hours: float | None = None
    """Of a freshness check: its limit."""

    @property
    def outcome(self) -> CheckOutcome:
        """In words: a check with severity `warn` that did not pass has warned."""
        if self.status == "timed":
            return "to be judged by the clock"
        if self.status == "passed":
            return "passed"
        return "failed" if self.severity == "fail" else "warned"


def count_checks(results: Sequence[CheckResult]) -> str:
    """How many checks failed, warned and passed: `4 of 7 checks failed, 2 passed, 1 to be judged by the clock`."""
    found = Counter(each.outcome for each in results)
    counts = [(found[outcome], outcome) for outcome in get_args(CheckOutcome) if found[outcome]]
    first = [f"{n} of {counted(len(results), 'check')} {outcome}" for n, outcome in counts[:1]]
    return ", ".join([*first, *(f"{n} {outcome}" for n, outcome in counts[1:])]) or "no checks"
