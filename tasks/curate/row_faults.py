"""An exception on one row quarantines that row, not the run.

A step works on its whole table as fast as it can and knows nothing of this. Only when it raises are the rows at fault
searched for, by running the step on ever smaller slices; then it runs once more without them. So nothing is paid while
all rows are sound, and the other rows come out as if the faulty ones had never been there.

What belongs to no row still ends the run: a full disk, memory, a missing library, a service, a wrong configuration.
Used by every step that looks into rows; readers, which have no table yet, use `is_row_fault` and `find_faulty`.
"""

from __future__ import annotations

import math
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.artifacts import DatasetRef, EvalSet, RowCounts, Splits, TicketTable
from schemas.errors import ConfigError, DataError, SecurityError, TunegateError

if TYPE_CHECKING:
    import pyarrow as pa

Rows = TicketTable | Splits
Made = DatasetRef | EvalSet
"""What is made of the rows that curation leaves; it lists those of which nothing can be made."""
G = TypeVar("G", TicketTable, Splits)
R = TypeVar("R", TicketTable, Splits)
Entry = dict[str, Any]
"""A row for `removed.parquet`."""

CODE = "TG0218"
N_TRIED = 64
"""Rows from all over the table. When each of them raises alone, the step is at fault and not its rows."""
_TOP = 3
_PLACE = ("ticket_id", "source", "source_line")


def is_row_fault(error: Exception, codes: Collection[str] = ()) -> bool:
    """Whether a row can have caused the error, as against the machine, the installation or the configuration.

    Args:
        codes: Errors of ours that speak of a row: the function of a `python` step raised, say.
    """
    if isinstance(error, TunegateError):
        return error.code in codes and not any(map(_is_of_the_machine, _causes(error)))
    return not any(map(_is_of_the_machine, _causes(error)))


def row_fault(error: Exception, step: str) -> tuple[str, str]:
    """Code and reason for the quarantine: never the words of an exception, which may quote the row."""
    if isinstance(error, TunegateError):  # ours hold no text of a ticket
        return error.code, f"{error.where}: {error.message}" if error.where else error.message
    return CODE, f"{type(error).__name__} in step {step}."


def find_faulty(
    work: Callable[[int, int], object], start: int, stop: int, codes: Collection[str] = ()
) -> Iterator[tuple[int, Exception]]:
    """The rows of a range on which `work` raises although they are alone, in their order, each with its exception.

    Costs about log2(n) calls for each of them, and one call for a range without any.

    Args:
        work: Called with the begin and end of a range.
        codes: As for `is_row_fault`.

    Raises:
        Exception: what `work` raised, where no row can be the cause.
    """
    error = _raised(work, start, stop, codes)
    if error is None or start == stop:
        return
    if stop - start == 1:
        yield start, error
        return
    middle = (start + stop) // 2
    yield from find_faulty(work, start, middle, codes)
    yield from find_faulty(work, middle, stop, codes)


