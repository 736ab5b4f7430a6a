"""Checks of the data pass and fail by their limits, quote no value, and fail when they cannot be computed."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.artifacts import CheckResults
from schemas.data_checks import CheckResult, DataCheck, DataCheckSpec, count_checks
from schemas.errors import ConfigError, SecurityError
from tasks.curate.data_checks import check_faults, check_tickets, digests_of, judge_now, texts_of

SECRET = "xylophone"
ROWS = [
    {
        "ticket_id": f"t{number}",
        "customer_id": f"c{number % 2}",
        "body": f"{SECRET} {number}",
        "category": (None, "billing", "billing", "returns")[number % 4],
        "product": f"{SECRET}-{number % 2}",
        "rating": float(number),
        "created_at": datetime(2026, 6, 1, number),
    }
    for number in range(8)
]
Check = Callable[..., CheckResults]


def spec(**settings: object) -> DataCheckSpec:
    return TypeAdapter(DataCheck).validate_python(settings)


@pytest.fixture
def check(make_tickets: Any, make_splits: Any, new_folder: Any, tmp_path: Path) -> Check:
    """Compute checks on eight tickets, six of which are curated."""

    def compute(*specs: DataCheckSpec, rows: Any = ROWS, previous: CheckResults | None = None) -> CheckResults:
        return check_tickets(
            raw=make_tickets(rows),
            clean=make_splits(train=rows[:4], test=rows[4:6]),
            checks=specs,
            texts=texts_of(specs, tmp_path),
            root=tmp_path,
            previous=previous,
            out=new_folder(),
        )

    return compute


@pytest.fixture
def files(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(f"name\n{SECRET}-0\n\n")
    (tmp_path / "empty.csv").write_text("name\n")
    (tmp_path / "late.sql").write_text("select * from curated where split = 'test' and rating > 4 -- late")
    (tmp_path / "raw.sql").write_text("select ticket_id from raw_tickets anti join curated using (ticket_id)")
    (tmp_path / "cast.sql").write_text("select * from raw_tickets where body::int > 1")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("settings", "passes", "fails", "message"),
    [
        ({"uses": "nulls", "column": "category"}, {"max_share": 0.25}, {"max_share": 0.24}, "in 2 of 8 rows (25.00%)"),
        ({"uses": "accepted_values", "column": "category", "max_share": 0.1}, {"values": ["billing", "returns"]},
         {"values": ["billing"]}, "category has an unlisted value in 2 of 8 rows"),
        ({"uses": "range", "column": "rating"}, {"min": 0, "max": 7}, {"min": 1}, "rating is out of bounds in 1 of 8"),
        ({"uses": "range", "column": "rating", "max_share": 0.2}, {"max": 6}, {"max": 5}, "in 2 of 8 rows"),
        ({"uses": "unique"}, {"columns": ["ticket_id"]}, {"columns": ["customer_id"]}, "an earlier row in 6 of 8"),
        ({"uses": "unique", "columns": ["category", "customer_id"]}, {"max_share": 0.5}, {"max_share": 0.3},
         "category and customer_id repeat an earlier row in 3 of 8 rows"),
        ({"uses": "relation", "column": "product", "file": "products.csv", "to": "name"}, {"max_share": 0.5}, {},
         "product is not in products.csv in 4 of 8 rows"),
        ({"uses": "sql", "name": "late", "file": "late.sql"}, {"max_rows": 1}, {}, "late.sql returns 1 rows"),
        ({"uses": "sql", "name": "lost", "file": "raw.sql"}, {"max_rows": 2}, {"max_rows": 1}, "returns 2 rows"),
        ({"uses": "volume"}, {"min_rows": 8, "max_rows": 8}, {"min_rows": 9}, "8 rows; at least 9 are required"),
        ({"uses": "volume", "table": "curated"}, {"max_rows": 6}, {"max_rows": 5}, "6 rows; at most 5 are allowed"),
    ],
)  # fmt: skip
def test_a_check_passes_and_fails_by_its_limit(
    check: Check, settings: dict[str, Any], passes: dict[str, Any], fails: dict[str, Any], message: str
) -> None:
    good = spec(**settings, **passes)
    bad = spec(**settings, **fails, severity="warn").model_copy(update={"name": "second"})
    results = check(good, bad)
    first, second = results.results
    assert (first.status, second.status) == ("passed", "failed"), (first, second)
    assert message in second.message
    assert SECRET not in (results.root / "checks.json").read_text()
    assert count_checks(results.results) == "1 of 2 checks warned, 1 passed"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "settings",
    [
        {"uses": "relation", "column": "product", "file": "empty.csv", "to": "name"},
        {"uses": "relation", "column": "product", "file": "products.csv", "to": "title"},
        {"uses": "relation", "column": "product", "file": "gone.csv", "to": "name"},
        {"uses": "sql", "name": "cast", "file": "cast.sql"},
        {"uses": "freshness", "column": "updated_at", "max_age_hours": 5},
    ],
)
def test_a_check_that_cannot_be_computed_fails(check: Check, settings: dict[str, Any]) -> None:
    (result,) = check(spec(**settings)).results
    assert (result.status, result.outcome) == ("error", "failed")
    assert result.message.startswith("cannot be computed: ")
    assert SECRET not in result.message


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), duckdb.IOException("IO Error: Input/output error")]
)
def test_a_failing_disk_is_not_kept_as_a_fault_of_the_data(
    error: Exception, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("tasks.curate.data_checks.in_bounds", fail)
    with pytest.raises(type(error), match="Input/output"):
        check(spec(uses="sql", name="cast", file="cast.sql"))


def test_shares_of_an_empty_table_cannot_be_computed(check: Check) -> None:
    (result,) = check(spec(uses="nulls", column="category", max_share=1), rows=[]).results
    assert result.status == "error"


def test_volume_is_compared_with_the_last_complete_run(check: Check) -> None:
    limits = spec(uses="volume", max_drop=0.2, max_rise=0.5)
    before = check(limits)
    assert before.results[0].outcome == "passed"  # nothing to compare with
    assert check(limits, previous=before).results[0].message == "8 rows, +0.0% since the last complete run"
    (fewer,) = check(limits, rows=ROWS[:6], previous=before).results
    assert (fewer.status, fewer.message) == (
        "failed", "6 rows, -25.0% since the last complete run; at most -20.0% is allowed"
    )  # fmt: skip
    (more,) = check(limits, previous=before.model_copy(update={"n_rows": {"raw_tickets": 5}})).results
    assert more.status == "failed"


def test_freshness_is_judged_by_the_clock_of_each_run(check: Check) -> None:
    (result,) = check(spec(uses="freshness", max_age_hours=24)).results
    assert (result.status, result.newest) == ("timed", "2026-06-01T07:00:00")
    fresh = judge_now(result, datetime(2026, 6, 2, 7, tzinfo=UTC))
    assert (fresh.status, fresh.observed) == ("passed", 24.0)
    stale = judge_now(result, datetime(2026, 6, 2, 8, tzinfo=UTC))
    assert (stale.status, stale.message) == ("failed", "the newest ticket is 25.0 hours old; at most 24 are allowed")
    others = check(spec(uses="volume", min_rows=9), spec(uses="nulls", column="body", max_share=1)).results
    limits = "1 of 3 checks failed, 1 passed, 1 to be judged by the clock"
    assert count_checks((result, *others)) == limits  # before a run has judged it, it has neither passed nor failed
    assert count_checks((stale, *others)) == "2 of 3 checks failed, 1 passed"
    assert judge_now(CheckResult(**{**result.model_dump(), "newest": None}), datetime.now(UTC)).status == "timed"


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("select * from tickets", SecurityError),
        ("select * from raw_tickets, 'x.csv'", SecurityError),
        ("select * from curated where random() > 0.5", SecurityError),
        ("select nope from curated", ConfigError),
        ("drop table curated", SecurityError),
    ],
)
def test_sql_of_a_check_reads_the_two_tables_only(check: Check, tmp_path: Path, sql: str, error: type) -> None:
    (tmp_path / "mine.sql").write_text(sql)
    mine = spec(uses="sql", name="mine", file="mine.sql")
    (fault,) = check_faults((mine,), tmp_path)
    assert isinstance(fault, error)
    assert check(mine).results[0].status == "error"


def test_files_of_checks_are_found_before_a_run_and_are_part_of_the_key(tmp_path: Path) -> None:
    known = spec(uses="relation", column="product", file="products.csv", to="name")
    (fault,) = check_faults((known,), tmp_path)
    assert fault.code == "TG0110"
    (tmp_path / "products.csv").write_text("name\na\n")
    before = digests_of((known,), tmp_path)
    (tmp_path / "products.csv").write_text("name\nb\n")
    assert digests_of((known,), tmp_path) != before
    with pytest.raises(SecurityError, match="TG0818"):
        texts_of((spec(uses="sql", name="x", file="../x.sql"),), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uses": "volume"}, "needs min_rows, max_rows, max_drop or max_rise"),
        ({"uses": "range", "column": "rating"}, "needs min or max"),
        ({"uses": "range", "column": "rating", "min": 2, "max": 1}, "min is above max"),
        ({"uses": "range", "column": "body", "min": 1}, "not a column of numbers"),
        ({"uses": "nulls", "column": "categry"}, "not a ticket column; did you mean"),
        ({"uses": "accepted_values", "column": "category", "values": []}, "at least 1 item"),
        ({"uses": "sql", "file": "x.sql"}, "name"),
        ({"uses": "relation", "column": "product", "file": "x.xlsx", "to": "a"}, "pattern"),
    ],
)
def test_settings_that_judge_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**settings)
