"""Compare two states of curated tickets: what came, went, changed and moved between splits, and what did it.

Tickets are compared by ticket_id, in all columns but their place in the source, and exactly: the ids on one side are
those of SQL's `EXCEPT`. What keeps a ticket out of a state is read from its removed rows, and what changed a value from
the tables between the steps. DuckDB does the work.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from schemas.curation_steps import RedactStep
from schemas.tables import SCORES_OF, TICKET_COLUMNS
from tasks.curate.redact import masked_place, masked_value, redact_row
from tasks.curate.warehouse_query import MAX_TEXT, masked_row
from tasks.storage.warehouse import connect, quote_identifier, quote_text

if TYPE_CHECKING:
    from tasks.storage.warehouse import Connection

Row = dict[str, Any]
Side = Literal["before", "after"]
SIDES: tuple[Side, Side] = ("before", "after")
SPLITS = ("train", "validation", "test")
COMPARED = tuple(name for name in TICKET_COLUMNS if name not in ("ticket_id", "source", "source_line"))
"""Columns to compare."""
SCORED_BY = {column: step for step, columns in SCORES_OF.items() for column in columns}
DROPS_ONLY = frozenset(
    {"rules", "length", "cap", "dedup", "trigger_scan", "contract", "split", "decontaminate"}
)  # fmt: skip
"""Steps that leave rows out and change none."""
SOURCE, NOT_KEPT = "the source", "not known: a table between the steps is no longer kept"
MEMORY = "2GB"
"""Of DuckDB; it spills to disk beyond."""
_KINDS = {
    "added": "before IS NULL", "gone": "after IS NULL", "changed": "columns <> []", "moved": "before <> after",
}  # fmt: skip
"""What can have happened to a ticket -> how a row of `pairs` shows it."""
_SHOWN = ("ticket_id", "split", "category", "subject", "body", "reply")


@dataclass(frozen=True)
class TableState:
    """The files of one state of a pipeline's tickets."""

    train: Path
    validation: Path
    test: Path
    removed: Path
    """Removed rows of all steps, with the step."""
    funnel: Path
    """The steps in order."""
    raw: Path | None = None
    """The rows as they were read; None if they are no longer kept."""
    tables: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    """Step -> tickets after it, in order, of those that are kept: from `validate` on."""
    is_redacted: bool = True

    def files(self) -> Iterator[Path]:
        """Yield all of them that may be read."""
        yield from (self.train, self.validation, self.test, self.removed, self.funnel, *self.tables.values())
        if self.raw is not None:
            yield self.raw


@dataclass(frozen=True)
class TableDiff:
    """What differs between two states. Rows are plain values, and hold no ticket text but the samples."""

    before: dict[str, int]
    """Split -> tickets, and `all`."""
    after: dict[str, int]
    counts: dict[str, int]
    """`same`, `added`, `gone`, `changed` (in a value) and `moved` (to another split); a ticket may be in both last."""
    added: list[Row]
    """split, n, and why it was not in the first state: `step` and `code` that left it out, or the source."""
    gone: list[Row]
    """The same of tickets that the second state lacks."""
    changed: list[Row]
    """column, n, and `by`: the step that made the difference, or the source."""
    moved: list[Row]
    """before, after, n."""
    values: list[Row]
    """Per value of a label: tickets before and after, added, gone, changed, moved."""
    label: str
    """The column of `values`."""
    samples: dict[str, list[Row]]
    """added, gone, changed, moved -> tickets as the pipeline redacted them."""

    @property
    def is_empty(self) -> bool:
        """Whether both states have the same tickets."""
        return not any(self.counts[kind] for kind in _KINDS)


def diff_tables(before: TableState, after: TableState, *, label: str = "category", n_samples: int = 3) -> TableDiff:
    """Compare the tickets of two states.

    Args:
        label: Column to count tickets by.
        n_samples: Tickets shown of each kind; the same ones for the same states.
    """
    files = tuple(path for state in (before, after) for path in state.files())
    with connect(readable=files, threads=1, memory_limit=MEMORY) as connection:
        return _Diff(connection, {"before": before, "after": after}, label).result(n_samples)


