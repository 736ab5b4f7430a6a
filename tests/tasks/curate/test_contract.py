"""A user's pandera model on the raw and on the curated table: which rows it quarantines, and what ends the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import TicketTable
from schemas.curation import TableSpec
from schemas.errors import ConfigError, DataError
from tasks.curate.contract import check_contract
from tasks.curate.contract_model import Contract, contract_faults
from tasks.curate.row_faults import FaultLimit
from tasks.curate.rows import read_rows
from tasks.curate.validate import validate_tickets

LENIENT = {"fail_above": 1.0, "warn_above": 1.0}
HEAD = "import pandas as pd\nimport pandera.pandas as pa\n\n\nclass Tickets(pa.DataFrameModel):\n"
MODEL = f"""{HEAD}
    ticket_id: str = pa.Field(unique=True, str_matches=r"^T-")
    category: str = pa.Field(isin=["billing", "delivery"], nullable=True)
    rating: float = pa.Field(ge=1, le=5, nullable=True)
    created_at: pd.Timestamp = pa.Field(nullable=True)
    source_line: int

    @pa.check("body")
    def has_words(cls, body):
        return body.str.len() > 3

    @pa.dataframe_check
    def answered_or_open(cls, tickets):
        return tickets["reply"].notna() | (tickets["channel"] == "open")
