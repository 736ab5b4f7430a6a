"""Keep valid tickets, one row per ticket_id, and list all other rows with the reason.

Texts are first brought into one form: composed Unicode, `\\n` for line breaks, and no control characters, which are
invisible and break other tools (NUL ends strings in C); a NUL between words is a blank. Letters, emoji, joiners and
direction marks stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import TableSpec
from schemas.errors import DataError
from schemas.tables import TICKETS
from tasks.curate.contract_model import BROKEN, RAISED, Contract, errors_of, find_violations, raising_rows
from tasks.curate.one_per_id import keep_one_per_id
from tasks.curate.row_faults import FaultLimit, keep_sound_rows, top_codes
from tasks.curate.rows import TICKETS_ARROW, TicketWriter, count_rows, read_batches, write_removed
from tasks.curate.spill import SortedPart, merge_parts
from tasks.step import as_step

if TYPE_CHECKING:
    import pandera.pandas as pandera

NULL, TOO_LONG, CATEGORY, PRIORITY, TIME = "TG0210", "TG0211", "TG0212", "TG0212", "TG0214"
EARLIEST, LATEST = datetime(1990, 1, 1), datetime(2100, 1, 1)
"""UTC. Times outside are errors of a parser or a clock. Fixed bounds, not today's date, so that runs are repeatable."""
_TEXTS = tuple(column.name for column in TICKETS if column.sql_type == "VARCHAR" and column.name != "source")

Row = dict[str, Any]


class RowFault(NamedTuple):
    """Why a row is quarantined."""

    code: str
    column: str | None
    reason: str
    check: str | None = None
    """Of a contract; with the value that fails it."""
    value: str | None = None