class _Diff:
    """One comparison, in one database in memory.

    Table `pairs`: a row per ticket_id of either state: split and place in both, and the columns that differ.
    """

    def __init__(self, connection: Connection, states: dict[Side, TableState], label: str) -> None:
        self._sql = connection
        self._states = states
        self._label = label
        for side, state in states.items():
            parts = (
                f"SELECT '{split}' AS split, * FROM read_parquet({_text(getattr(state, split))})" for split in SPLITS
            )
            connection.execute(f"CREATE VIEW {side} AS {' UNION ALL BY NAME '.join(parts)}")
            connection.execute(
                f"CREATE TABLE out_{side} AS SELECT ticket_id, step, code, source, source_line, position "
                f"FROM read_parquet({_text(state.removed)}) gone "
                f"JOIN read_parquet({_text(state.funnel)}) funnel USING (step)"
            )
        differs = ", ".join(
            f"CASE WHEN a.{quote_identifier(name)} IS DISTINCT FROM b.{quote_identifier(name)} THEN '{name}' END"
            for name in COMPARED
        )
        column = quote_identifier(label)
        connection.execute(
            "CREATE TABLE pairs AS SELECT coalesce(a.ticket_id, b.ticket_id) AS ticket_id, "
            "a.split AS before, b.split AS after, a.source AS source_before, a.source_line AS line_before, "
            f"b.source AS source_after, b.source_line AS line_after, a.{column} AS label_before, "
            f"b.{column} AS label_after, CASE WHEN a.split IS NULL OR b.split IS NULL THEN [] ELSE "
            f"list_filter([{differs}], lambda name: name IS NOT NULL) END AS columns "
            "FROM before a FULL JOIN after b ON a.ticket_id = b.ticket_id"
        )

    def result(self, n_samples: int) -> TableDiff:
        ((same, added, gone, changed, moved),) = self._rows(
            f"SELECT count(*) FILTER (before = after AND columns = []), {_counted()} FROM pairs"
        )
        counts = {"same": same, "added": added, "gone": gone, "changed": changed, "moved": moved}
        return TableDiff(
            before=self._sizes("before"),
            after=self._sizes("after"),
            counts=counts,
            added=self._absent("before") if added else [],
            gone=self._absent("after") if gone else [],
            changed=self._changes() if changed else [],
            moved=self._dicts(
                "SELECT before, after, count(*) AS n FROM pairs WHERE before <> after "
                "GROUP BY ALL ORDER BY n DESC, before, after"
            ),
            values=self._values(),
            label=self._label,
            samples=self._samples(n_samples),
        )

    def _sizes(self, side: Side) -> dict[str, int]:
        found = dict(self._rows(f"SELECT {side}, count(*) FROM pairs WHERE {side} IS NOT NULL GROUP BY 1"))
        return {"all": sum(found.values()), **{split: found.get(split, 0) for split in SPLITS}}

    # --- why a ticket is absent ----------------------------------------------------------------------------------

    def _absent(self, side: Side) -> list[Row]:
        """Count the tickets that a state lacks, by the split that they have in the other and what left them out.

        A ticket is looked for by its id, by that of the row that it was read from (`redact` may replace ids), and by
        the places of that id in the state's source; if several steps left out rows of it, the last one counts.
        """
        other: Side = "after" if side == "before" else "before"
        raw, raw_other = self._states[side].raw, self._states[other].raw
        self._sql.execute(
            f"CREATE OR REPLACE TABLE missing AS SELECT ticket_id, {other} AS split, source_{other} AS source, "
            f"line_{other} AS source_line FROM pairs WHERE {side} IS NULL"
        )
        ids = "SELECT ticket_id, ticket_id AS id FROM missing"
        if raw_other is not None:
            ids += (
                " UNION SELECT missing.ticket_id, raw.ticket_id FROM missing JOIN (SELECT ticket_id, source, "
                f"source_line FROM read_parquet({_text(raw_other)})) raw USING (source, source_line)"
            )
        self._sql.execute(f"CREATE OR REPLACE TABLE ids AS {ids}")
        hits = (
            "SELECT ids.ticket_id, gone.step, gone.code, gone.position FROM ids "
            f"JOIN out_{side} gone ON gone.ticket_id = ids.id"
        )
        was_read = "SELECT NULL::VARCHAR AS ticket_id WHERE false"
        if raw is not None:
            self._sql.execute(
                "CREATE OR REPLACE TABLE places AS SELECT ids.ticket_id, raw.source, raw.source_line FROM ids JOIN "
                f"(SELECT ticket_id, source, source_line FROM read_parquet({_text(raw)})) raw ON raw.ticket_id = ids.id"
            )
            hits += (
                " UNION ALL SELECT places.ticket_id, gone.step, gone.code, gone.position FROM places JOIN "
                f"out_{side} gone USING (source, source_line)"
            )
            was_read = "SELECT DISTINCT ticket_id FROM places"
        unread = "not known" if raw is None else SOURCE
        return self._dicts(
            f"WITH last AS (SELECT ticket_id, arg_max(step, position) AS step, arg_max(code, position) AS code "
            f"FROM ({hits}) GROUP BY ticket_id) SELECT split, coalesce(step, CASE WHEN seen.ticket_id IS NULL "
            f"THEN '{unread}' ELSE 'another id' END) AS step, code, count(*) AS n FROM missing "
            f"LEFT JOIN last USING (ticket_id) LEFT JOIN ({was_read}) seen USING (ticket_id) "
            "GROUP BY ALL ORDER BY n DESC, split, step, code"
        )

    # --- what changed a value ------------------------------------------------------------------------------------

    def _changes(self) -> list[Row]:
        """Count changed tickets by column and by what changed them."""
        self._sql.execute(
            'CREATE TABLE changes AS SELECT ticket_id, unnest(columns) AS "column", source_before, line_before, '
            "source_after, line_after, NULL::VARCHAR AS cause FROM pairs WHERE columns <> []"
        )
        for column, step in SCORED_BY.items():
            self._sql.execute(
                'UPDATE changes SET cause = $step WHERE "column" = $column', {"step": step, "column": column}
            )
        raws = [self._states[side].raw for side in SIDES]
        if raws[0] is not None and raws[1] is not None:
            self._attribute(SOURCE, raws[0], raws[1])
            now = dict.fromkeys(SIDES, "")
            tables: dict[Side, Path] = {"before": raws[0], "after": raws[1]}
            for step in _merged(*(tuple(self._states[side].tables) for side in SIDES)):
                for side in SIDES:
                    if step in self._states[side].tables:
                        tables[side], now[side] = self._states[side].tables[step], step
                if re.sub(r"_\d+$", "", step) not in DROPS_ONLY:
                    self._attribute(step, tables["before"], tables["after"])
        return self._dicts(
            f'SELECT "column", coalesce(cause, {quote_text(NOT_KEPT)}) AS "by", count(*) AS n FROM changes '
            'GROUP BY ALL ORDER BY n DESC, "column", 2'
        )

    def _attribute(self, cause: str, before: Path, after: Path) -> None:
        """Name the cause of the changes that no one has caused yet and that these two tables show."""
        columns = [
            name for (name,) in self._rows('SELECT DISTINCT "column" FROM changes WHERE cause IS NULL ORDER BY 1')
        ]
        if not columns:
            return
        differ = " OR ".join(
            f"(\"column\" = '{name}' AND a.{quote_identifier(name)} IS DISTINCT FROM b.{quote_identifier(name)})"
            for name in columns
        )
        wanted = ", ".join(map(quote_identifier, columns))
        self._sql.execute(
            "UPDATE changes SET cause = $cause FROM ("
            'SELECT changes.ticket_id AS id, "column" AS name FROM changes '
            f"JOIN (SELECT source, source_line, {wanted} FROM read_parquet({_text(before)})) a "
            "ON a.source = source_before AND a.source_line = line_before "
            f"JOIN (SELECT source, source_line, {wanted} FROM read_parquet({_text(after)})) b "
            f"ON b.source = source_after AND b.source_line = line_after WHERE cause IS NULL AND ({differ})) found "
            'WHERE changes.ticket_id = found.id AND changes."column" = found.name',
            {"cause": cause},
        )

    # --- by value, and samples -----------------------------------------------------------------------------------

    def _values(self) -> list[Row]:
        rows = self._dicts(f"SELECT coalesce(label_after, label_before) AS value, {_counted()} FROM pairs GROUP BY 1")
        sizes = [
            dict(self._rows(f"SELECT label_{side}, count(*) FROM pairs WHERE {side} IS NOT NULL GROUP BY 1"))
            for side in SIDES
        ]
        found = {row["value"]: row for row in rows}
        for value in sizes[0].keys() - found.keys():  # every ticket that had it has another one now
            found[value] = {"value": value, **dict.fromkeys(_KINDS, 0)}
        listed = [
            {
                "value": None if value is None else masked_value(str(value)),
                "before": sizes[0].get(value, 0),
                "after": sizes[1].get(value, 0),
                **{kind: row[kind] for kind in _KINDS},
            }
            for value, row in found.items()
        ]
        return sorted(listed, key=lambda row: (-max(row["before"], row["after"]), str(row["value"])))

    def _samples(self, n_rows: int) -> dict[str, list[Row]]:
        """Tickets of each kind, in the order of a hash of their ids."""
        picked = {
            kind: self._dicts(
                f"SELECT ticket_id, before, after, columns FROM pairs WHERE {condition} "
                f"ORDER BY sha256(ticket_id) LIMIT {int(n_rows)}"
            )
            for kind, condition in _KINDS.items()
        }
        ids = {row["ticket_id"] for rows in picked.values() for row in rows}
        before, after = (self._tickets(side, ids) for side in SIDES)
        return {
            kind: [_sample(kind, row, before.get(row["ticket_id"]), after.get(row["ticket_id"])) for row in rows]
            for kind, rows in picked.items()
        }

    def _tickets(self, side: Side, ids: Collection[str]) -> dict[str, Row]:
        """These tickets as a state has them, masked: only text that the pipeline redacted, or that is redacted here."""
        if not ids:
            return {}
        # Literals: the reader skips the row groups that cannot have them.
        wanted = ", ".join(map(quote_text, sorted(ids)))
        rows = self._dicts(f"SELECT * FROM {side} WHERE ticket_id IN ({wanted})")
        redacted = self._states[side].is_redacted
        return {row["ticket_id"]: _shown(row, is_redacted=redacted) for row in rows}

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._sql.execute(sql).fetchall()

    def _dicts(self, sql: str, **values: object) -> list[Row]:
        rows: list[Row] = self._sql.sql(sql, params=values).to_arrow_table().to_pylist()
        return rows