"""
Check = Callable[..., TicketTable]


def row(number: int, **values: Any) -> dict[str, Any]:
    return {"ticket_id": f"T-{number}", "body": "Where is it?", "reply": "Here.", **values}


ROWS = [
    row(0, category="billing", rating=4.0),
    row(1, category="biling"),
    row(2, rating=9.0),
    row(3, body="ann"),
    row(4, reply=None),
    row(5, reply=None, channel="open"),
    row(6, ticket_id="X-6"),
]


@pytest.fixture
def check(make_tickets: Any, new_folder: Any, tmp_path: Path) -> Check:
    """The rows under a model on the raw table (`model`) or on the curated one (`curated`)."""

    def run(source: str, rows: list[dict[str, Any]], *, on: str = "model", **limits: Any) -> TicketTable:
        (tmp_path / "checks.py").write_text(source)
        table = TableSpec.model_validate({**LENIENT, on: "checks.py:Tickets"})
        tickets = make_tickets(rows)
        if on == "model":
            return validate_tickets(new_folder(), tickets=tickets, table=table, root=tmp_path)
        return check_contract(new_folder(), tickets=tickets, table=table, root=tmp_path, **limits)

    return run


@pytest.mark.parametrize("on", ["model", "curated"])
def test_each_row_that_breaks_it_is_quarantined_with_check_column_and_value(check: Check, on: str) -> None:
    found = check(MODEL.replace("    @pa.check(", "    body: str\n\n    @pa.check("), ROWS, on=on)
    removed = {each["ticket_id"]: each for each in read_rows(found.removed).to_pylist()}
    assert {key: (each["check_name"], each["field"], each["value"]) for key, each in removed.items()} == {
        "T-1": ("isin(['billing', 'delivery'])", "category", "biling"),
        "T-2": ("less_than_or_equal_to(5)", "rating", "9.0"),
        "T-3": ("has_words", "body", "xxx"),  # a text is personal: only its form
        "T-4": ("answered_or_open", None, None),
        "X-6": ("str_matches('^T-')", "ticket_id", "x-9"),
    }
    assert {each["code"] for each in removed.values()} == {"TG0216"}
    assert f"schema.{on}: checks.py:Tickets" in removed["T-1"]["reason"]
    assert (found.rows.n_in, found.rows.n_out, found.rows.n_quarantined) == (7, 2, 5)
    assert read_rows(found.tickets)["ticket_id"].to_pylist() == ["T-0", "T-5"]


def test_a_value_that_has_a_persons_address_is_masked(check: Check) -> None:
    found = check(
        MODEL.replace("    @pa.check(", "    body: str\n\n    @pa.check("), [row(0, category="ann@example.org"), row(1)]
    )
    assert read_rows(found.removed)["value"].to_pylist() == ["[EMAIL_1]"]


def test_a_check_that_raises_on_a_row_quarantines_that_row(check: Check) -> None:
    source = (
        HEAD + "    body: str = pa.Field()\n\n    @pa.check('body', element_wise=True)\n    def number(cls, text):\n"
    )
    found = check(
        f"{source}        return int(text.split()[1]) >= 0\n",
        [row(n, body=f"case {n}") for n in range(70)] + [row(99, body="none")],
    )
    (gone,) = read_rows(found.removed).to_pylist()
    assert (gone["ticket_id"], gone["code"]) == ("T-99", "TG0259")
    assert "check number raised IndexError" in gone["reason"]
    assert found.rows.n_out == 70


def test_a_check_that_raises_on_every_row_ends_the_run_and_is_named(check: Check) -> None:
    source = (
        HEAD
        + "    body: str\n\n    @pa.check('body')\n    def broken(cls, body):\n        raise KeyError(body.iloc[0])\n"
    )
    with pytest.raises(DataError, match="check broken raised KeyError") as error:
        check(source, [row(n, body=f"secret {n}") for n in range(3)])
    assert error.value.code == "TG0259"
    assert "secret" not in str(error.value)


def test_a_check_of_the_whole_table_ends_the_run(check: Check) -> None:
    source = (
        HEAD
        + "    body: str\n\n    @pa.dataframe_check\n    def enough(cls, tickets):\n        return len(tickets) > 100\n"
    )
    with pytest.raises(DataError, match="check enough fails for the table as a whole") as error:
        check(source, ROWS, on="curated")
    assert error.value.code == "TG0222"


def test_values_are_judged_as_coerced_and_kept_as_they_were(check: Check) -> None:
    source = HEAD + "    reference: float = pa.Field(ge=10, coerce=True, nullable=True)\n"
    found = check(source, [row(0, reference="12"), row(1, reference="7"), row(2, reference="A1")])
    assert read_rows(found.tickets)["reference"].to_pylist() == ["12"]
    assert [(each["check_name"], each["value"]) for each in read_rows(found.removed).to_pylist()] == [
        ("greater_than_or_equal_to(10)", "7.0"), ("coerce_dtype('float64')", "x9"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HEAD + "    absent: str\n", "column not in dataframe: absent"),
        (HEAD + "    rating: str\n", "column rating is declared as string[pyarrow], and is float64"),
        ("Tickets = 3\n", "no DataFrameModel or DataFrameSchema"),
        ("import absent_module\n", "importing checks raised ModuleNotFoundError"),
        (HEAD + "    body: str\n\n    class Config:\n        drop_invalid_rows = True\n", "would lose rows"),
        (HEAD + "    body: str = pa.Field(str_length=3, raise_warning=True)\n", "only warns"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_judge_tickets_is_found_without_any(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "checks.py").write_text(source)
    (fault,) = contract_faults(Contract("checks.py:Tickets", "schema.model", tmp_path))
    assert isinstance(fault, ConfigError)
    assert message in fault.message
    assert fault.code == "TG0128"


def test_pandera_cannot_be_switched_off_by_its_environment(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandera import config

    monkeypatch.setattr(config.CONFIG, "validation_enabled", False)
    config.reset_config_context()
    try:
        assert check(HEAD + "    rating: float = pa.Field(le=5, nullable=True)\n", ROWS).rows.n_quarantined == 1
    finally:
        monkeypatch.undo()
        config.reset_config_context()


def test_no_step_hands_on_what_validate_would_have_refused(make_tickets: Any, new_folder: Any, tmp_path: Path) -> None:
    rows = [row(0), row(1, body=None), row(2, category="other"), row(3), row(3, body="again"), row(4, reply="x" * 30)]
    table = TableSpec.model_validate({**LENIENT, "categories": ["billing"], "max_chars": 20})
    found = check_contract(new_folder(), tickets=make_tickets(rows), table=table, root=tmp_path)
    assert sorted((each["ticket_id"], each["code"]) for each in read_rows(found.removed).to_pylist()) == [
        ("T-1", "TG0210"), ("T-2", "TG0212"), ("T-3", "TG0215"), ("T-3", "TG0215"), ("T-4", "TG0211"),
    ]  # fmt: skip
    assert found.rows.n_out == 1


def test_a_sound_table_is_handed_on_byte_by_byte(make_tickets: Any, new_folder: Any, tmp_path: Path) -> None:
    tickets = make_tickets([row(0), row(1)])
    found = check_contract(new_folder(), tickets=tickets, table=TableSpec(), root=tmp_path)
    assert found.tickets.read_bytes() == tickets.tickets.read_bytes()
    assert (found.rows.n_in, found.rows.n_out, found.notes) == (2, 2, {})


def test_rows_on_which_a_check_raises_count_for_the_limit(check: Check, make_tickets: Any) -> None:
    source = (
        HEAD + "    body: str\n\n    @pa.check('body', element_wise=True)\n    def number(cls, text):\n"
        "        return int(text) > 0\n"
    )
    rows = [row(n, body=str(n + 1)) for n in range(70)] + [row(n, body="none") for n in range(80, 90)]
    with pytest.raises(DataError, match="TG0220"):
        check(source, rows, on="curated", limit=FaultLimit(0.05, (make_tickets(rows),)))