PERHAPS_UNCLEAN = (
    r"[\x00-\x08\x0b-\x1f\x7f]|"
    r"[^\x00-\x{2ff}\x{400}-\x{482}\x{48a}-\x{52f}\x{5d0}-\x{5ea}\x{620}-\x{64a}\x{200b}-\x{2027}\x{2030}-\x{205e}"
    r"\x{20a0}-\x{20c0}\x{3001}-\x{3029}\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}\x{fe0f}"
    r"\x{ff01}-\x{ff60}\x{1f300}-\x{1faff}]"
)
"""RE2 pattern of every text that `clean_text` may change: controls, and letters that may not be composed yet."""
PERHAPS_UNCLEAN_MESSAGES = rf"\\[bfru]|{PERHAPS_UNCLEAN}"
"""The same for `clean_messages`, where control characters are escaped."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NUL = re.compile(r"(?<=[^\s\x00])\x00+(?=[^\s\x00])")
"""Where a NUL, the padding or separator of another program, stands for the blank between two words."""
_BREAK = re.compile(r"\r\n?")


@as_step("validate", libraries=("duckdb", "pyarrow", "pandera", "pandas"), context=("root",))
def validate_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    table: TableSpec,
    root: Path | None = None,
    read: TicketTable | None = None,
) -> TicketTable:
    """Quarantine invalid tickets, keep one of those that share an id, and enforce the limits.

    Text is normalised first (`clean_text`), and blank text becomes null. A row is quarantined for its first fault in
    the order of the columns, then for the first check of `schema.model` that it fails as it was read. Rows of one
    ticket_id: equal ones are merged into the first; of differing ones the newest
    by updated_at stays (on a tie or null, the later in the source) and the others are dropped, or all of them are
    quarantined.

    Memory holds a few row groups, the rows of one ticket_id, and place and reason of every removed row; with
    `schema.model`, all rows. If normalisation changes the order of ticket_ids, valid rows are first sorted in temporary
    files.

    Notes: rows per code; `normalised_texts` (fields); `nul_texts` (those of them that had a NUL);
    `updated_before_created` (rows, kept); `warn_quarantined` = 1
    when the quarantined fraction of the rows read is over `warn_above`.

    Args:
        tickets: The tickets.
        table: What a valid ticket is.
        root: Folder of pipelines.yaml, for `schema.model`; without it the tickets are not compared with that.
        read: What was read from the source, if a step came in between.

    Raises:
        ConfigError: TG0128, `schema.model` cannot be used.
        DataError: TG0220, the quarantined fraction is over `fail_above`; TG0221, no ticket is left; TG0222, TG0259 as
            `find_violations`.
    """
    return _keep_valid(tickets, table, out, root, earlier=() if read is None else (read,))


def list_invalid(tickets: TicketTable, table: TableSpec, out: Path, *, root: Path | None = None) -> TicketTable:
    """As `validate_tickets`, without any limit: to look at what it refuses."""
    return _keep_valid(tickets, table, out, root, has_limits=False)


def _keep_valid(
    tickets: TicketTable,
    table: TableSpec,
    out: Path,
    root: Path | None,
    *,
    earlier: tuple[TicketTable, ...] = (),
    has_limits: bool = True,
) -> TicketTable:
    declared = table.model if root is not None else None
    contract = None if declared is None or root is None else Contract(declared, "schema.model", root)
    return keep_sound_rows(
        lambda rows, folder: _validate(rows, table, contract, folder, earlier, has_limits=has_limits),
        tickets,
        step="validate",
        out=out,
        codes=(RAISED,),
        limit=FaultLimit(table.fail_above, (*earlier, tickets)) if has_limits else None,
        search=None if contract is None else lambda rows: raising_rows(rows.tickets, contract),
    )


def invalid_rows(tickets: pa.Table, table: TableSpec) -> dict[int, RowFault]:
    """Return the index of each row that `validate_tickets` would quarantine, with its fault; changes nothing."""
    return find_faults(_normalised(tickets, Counter()), table)


def _validate(
    tickets: TicketTable,
    table: TableSpec,
    contract: Contract | None,
    out: Path,
    earlier: tuple[TicketTable, ...],
    *,
    has_limits: bool,
) -> TicketTable:
    stages = (*earlier, tickets)
    broken = {} if contract is None else broken_rows(tickets.tickets, contract)
    notes: Counter[str] = Counter()
    removed: list[Row] = []
    repeated: list[Row] = []
    with TemporaryDirectory(prefix="aside-", dir=out) as aside, TicketWriter(out) as writer:
        valid = _valid_in_order(tickets.tickets, table, broken, notes, removed, aside=Path(aside))
        for kept, gone in keep_one_per_id(valid, table.on_conflicting_id):
            writer.add(kept)
            repeated += gone
            notes["updated_before_created"] += _n_updated_before_created(kept)
    removed += repeated
    write_removed(removed, out)
    outcomes = Counter(row["outcome"] for row in removed)
    rows = RowCounts(
        n_in=count_rows(tickets.tickets),
        n_out=writer.n_rows,
        n_quarantined=outcomes["quarantined"],
        n_dropped=outcomes["dropped"],
        n_merged=outcomes["merged"],
    )
    notes.update(row["code"] for row in removed)
    n_quarantined = sum(stage.rows.n_quarantined for stage in stages) + rows.n_quarantined
    if n_quarantined > table.warn_above * stages[0].rows.n_in:
        notes["warn_quarantined"] = 1
    if has_limits:
        _check_limits(stages, removed, rows.n_out, table)
    return TicketTable(root=out, rows=rows, notes={name: count for name, count in sorted(notes.items()) if count})


def _valid_in_order(
    path: Path,
    table: TableSpec,
    broken: Mapping[int, RowFault],
    notes: Counter[str],
    removed: list[Row],
    *,
    aside: Path,
) -> Iterator[pa.Table]:
    """Yield the valid tickets in the order of ticket_id, batch by batch."""
    valid = _valid(path, table, broken, notes, removed)
    if _clean_ids_are_in_order(path):
        return valid
    return merge_parts([SortedPart(aside / f"{n:06d}.arrow", batch) for n, batch in enumerate(valid) if batch.num_rows])


def _clean_ids_are_in_order(path: Path) -> bool:
    """Return whether the normalised ticket_ids are ascending; nulls do not count, because their rows are removed."""
    last = pa.array([], pa.string())
    for batch in read_batches(path, ("ticket_id",)):
        clean, _ = clean_texts(batch.column("ticket_id").combine_chunks(), messages=False)
        ids = pa.concat_arrays([last, clean.drop_null()])
        if pc.any(pc.greater(ids[:-1], ids[1:])).as_py():
            return False
        last = ids[-1:]
    return True


def _valid(
    path: Path, table: TableSpec, broken: Mapping[int, RowFault], notes: Counter[str], removed: list[Row]
) -> Iterator[pa.Table]:
    """Yield the valid tickets of each batch; count changes in the notes and add the other rows to `removed`."""
    start = 0
    for batch in read_batches(path):
        chunk = _normalised(batch, notes)
        faults = {**faults_within(broken, start, batch.num_rows), **find_faults(chunk, table)}
        start += batch.num_rows
        removed += quarantined(chunk, faults)
        yield without(chunk, faults)


def _normalised(chunk: pa.Table, notes: Counter[str]) -> pa.Table:
    for name in _TEXTS:
        column = chunk.column(name).combine_chunks()
        clean, n_changed = clean_texts(column, messages=name == "messages")
        if n_changed:
            notes["normalised_texts"] += n_changed
            nul = r"\u0000" if name == "messages" else "\0"
            if n_nul := pc.sum(pc.match_substring(column, nul)).as_py():
                notes["nul_texts"] += n_nul
            # Null is allowed until the model has validated: a ticket_id of only NULs is null now.
            field = chunk.schema.field(name).with_nullable(True)
            chunk = chunk.set_column(chunk.schema.get_field_index(name), field, clean)
    return chunk


def clean_texts(column: pa.Array, *, messages: bool) -> tuple[pa.Array, int]:
    """Return the column with normalised texts and blank ones null, and how many texts changed.

    Only texts that match a pattern are normalised one by one: most need no change.
    """
    picked = pc.match_substring_regex(column, PERHAPS_UNCLEAN_MESSAGES if messages else PERHAPS_UNCLEAN)
    picked = pc.fill_null(picked, False)
    before = column.filter(picked).to_pylist()
    after = [(clean_messages if messages else clean_text)(text) for text in before]
    n_changed = sum(1 for old, new in zip(before, after, strict=True) if old != new)
    if not n_changed:
        return column, 0
    texts = [text if text and not text.isspace() else None for text in after]
    return pc.replace_with_mask(column, picked, pa.array(texts, pa.string())), n_changed


def broken_rows(tickets: Path, contract: Contract) -> dict[int, RowFault]:
    """Return the number of each row of a file that breaks the contract, with its fault; raises as `find_violations`."""
    return {
        number: RowFault(
            BROKEN, broken.column, f"{broken.column or 'The row'} breaks {contract.place}.", broken.check, broken.value
        )
        for number, broken in find_violations(tickets, contract).items()
    }


def faults_within(faults: Mapping[int, RowFault], start: int, n_rows: int) -> dict[int, RowFault]:
    """Return the faults of a batch, by the index in it."""
    return {number - start: fault for number, fault in faults.items() if start <= number < start + n_rows}


def find_faults(chunk: pa.Table, table: TableSpec) -> dict[int, RowFault]:
    """Return row index -> its first fault in the order of the columns, by the shipped model."""
    import pandas as pd

    found: dict[int, tuple[str, str]] = {}
    order = {column.name: place for place, column in enumerate(TICKETS)}
    cases = [
        (int(index), order[error.schema.name], error.check if isinstance(error.check, str) else error.check.name)
        for error in errors_of(ticket_model(table), chunk.to_pandas(types_mapper=pd.ArrowDtype))
        for index in error.failure_cases["index"]
    ]
    for index, place, check in sorted(cases):
        found.setdefault(index, (NULL if check == "not_nullable" else check, TICKETS[place].name))
    long = pc.greater(pc.utf8_length(chunk.column("messages")), table.max_chars).combine_chunks()
    for index in pc.indices_nonzero(long).to_pylist():
        if index not in found and longest_message(chunk.column("messages")[index].as_py()) > table.max_chars:
            found[index] = (TOO_LONG, "messages")
    return {
        index: RowFault(code, column, _reason(code, column, table)) for index, (code, column) in sorted(found.items())
    }


def _reason(code: str, column: str, table: TableSpec) -> str:
    """Return one sentence without the value, which may be personal."""
    match code:
        case _ if code == NULL:
            return f"Field {column} is required and empty."
        case _ if code == TOO_LONG:
            return f"Field {column} is longer than {table.max_chars:,} characters."
        case _ if code == CATEGORY:
            return f"Field {column} is none of: {', '.join(table.categories)}."
        case _ if code == PRIORITY:
            return f"Field {column} is none of: {', '.join(table.priorities)}."
        case _ if code == TIME:
            return f"Field {column} is before 1990 or after 2099."
    raise ValueError(f"no such check: {code}")


def quarantined(chunk: pa.Table, faults: Mapping[int, RowFault]) -> list[Row]:
    """Return the faulty rows as entries of the quarantine."""
    places = chunk.select(["ticket_id", "source", "source_line"]).take(pa.array(faults.keys(), pa.int64())).to_pylist()
    return [
        {
            **place, "outcome": "quarantined", "code": fault.code, "reason": fault.reason, "field": fault.column,
            "check_name": fault.check, "value": fault.value,
        }
        for place, fault in zip(places, faults.values(), strict=True)
    ]  # fmt: skip


def without(chunk: pa.Table, faults: Mapping[int, RowFault]) -> pa.Table:
    """Return the other rows."""
    if faults:
        chunk = chunk.filter(pa.array([index not in faults for index in range(chunk.num_rows)], pa.bool_()))
    return chunk.cast(TICKETS_ARROW)


def _n_updated_before_created(table: pa.Table) -> int:
    earlier = pc.less(table.column("updated_at"), table.column("created_at"))
    return int(pc.sum(earlier).as_py() or 0)


def _check_limits(stages: tuple[TicketTable, ...], removed: list[Row], n_left: int, table: TableSpec) -> None:
    """Raise if too many rows were quarantined since reading began, or none is left."""
    FaultLimit(table.fail_above, stages).check(more=removed)
    if not n_left:
        raise DataError(
            f"no valid ticket is left of {stages[0].rows.n_in:,} rows read: "
            f"{top_codes([stage.removed for stage in stages], removed)}",
            code="TG0221",
            where=str(stages[0].removed),
            hint="see the first of these rows in the source",
        )


def clean_text(text: str) -> str:
    r"""NFC, `\n` for every line break, a blank for NULs within a line, and no control characters but tab and line feed.

    >>> clean_text("Cafe\u0301\r\nopen\x00\x00late\x00\x00")
    'Café\nopen late'
    """
    if "\r" in text:
        text = _BREAK.sub("\n", text)
    if not text.isprintable():
        text = _CONTROL.sub("", _NUL.sub(" ", text) if "\x00" in text else text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def clean_messages(messages: str) -> str:
    """The same inside each content of the `messages` column's JSON.

    >>> clean_messages('[{"role":"user","content":"a\\\\u0000b"}]')
    '[{"role":"user","content":"a b"}]'
    """
    turns = [{**turn, "content": clean_text(turn["content"])} for turn in orjson.loads(messages)]
    return orjson.dumps(turns).decode()


def longest_message(messages: str) -> int:
    """Characters of the longest content in the `messages` column's JSON."""
    return max(len(turn["content"]) for turn in orjson.loads(messages))