def _counted() -> str:
    return ", ".join(f"count(*) FILTER ({condition}) AS {kind}" for kind, condition in _KINDS.items())


def _sample(kind: str, row: Row, before: Row | None, after: Row | None) -> Row:
    """What is shown of a ticket: its texts, or the values that differ."""
    seen = after or before or {}
    names = ("ticket_id", "split") if kind == "changed" else _SHOWN
    sample: Row = {name: seen[name] for name in names if seen.get(name) is not None}
    if kind == "moved":
        sample["was"] = row["before"]
    if kind == "changed" and before is not None and after is not None:
        sample["columns"] = {name: {"before": before[name], "after": after[name]} for name in row["columns"]}
    return sample


def _shown(row: Row, *, is_redacted: bool) -> Row:
    if not is_redacted:
        row = dict(redact_row(row, RedactStep(uses="redact"))[0])
    masked = {**masked_row(row), "source": masked_place(row["source"])}
    return {name: _short(value) for name, value in masked.items()}


def _short(value: Any) -> Any:
    return f"{value[:MAX_TEXT]}..." if isinstance(value, str) and len(value) > MAX_TEXT else value


def _merged(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Both sequences in one, each in its own order as far as they agree.

    >>> _merged(["validate", "mine", "redact"], ["validate", "redact", "own"])
    ['validate', 'mine', 'redact', 'own']
    """
    found: list[str] = []
    others = list(second)
    for name in first:
        while name in others and others[0] != name:
            found.append(others.pop(0))
        if others and others[0] == name:
            others.pop(0)
        if name not in found:
            found.append(name)
    return [*found, *(name for name in others if name not in found)]


def _text(path: Path) -> str:
    return quote_text(str(path.resolve()))