@dataclass(frozen=True)
class FaultLimit:
    """`schema.fail_above` on the way through the steps: which share of the rows read may be quarantined as faulty."""

    fail_above: float
    stages: tuple[Rows, ...]
    """What the steps so far have left; the first is what was read."""
    made: tuple[Made, ...] = ()
    """What was made of these. A row that is faulty in several of them counts once."""

    def n_left(self) -> int:
        """How many more rows may be faulty."""
        n_faulty = sum(map(count_faulty, self.stages)) + len(_each_once(self.made))
        return math.floor(self.fail_above * self.stages[0].rows.n_in) - n_faulty

    def hold(self, stage: Rows | Made | None = None, more: Sequence[Entry] = ()) -> None:
        """Do nothing while the share is within the limit.

        Args:
            stage: What one more step has left.
            more: Further removed rows, of a step that is not done.

        Raises:
            DataError: TG0220, it is not; names the commonest faults and where each is first.
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
            hint="correct the source or `columns`, or raise `schema.fail_above` if these rows may go",
        )


def count_faulty(stage: Rows | Made) -> int:
    """Rows that a step quarantined because they could not be read, are not valid, or raised.

    Not those that a rule set aside as suspect, such as `planted_trigger`: nothing is wrong with the source there.
    """
    if not _n_removed(stage):
        return 0
    import pyarrow.compute as pc

    from tasks.curate.rows import read_columns

    rows = read_columns(stage.root / "removed.parquet", ("outcome", "code"))
    faulty = pc.and_(pc.equal(rows["outcome"], "quarantined"), pc.starts_with(rows["code"], "TG"))
    return int(pc.sum(faulty, min_count=0).as_py())


def _n_removed(stage: Rows | Made) -> int:
    """Rows among which the faulty ones are; no file has to be read where there are none."""
    match stage:
        case DatasetRef():
            return stage.n_dropped
        case EvalSet():
            return stage.n_quarantined
    return stage.rows.n_quarantined


def _each_once(made: Sequence[Made], more: Sequence[Entry] = ()) -> list[Entry]:
    """The faulty rows of these, each once: token ids are made for every training that is tried, of the same rows."""
    from tasks.curate.rows import read_rows

    listed = [row for each in made if _n_removed(each) for row in read_rows(each.root / "removed.parquet").to_pylist()]
    return list({tuple(row[name] for name in _PLACE): row for row in [*listed, *more] if _is_faulty(row)}.values())


def top_codes(
    files: Sequence[Path], more: Sequence[Entry] = (), *, keep: Callable[[Mapping[str, Any]], bool] | None = None
) -> str:
    """The commonest faults of removed rows, each with its count, reason and first place."""
    from tasks.curate.rows import read_rows

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
    return "; ".join(parts) or "there was none"


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
        run: The step: called with the rows and an empty directory, perhaps several times.
        given: The rows.
        step: Its name, for the reason.
        out: The empty directory to write to.
        codes: As for `is_row_fault`.
        limit: Ends the search, and the run, when more rows are faulty than may be.
        probe: The step as it is tried on few rows; None: as it is run.
        search: Gives the rows that raise, by number and in their order: for a step that finds them for less than by
            being run on slices, each of which costs it some SQL and files. What it does not find is searched for so.

    Raises:
        DataError: TG0220, more rows are faulty than `limit` allows.
        Exception: what the step raised, where no single row is to blame or every row would be.
    """
    try:
        return run(given, out)
    except Exception as error:
        if not is_row_fault(error, codes):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the rows
        first = error
    for path in out.iterdir():
        _remove(path)
    with TemporaryDirectory(prefix="aside-", dir=out) as aside:
        found = _Search(probe or run, given, step=step, aside=Path(aside), codes=codes, limit=limit)
        faulty = found.find(first, search and search(given))
        if not faulty:
            raise first
        result = run(found.sound(faulty), out)
    return _with_quarantined(result, faulty, out)


def _raised(work: Callable[[int, int], object], start: int, stop: int, codes: Collection[str]) -> Exception | None:
    try:
        work(start, stop)
    except Exception as error:
        if not is_row_fault(error, codes):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the rows
        return error
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_of_the_machine(error: BaseException) -> bool:
    import duckdb
    import pyarrow as pa

    if isinstance(error, MemoryError | OSError | ImportError):
        return True
    if isinstance(error, duckdb.Error):
        # Conversion, overflow, invalid input and the like come from a value; these do not.
        machine = duckdb.OperationalError | duckdb.InternalError | duckdb.FatalException | duckdb.InterruptException
        return isinstance(error, machine)
    return isinstance(error, pa.ArrowCancelled) or type(error).__name__ == "OutOfMemoryError"  # torch's


def _is_faulty(row: Mapping[str, Any]) -> bool:
    return bool(row["outcome"] == "quarantined" and row["code"].startswith("TG"))