def ticket_model(table: TableSpec) -> pandera.DataFrameSchema:
    """The pandera model for a frame of Arrow-typed columns; validate with `lazy=True` to get every failing row.

    The name of a check is the code of its quarantine. The length of `messages` is not checked here: its limit is per
    message, not for the JSON.
    """
    import pandas as pd
    import pandera.pandas as pandera

    def check(code: str, passes: Any) -> pandera.Check:
        return pandera.Check(passes, name=code, ignore_na=True)

    required = {"ticket_id", *table.required}
    types = {
        "VARCHAR": pa.string(),
        "TIMESTAMP": pa.timestamp("us"),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
    }
    columns = {}
    for column in TICKETS:
        checks = []
        if column.sql_type == "VARCHAR" and column.name not in ("messages", "source"):
            checks.append(check(TOO_LONG, lambda values: values.str.len() <= table.max_chars))
        if column.sql_type == "TIMESTAMP":
            checks.append(check(TIME, lambda values: (values >= EARLIEST) & (values < LATEST)))
        if column.name == "category" and table.categories:
            checks.append(check(CATEGORY, lambda values: values.isin(table.categories)))
        if column.name == "priority" and table.priorities:
            checks.append(check(PRIORITY, lambda values: values.isin(table.priorities)))
        columns[column.name] = pandera.Column(
            pd.ArrowDtype(types[column.sql_type]), checks, nullable=column.name not in required
        )
    return pandera.DataFrameSchema(columns, strict=True, name="ticket")
