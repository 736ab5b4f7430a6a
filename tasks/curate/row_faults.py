"""An exception on one row quarantines that row, not the run.

A step processes its whole table at once and knows nothing of this. Only if it raises are the faulty rows searched for,
by running the step on smaller and smaller slices; then it runs once more without them. So valid tables cost nothing
extra, and the other rows come out as if the faulty ones had never been there.

Faults that no row can cause still end the run: a full disk, memory, a missing library, a service, a wrong configuration
(`tasks/tickets/row_fault.py`).
"""

import math
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import DatasetRef, EvalSet, RowCounts, Splits, TicketTable
from schemas.errors import ConfigError, DataError, SecurityError
from tasks.curate.rows import (
    count_rows,
    read_batches,
    read_columns,
    read_rows,
    removed_table,
    write_ordered_tickets,
    write_removed,
    write_tickets,
)
from tasks.curate.table_cache import take_cached
from tasks.tickets.row_fault import find_faulty, is_row_fault, raised_by, row_fault

Rows = TicketTable | Splits
Made = DatasetRef | EvalSet
"""What is made from curated rows; it lists the rows from which nothing can be made."""
G = TypeVar("G", TicketTable, Splits)
R = TypeVar("R", TicketTable, Splits)
Entry = dict[str, Any]
"""A row for `removed.parquet`."""

N_TRIED = 64
"""Rows spread over the table that are tried alone. If every one raises, the step is at fault and not its rows."""
_TOP = 3
_PLACE = ("ticket_id", "source", "source_line")


@dataclass(frozen=True)
class FaultLimit:
    """`schema.fail_above` over all steps: the fraction of the rows read that may be quarantined as faulty."""

    fail_above: float
    stages: tuple[Rows, ...]
    """Results of the steps so far; the first is what was read."""
    made: tuple[Made, ...] = ()
    """What was made from these. A row that is faulty in several of them counts once."""

    def n_left(self) -> int:
        """How many more rows may be faulty."""
        n_faulty = sum(map(count_faulty, self.stages)) + len(_each_once(self.made))
        return math.floor(self.fail_above * self.stages[0].rows.n_in) - n_faulty

    def check(self, stage: Rows | Made | None = None, more: Sequence[Entry] = ()) -> None:
        """Raise if more rows are faulty than the limit allows.

        Args:
            stage: The result of one more step.
            more: Further removed rows, of a step that has not finished.

        Raises:
            DataError: TG0220, too many are; names the most common faults and where each occurs first.
        """
        n_read = self.stages[0].rows.n_in
        stages = [*self.stages, *([stage] if isinstance(stage, TicketTable | Splits) else [])]
        made = [*self.made, *([stage] if isinstance(stage, DatasetRef | EvalSet) else [])]
        singly = _each_once(made, more)
        n_faulty = sum(map(count_faulty, stages)) + len(singly)
        if n_faulty <= self.fail_above * n_read:
            return
        files = [each.root / "removed.parquet" for each in stages]
        raise DataError(
            f"{n_faulty:,} of {n_read:,} rows read are quarantined ({n_faulty / n_read:.1%}), over "
            f"fail_above {self.fail_above:.1%}: {top_codes(files, singly, keep=_is_faulty)}",
            code="TG0220",
            where=str(files[-1] if stage is None else stage.root / "removed.parquet"),
            hint="correct the source or `columns`; raise `schema.fail_above` only if you can do without these rows",
        )


def count_faulty(stage: Rows | Made) -> int:
    """Rows that a step quarantined because they could not be read, are not valid, or raised.

    Rows that a rule quarantined as suspect, such as `planted_trigger`, do not count: the source is not at fault there.
    """
    if not _n_removed(stage):
        return 0
    rows = read_columns(stage.root / "removed.parquet", ("outcome", "code"))
    faulty = pc.and_(pc.equal(rows["outcome"], "quarantined"), pc.starts_with(rows["code"], "TG"))
    return int(pc.sum(faulty, min_count=0).as_py())


def _n_removed(stage: Rows | Made) -> int:
    """Removed rows, the faulty ones among them; if there are none, no file has to be read."""
    match stage:
        case DatasetRef():
            return stage.n_dropped
        case EvalSet():
            return stage.n_quarantined
    return stage.rows.n_quarantined


def _each_once(made: Sequence[Made], more: Sequence[Entry] = ()) -> list[Entry]:
    """The faulty rows of these, each once: token ids are made from the same rows for every training tried."""
    listed = [row for each in made if _n_removed(each) for row in read_rows(each.root / "removed.parquet").to_pylist()]
    return list({tuple(row[name] for name in _PLACE): row for row in [*listed, *more] if _is_faulty(row)}.values())