def _remove(path: Path) -> None:
    """Remove a file or folder, and the tables in it from memory (`tasks/curate/table_cache.py`): nobody reads them."""
    from tasks.curate.table_cache import take_cached

    for table in path.rglob("*.parquet") if path.is_dir() else (path,):
        take_cached(table)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Search:
    """Finds the rows of a step's input on which it raises, and writes that input without them."""

    def __init__(
        self,
        run: Callable[[G, Path], object],
        given: G,
        *,
        step: str,
        aside: Path,
        codes: Collection[str],
        limit: FaultLimit | None,
    ) -> None:
        self._run: Callable[[Any, Path], object] = run
        self._given: Rows = given
        self._step = step
        self._aside = aside
        self._codes = codes
        self._limit = limit
        self._n_left = None if limit is None else limit.n_left()
        # Held-out rows first: the rows of train are compared with them, so these must be sound by then.
        self._parts: tuple[str, ...] = ("test", "train", "validation") if isinstance(given, Splits) else ("tickets",)
        self._found: dict[str, set[int]] = {part: set() for part in self._parts}

    def find(self, first: Exception, known: Iterator[tuple[int, Exception]] | None) -> list[Entry]:
        """The faulty rows as they go into the quarantine.

        Args:
            first: What the step raised.
            known: The faulty rows, where the step finds them itself.

        Raises:
            DataError: TG0220, more than are allowed.
            Exception: `first`, when every row raises.
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

                is_of_the_step = _raised(work, 0, 0, self._codes) is not None
                if is_of_the_step or (not tried and self._raises_everywhere(work, table.num_rows)):
                    raise first
                tried = tried or table.num_rows > 0
                for row, error in find_faulty(work, 0, table.num_rows, self._codes):
                    self._found[part].add(start + row)
                    entries.append(self._entry(table, row, error))
                    self._hold(entries)
            if part == "test":
                self._write("test", self._aside / "test")
        if len(entries) == n_rows:
            raise first
        return entries

    def _known(self, first: Exception, known: Iterator[tuple[int, Exception]]) -> list[Entry]:
        from tasks.curate.rows import read_columns

        (part,) = self._parts
        _, table = next(self._groups(part))
        if self._raises_everywhere(lambda low, high: self._try(part, table.slice(low, high - low)), table.num_rows):
            raise first
        places = read_columns(self._given.root / f"{part}.parquet", _PLACE)
        entries: list[Entry] = []
        for row, error in known:
            self._found[part].add(row)
            entries.append(self._entry(places, row, error))
            self._hold(entries)
        if len(entries) == places.num_rows:
            raise first
        return entries

    def _hold(self, entries: Sequence[Entry]) -> None:
        if self._limit is not None and self._n_left is not None and len(entries) > self._n_left:
            self._limit.hold(more=entries)

    def sound(self, faulty: Sequence[Entry]) -> Any:
        """What the step was given, without these rows: as though they had been quarantined before."""
        import pyarrow as pa

        from tasks.curate.rows import read_rows, removed_table, write_removed

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
        from tasks.curate.rows import read_batches

        start = 0
        for table in read_batches(self._given.root / f"{part}.parquet"):
            yield start, table
            start += table.num_rows

    def _raises_everywhere(self, work: Callable[[int, int], object], n_rows: int) -> bool:
        """Whether rows from all over the range raise, one and all: that is no fault of a row."""
        if n_rows < N_TRIED or _raised(work, 0, n_rows, self._codes) is None:
            return False
        rows = (number * (n_rows - 1) // (N_TRIED - 1) for number in range(N_TRIED))
        return all(_raised(work, row, row + 1, self._codes) is not None for row in rows)

    def _try(self, part: str, table: pa.Table) -> None:
        """Run the step on these rows."""
        folder = self._folder("probe")
        out = self._folder("probed")
        try:
            self._run(self._of(part, table, folder), out)
        except (ConfigError, DataError, SecurityError) as error:
            if error.code in self._codes:
                raise
            # Of a few rows a step may say what it does not say of all: that none is left, say.

    def _of(self, part: str, table: pa.Table, folder: Path) -> Rows:
        from tasks.curate.rows import write_removed, write_tickets

        write_removed([], folder)
        for name in self._parts:
            if name == "test" and part != "test":
                (folder / "test.parquet").hardlink_to(self._aside / "test" / "test.parquet")
            else:
                write_tickets(table if name == part else table.slice(0, 0), folder, name=f"{name}.parquet")
        if isinstance(self._given, Splits):
            return self._splits(self._given, folder)
        rows = RowCounts(n_in=table.num_rows, n_out=table.num_rows)
        return self._given.model_copy(update={"root": folder, "digest": "", "rows": rows})

    def _splits(self, given: Splits, folder: Path) -> Splits:
        from tasks.curate.rows import count_rows

        counts = {f"n_{part}": count_rows(folder / f"{part}.parquet") for part in self._parts}
        n_rows = sum(counts.values())
        rows = RowCounts(n_in=n_rows, n_out=n_rows)
        return given.model_copy(update={"root": folder, "digest": "", "rows": rows, **counts})

    def _write(self, part: str, folder: Path) -> None:
        import pyarrow as pa

        from tasks.curate.rows import write_ordered_tickets

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
        """An empty one."""
        folder = self._aside / name
        if folder.exists():
            _remove(folder)
        folder.mkdir()
        return folder


def _with_quarantined(result: R, faulty: Sequence[Entry], out: Path) -> R:
    import pyarrow as pa

    from tasks.curate.rows import read_rows, removed_table, write_removed

    write_removed(pa.concat_tables([read_rows(result.removed), removed_table(faulty)]), out)
    counts = result.rows.model_dump()
    counts["n_in"] += len(faulty)
    counts["n_quarantined"] += len(faulty)
    notes = {**result.notes, "row_faults": len(faulty)}
    return result.model_copy(update={"rows": RowCounts(**counts), "notes": notes})
