"""What differs between two states of curated tickets, and what did it: equal to SQL's EXCEPT."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.curate.rows import REMOVED_ARROW, ticket_table, write_tickets
from tasks.curate.table_diff import COMPARED, SOURCE, SPLITS, TableState, diff_tables

Tickets = Mapping[str, list[dict[str, Any]]]
MakeState = Callable[..., TableState]


def ticket(number: int, **values: Any) -> dict[str, Any]:
    return {
        "ticket_id": f"t{number}", "body": f"text {number}", "category": "billing", "source": "a.csv",
        "source_line": number, **values,
    }  # fmt: skip


def state_in(
    folder: Path,
    tickets: Tickets,
    *,
    removed: list[dict[str, Any]] | None = None,
    raw: list[dict[str, Any]] | None = None,
    tables: Mapping[str, list[dict[str, Any]]] | None = None,
    is_redacted: bool = True,
) -> TableState:
    """A state of these tickets by split; `removed` has a step per row."""
    folder.mkdir()
    for split in SPLITS:
        write_tickets(ticket_table(tickets.get(split, [])), folder, name=f"{split}.parquet")
    rows = [dict.fromkeys(REMOVED_ARROW.names) | {"outcome": "dropped", "reason": "-"} | row for row in removed or []]
    schema = pa.schema([pa.field("step", pa.string()), *REMOVED_ARROW])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "removed.parquet")
    steps = ["extract", "validate", "redact", "rules", "mine", "dedup"]
    funnel = {"position": list(range(1, len(steps) + 1)), "step": steps}
    pq.write_table(pa.table(funnel), folder / "funnel.parquet")
    if raw is not None:
        write_tickets(ticket_table(raw), folder, name="raw.parquet")
    for name, table in (tables or {}).items():
        write_tickets(ticket_table(table), folder, name=f"after_{name}.parquet")
    return TableState(
        *(folder / f"{name}.parquet" for name in (*SPLITS, "removed", "funnel")),
        raw=None if raw is None else folder / "raw.parquet",
        tables={name: folder / f"after_{name}.parquet" for name in tables or {}},
        is_redacted=is_redacted,
    )


@pytest.fixture
def make_state(new_folder: Callable[[], Path]) -> MakeState:
    return lambda tickets, **options: state_in(new_folder() / "state", tickets, **options)


def test_what_left_a_ticket_out_is_the_last_step_that_removed_a_row_of_it(make_state: MakeState) -> None:
    rows = [ticket(n) for n in range(6)]
    before = make_state({"train": rows[:5]}, raw=rows[:5])
    after = make_state(
        {"train": [rows[0], rows[5]]},
        raw=[*rows[:4], rows[5], ticket(2, source_line=90)],
        removed=[
            {"step": "rules", "code": "too_short", "ticket_id": "t1", "source": "a.csv", "source_line": 1},
            {"step": "validate", "code": "older", "ticket_id": "t2", "source": "a.csv", "source_line": 2},
            {"step": "dedup", "code": "exact_duplicate", "ticket_id": "t2", "source": "a.csv", "source_line": 90},
            # after the ids became pseudonyms: found by its place
            {"step": "mine", "code": "mine", "ticket_id": "p-3", "source": "a.csv", "source_line": 3},
        ],
    )
    found = diff_tables(before, after)
    assert found.counts == {"same": 1, "added": 1, "gone": 4, "changed": 0, "moved": 0}
    assert {(row["step"], row["code"], row["n"]) for row in found.gone} == {
        ("rules", "too_short", 1), ("dedup", "exact_duplicate", 1), ("mine", "mine", 1), (SOURCE, None, 1),
    }  # fmt: skip
    assert [(row["split"], row["step"], row["n"]) for row in found.added] == [("train", SOURCE, 1)]
    back = diff_tables(after, before)
    assert (back.added, back.gone) == (found.gone, found.added)


def test_a_changed_value_is_put_down_to_the_source_or_to_the_first_step_that_shows_it(make_state: MakeState) -> None:
    first = [ticket(n, n_words=2) for n in range(4)]
    source = [ticket(0), ticket(1, category="delivery"), ticket(2), ticket(3)]
    redacted = [ticket(0), ticket(1, category="delivery"), ticket(2, body="[EMAIL_1]"), ticket(3)]
    mine = [*redacted[:3], ticket(3, body="new")]
    last = [{**row, "n_words": 3 if row["ticket_id"] == "t0" else 2} for row in mine]
    tables = {"validate": source, "redact": redacted, "mine": mine}
    before = make_state({"train": first}, raw=[ticket(n) for n in range(4)], tables=dict.fromkeys(tables, first))
    after = make_state({"train": last}, raw=source, tables=tables)
    found = diff_tables(before, after)
    assert {(row["column"], row["by"], row["n"]) for row in found.changed} == {
        ("category", SOURCE, 1), ("body", "redact", 1), ("body", "mine", 1), ("n_words", "quality", 1),
    }  # fmt: skip
    assert found.counts["changed"] == 4
    values = {row["value"]: (row["before"], row["after"], row["changed"]) for row in found.values}
    assert values == {"billing": (4, 3, 3), "delivery": (0, 1, 1)}


def test_tickets_that_move_are_counted_by_both_splits(make_state: MakeState) -> None:
    before = make_state({"train": [ticket(0), ticket(1)], "test": [ticket(2)]})
    after = make_state({"train": [ticket(0)], "test": [ticket(1), ticket(2, body="other")]})
    found = diff_tables(before, after)
    assert found.moved == [{"before": "train", "after": "test", "n": 1}]
    assert (found.before["test"], found.after["test"], found.before["all"]) == (1, 2, 3)
    assert [(row["ticket_id"], row["was"], row["split"]) for row in found.samples["moved"]] == [("t1", "train", "test")]


def test_samples_hold_no_personal_data_even_of_tickets_that_were_never_redacted(make_state: MakeState) -> None:
    rows = [ticket(0, body="Write to ann@example.org", category="bob@example.org"), ticket(1, body="x" * 400)]
    found = diff_tables(make_state({}), make_state({"train": rows}, is_redacted=False))
    shown = {row["ticket_id"]: row for row in found.samples["added"]}
    assert shown["t0"]["body"] == "Write to [EMAIL_1]"
    assert "@" not in str(found)
    assert len(shown["t1"]["body"]) < 300


def test_a_state_without_its_raw_rows_says_what_is_not_known(make_state: MakeState) -> None:
    before, after = make_state({"train": [ticket(0), ticket(1)]}), make_state({"train": [ticket(1, body="other")]})
    found = diff_tables(before, after)
    assert found.gone[0]["step"] == "not known"
    assert found.changed[0]["by"].startswith("not known")


VALUES = st.fixed_dictionaries(
    {
        "body": st.sampled_from(["a", "b", "", None]),
        "category": st.sampled_from(["billing", "delivery", None]),
        "rating": st.sampled_from([None, 0.5, 1.0, float("nan")]),
        "split": st.sampled_from(SPLITS),
    }
)
STATES = st.dictionaries(st.integers(0, 7), VALUES, max_size=8)
WHOLE = {"body": "a", "category": "billing", "rating": 0.5, "split": "train"}


@given(first=STATES, second=STATES)
@example(
    first={number: {**WHOLE, name: None} for number, name in enumerate(("body", "category", "rating"))},
    second=dict.fromkeys(range(3), WHOLE),
)
def test_the_tickets_on_either_side_are_those_of_except(
    new_folder: Callable[[], Path], first: dict[int, dict[str, Any]], second: dict[int, dict[str, Any]]
) -> None:
    states = []
    for rows in (first, second):
        tickets = {
            split: [
                ticket(number, **{name: value for name, value in row.items() if name != "split"})
                for number, row in rows.items()
                if row["split"] == split
            ]
            for split in SPLITS
        }
        states.append(state_in(new_folder() / "state", tickets))
    found = diff_tables(*states, n_samples=50)
    columns = ", ".join(("ticket_id", "split", *COMPARED))
    sides = [
        " UNION ALL ".join(f"SELECT '{split}' AS split, * FROM '{getattr(state, split)}'" for split in SPLITS)
        for state in states
    ]

    def only(one: str, other: str) -> set[str]:
        sql = f"SELECT ticket_id FROM (SELECT {columns} FROM ({one}) EXCEPT SELECT {columns} FROM ({other}))"
        return {row[0] for row in duckdb.sql(sql).fetchall()}

    shown = {kind: {row["ticket_id"] for row in rows} for kind, rows in found.samples.items()}
    differ = shown["changed"] | shown["moved"]
    assert shown["gone"] | differ == only(*sides)
    assert shown["added"] | differ == only(*sides[::-1])
    assert {kind: len(ids) for kind, ids in shown.items()} == {kind: found.counts[kind] for kind in shown}
    assert found.is_empty == (not only(*sides) and not only(*sides[::-1]))
    assert found.counts["same"] == len(first.keys() & second.keys()) - len(differ)
    assert sum(row["after"] for row in found.values) == len(second) == found.after["all"]