def top_codes(
    files: Sequence[Path], more: Sequence[Entry] = (), *, keep: Callable[[Mapping[str, Any]], bool] | None = None
) -> str:
    """The most common faults of removed rows, each with its count, reason and first place."""
    faulty = [*(row for file in files for row in read_rows(file).to_pylist()), *more]
    if keep is not None:
        faulty = list(filter(keep, faulty))
    faulty.sort(key=lambda row: (row["source"], row["source_line"]))
    counts = Counter((row["code"], row.get("field")) for row in faulty)
    common = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0][0], entry[0][1] or ""))[:_TOP]
    parts = []
    for fault, n_rows in common:
        first = next(row for row in faulty if (row["code"], row.get("field")) == fault)
        place = f"{first['source']}:{first['source_line']}"
        parts.append(f"{fault[0]} {n_rows:,} times, first at {place} ({first['reason']})")
    return "; ".join(parts) or "there were none"


def keep_sound_rows(
    run: Callable[[G, Path], R],
    given: G,
    *,
    step: str,
    out: Path,
    codes: Collection[str] = (),
    limit: FaultLimit | None = None,
    probe: Callable[[G, Path], object] | None = None,
    search: Callable[[G], Iterator[tuple[int, Exception]]] | None = None,
) -> R:
    """Run the step; rows on which it raises are quarantined, with the exception's type as the reason.

    The result counts them as `n_quarantined` and in the note `row_faults`, and lists them in `removed.parquet`.

    Args:
        run: The step; called with the rows and an empty directory, possibly several times.
        given: The rows.
        step: Its name, for the reason.
        out: The empty directory to write to.
        codes: As for `is_row_fault`.
        limit: Ends the search, and the run, when too many rows are faulty.
        probe: The step to try on few rows; None is `run`.
        search: Yields the rows that raise, by number and in order; for a step that finds them more cheaply than by
            running on slices. Rows that it misses are found by running on slices.

    Raises:
        DataError: TG0220, more rows are faulty than `limit` allows.
        Exception: What the step raised, where no single row is at fault or every row is.
    """
    try:
        return run(given, out)
    except Exception as error:
        if not is_row_fault(error, codes):
            raise
        traceback.clear_frames(error.__traceback__)  # the frames hold the rows
        first = error
    for path in out.iterdir():
        _remove(path)
    with TemporaryDirectory(prefix="scratch-", dir=out) as scratch:
        found = _Search(probe or run, given, step=step, scratch=Path(scratch), codes=codes, limit=limit)
        faulty = found.find(first, search and search(given))
        if not faulty:
            raise first
        result = run(found.sound(faulty), out)
    return _with_quarantined(result, faulty, out)


def _is_faulty(row: Mapping[str, Any]) -> bool:
    return bool(row["outcome"] == "quarantined" and row["code"].startswith("TG"))


def _remove(path: Path) -> None:
    """Remove a file or folder, and its tables from the cache (`tasks/curate/table_cache.py`), where none is read."""
    for table in path.rglob("*.parquet") if path.is_dir() else (path,):
        take_cached(table)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Search:
    """Finds the rows of a step's input on which the step raises, and writes the input without them."""

    def __init__(
        self,
        run: Callable[[G, Path], object],
        given: G,
        *,
        step: str,
        scratch: Path,
        codes: Collection[str],
        limit: FaultLimit | None,
    ) -> None:
        self._run: Callable[[Any, Path], object] = run
        self._given: Rows = given
        self._step = step
        self._scratch = scratch
        self._codes = codes
        self._limit = limit
        self._n_left = None if limit is None else limit.n_left()
        # Held-out rows first: rows of train are compared with them, so they must be valid by then.
        self._parts: tuple[str, ...] = ("test", "train", "validation") if isinstance(given, Splits) else ("tickets",)
        self._found: dict[str, set[int]] = {part: set() for part in self._parts}

    def find(self, first: Exception, known: Iterator[tuple[int, Exception]] | None) -> list[Entry]:
        """The faulty rows as entries of the quarantine.

        Args:
            first: What the step raised.
            known: The faulty rows, where the step finds them itself.

        Raises:
            DataError: TG0220, more than are allowed.
            Exception: `first`, if every row raises.
        """
        if known is not None and (entries := self._known(first, known)):
            return entries
        entries = []
        tried = False
        n_rows = 0
        for part in self._parts:
            for start, table in self._groups(part):
                n_rows += table.num_rows

                def work(low: int, high: int, part: str = part, table: pa.Table = table) -> None:
                    self._try(part, table.slice(low, high - low))

                is_step_fault = raised_by(work, 0, 0, self._codes) is not None
                if is_step_fault or (not tried and self._raises_everywhere(work, table.num_rows)):
                    raise first
                tried = tried or table.num_rows > 0
                for row, error in find_faulty(work, 0, table.num_rows, self._codes):
                    self._found[part].add(start + row)
                    entries.append(self._entry(table, row, error))
                    self._check(entries)
            if part == "test":
                self._write("test", self._scratch / "test")
        if len(entries) == n_rows:
            raise first
        return entries

    def _known(self, first: Exception, known: Iterator[tuple[int, Exception]]) -> list[Entry]:
        (part,) = self._parts
        _, table = next(self._groups(part))
        if self._raises_everywhere(lambda low, high: self._try(part, table.slice(low, high - low)), table.num_rows):
            raise first
        places = read_columns(self._given.root / f"{part}.parquet", _PLACE)
        entries: list[Entry] = []
        for row, error in known:
            self._found[part].add(row)
            entries.append(self._entry(places, row, error))
            self._check(entries)
        if len(entries) == places.num_rows:
            raise first
        return entries

    def _check(self, entries: Sequence[Entry]) -> None:
        if self._limit is not None and self._n_left is not None and len(entries) > self._n_left:
            self._limit.check(more=entries)

    def sound(self, faulty: Sequence[Entry]) -> Any:
        """The step's input without these rows, as if they had been quarantined before."""
        folder = self._folder("sound")
        for part in self._parts:
            self._write(part, folder)
        write_removed(pa.concat_tables([read_rows(self._given.removed), removed_table(faulty)]), folder)
        if isinstance(self._given, Splits):
            if self._given.assignments.exists():
                shutil.copyfile(self._given.assignments, folder / self._given.assignments.name)
            return self._splits(self._given, folder)
        rows = self._given.rows
        counted = {"n_out": rows.n_out - len(faulty), "n_quarantined": rows.n_quarantined + len(faulty)}
        return self._given.model_copy(
            update={"root": folder, "digest": "", "rows": RowCounts(**rows.model_dump() | counted)}
        )

    def _groups(self, part: str) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for table in read_batches(self._given.root / f"{part}.parquet"):
            yield start, table
            start += table.num_rows

    def _raises_everywhere(self, work: Callable[[int, int], object], n_rows: int) -> bool:
        """True if every one of the rows tried across the range raises: then no row is at fault."""
        if n_rows < N_TRIED or raised_by(work, 0, n_rows, self._codes) is None:
            return False
        rows = (number * (n_rows - 1) // (N_TRIED - 1) for number in range(N_TRIED))
        return all(raised_by(work, row, row + 1, self._codes) is not None for row in rows)

    def _try(self, part: str, table: pa.Table) -> None:
        """Run the step on these rows."""
        folder = self._folder("probe")
        out = self._folder("probed")
        try:
            self._run(self._of(part, table, folder), out)
        except (ConfigError, DataError, SecurityError) as error:
            if error.code in self._codes:
                raise
            # Errors that only a small slice causes, such as that no row is left.

    def _of(self, part: str, table: pa.Table, folder: Path) -> Rows:
        write_removed([], folder)
        for name in self._parts:
            if name == "test" and part != "test":
                (folder / "test.parquet").hardlink_to(self._scratch / "test" / "test.parquet")
            else:
                write_tickets(table if name == part else table.slice(0, 0), folder, name=f"{name}.parquet")
        if isinstance(self._given, Splits):
            return self._splits(self._given, folder)
        rows = RowCounts(n_in=table.num_rows, n_out=table.num_rows)
        return self._given.model_copy(update={"root": folder, "digest": "", "rows": rows})

    def _splits(self, given: Splits, folder: Path) -> Splits:
        counts = {f"n_{part}": count_rows(folder / f"{part}.parquet") for part in self._parts}
        n_rows = sum(counts.values())
        rows = RowCounts(n_in=n_rows, n_out=n_rows)
        return given.model_copy(update={"root": folder, "digest": "", "rows": rows, **counts})

    def _write(self, part: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        gone = self._found[part]

        def kept() -> Iterator[pa.Table]:
            for start, table in self._groups(part):
                stays = [start + row not in gone for row in range(table.num_rows)]
                yield table.filter(pa.array(stays, pa.bool_()))

        write_ordered_tickets(kept(), folder, name=f"{part}.parquet")

    def _entry(self, table: pa.Table, row: int, error: Exception) -> Entry:
        code, reason = row_fault(error, self._step)
        place = table.select(list(_PLACE)).slice(row, 1).to_pylist()[0]
        return {**place, "outcome": "quarantined", "code": code, "reason": reason}

    def _folder(self, name: str) -> Path:
        """An empty folder."""
        folder = self._scratch / name
        if folder.exists():
            _remove(folder)
        folder.mkdir()
        return folder


def _with_quarantined(result: R, faulty: Sequence[Entry], out: Path) -> R:
    write_removed(pa.concat_tables([read_rows(result.removed), removed_table(faulty)]), out)
    counts = result.rows.model_dump()
    counts["n_in"] += len(faulty)
    counts["n_quarantined"] += len(faulty)
    notes = {**result.notes, "row_faults": len(faulty)}
    return result.model_copy(update={"rows": RowCounts(**counts), "notes": notes})
