"""Run a user's function over the tickets, batch by batch: rows it leaves out are dropped under the step's name.

The function runs in this process with all its rights. It is trusted like pipelines.yaml, and therefore only taken from
that file's folder: `steps.clean:keep` is `steps/clean.py` or `steps/clean/__init__.py` in it, or an error, whatever is
installed. For each run of a step, modules of the folder are imported from source and removed afterwards, so the code
that runs is the code that was fingerprinted.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import TicketTable
from schemas.curation_steps import PythonStep
from schemas.errors import ConfigError, DataError
from tasks.curate.drop import write_step
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import TICKETS_ARROW, read_batches, read_rows
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.tickets.row_fault import find_faulty

RAISED = "TG0259"
"""The function raised."""
BATCH_ROWS = 8_192
"""Maximum rows of a batch. The function must not depend on which rows share a batch."""
_OURS = frozenset({"flows", "schemas", "tasks"})
"""Packages of tunegate: never imported a second time, even if pipelines.yaml is in its checkout."""


@curation_step(
    PythonStep,
    reads=lambda step, root: {"source": fingerprint_python(step, root)},
    check=lambda step, root, _where, _tables: fingerprint_python(step, root),
)
@as_step("python", libraries=("duckdb", "pyarrow"), context=("root",))
def run_python(
    out: Path, *, tickets: TicketTable, step: PythonStep, root: Path, limit: FaultLimit | None = None
) -> TicketTable:
    """Keep the rows that the function returns, as it returns them.

    It is called with `pyarrow.RecordBatch`es of at most 8,192 tickets in the order of ticket_id, and returns a
    RecordBatch or Table with the same columns and types, each ticket of the batch at most once, in any order.
    Tickets on which it raises are quarantined: it is called again with fewer tickets until they are found.
    Notes: `dropped_<name>`, `changed_rows` (rows kept with another value in some column).

    Args:
        root: Folder of pipelines.yaml, the only one that the module is taken from.

    Raises:
        ConfigError: TG0128, there is no such function in the folder, or its module cannot be imported.
        DataError: TG0259, the function raised on every ticket, or only on several together; TG0220, on more than
            `limit` allows; TG0260, it returned something else, unknown tickets, or a ticket twice.
    """
    return keep_sound_rows(
        lambda rows, folder: _run_python(rows, step, root, folder),
        tickets,
        step=step.name,
        out=out,
        codes=(RAISED,),
        limit=limit,
        search=lambda rows: _faulty_rows(rows.tickets, step, root),
    )


def _run_python(tickets: TicketTable, step: PythonStep, root: Path, out: Path) -> TicketTable:
    where = _where(step)
    table = read_rows(tickets.tickets)
    kept: list[pa.Table] = [TICKETS_ARROW.empty_table()]
    n_changed = 0
    with entry_point(step.entry_point, root=root, where=where) as function:
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            returned = _call(function, batch, where=where, root=root)
            n_changed += _changed(batch, returned)
            kept.append(returned)
    result = pa.concat_tables(kept)
    gone = pc.invert(pc.is_in(table["ticket_id"], value_set=result["ticket_id"].combine_chunks()))
    places = table.select(["ticket_id", "source", "source_line"]).filter(gone)
    removed = places
    for name, value in (("outcome", "dropped"), ("code", step.name), ("reason", "the step's function leaves it out")):
        removed = removed.append_column(name, pa.repeat(pa.scalar(value), places.num_rows))
    return write_step(result, removed, out=out, notes={"changed_rows": n_changed}, possible=(step.name,))


def fingerprint_python(step: PythonStep, root: Path) -> str:
    """Return the sha256 (hex) over the source of the step's module and of every module of the folder that it imports.

    Imports are read from the source, including those inside functions. Data files that the code opens, and modules
    whose names are computed at run time, are not included.

    Raises:
        ConfigError: TG0128, the module is not in the folder, or is not Python.
    """
    digest = hashlib.sha256()
    for module, file in sorted(module_sources(step.entry_point, root=root, where=_where(step)).items()):
        data = file.read_bytes()
        digest.update(f"{module} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _where(step: PythonStep) -> str:
    return f"curate.python.{step.name}: {step.entry_point}"


def _faulty_rows(path: Path, step: PythonStep, root: Path) -> Iterator[tuple[int, Exception]]:
    """The tickets on which the function raises."""
    where = _where(step)
    start = 0
    with entry_point(step.entry_point, root=root, where=where) as function:
        for group in read_batches(path):
            for batch in group.to_batches(max_chunksize=BATCH_ROWS):

                def work(low: int, high: int, batch: pa.RecordBatch = batch) -> None:
                    _call(function, batch.slice(low, high - low), where=where, root=root)

                for row, error in find_faulty(work, 0, batch.num_rows, (RAISED,)):
                    yield start + row, error
                start += batch.num_rows


def _call(function: Callable[[Any], Any], batch: pa.RecordBatch, *, where: str, root: Path) -> pa.Table:
    try:
        returned = function(batch)
    except (Exception, SystemExit) as error:
        # The message may quote a ticket, so it is only in the chained exception, which `--debug` shows.
        raise DataError(
            f"the function raised {type(error).__name__} at {_place(error, root)}",
            code="TG0259",
            where=where,
            hint="`tunegate --debug run ...` shows the traceback, which may quote tickets",
        ) from error
    if not isinstance(returned, pa.RecordBatch | pa.Table):
        raise _not_a_batch(f"the function returned {type(returned).__name__}", where)
    if isinstance(returned, pa.RecordBatch):
        returned = pa.Table.from_batches([returned])
    faults = _schema_faults(returned.schema, batch.schema)
    if faults:
        raise _not_a_batch(f"the function changed the columns: {'; '.join(faults)}", where)
    returned = returned.select(batch.schema.names)
    for field in batch.schema:
        if not field.nullable and returned[field.name].null_count:
            raise _not_a_batch(f"the function returned nulls in {field.name}, which allows none", where)
    _check_ids(returned["ticket_id"], batch["ticket_id"], where)
    return returned.cast(batch.schema)


def _schema_faults(got: pa.Schema, wanted: pa.Schema) -> list[str]:
    faults = [f"{name} is missing" for name in wanted.names if name not in got.names]
    faults += [f"{name} is new" for name in dict.fromkeys(got.names) if name not in wanted.names]
    faults += [f"{name} appears twice" for name in wanted.names if got.names.count(name) > 1]
    return faults or [
        f"{field.name} is {got.field(field.name).type}, must be {field.type}"
        for field in wanted
        if got.field(field.name).type != field.type
    ]


def _check_ids(got: pa.ChunkedArray, given: pa.Array, where: str) -> None:
    n_new = pc.sum(pc.invert(pc.is_in(got, value_set=given)), min_count=0).as_py()
    n_twice = len(got) - pc.count_distinct(got).as_py()
    faults = [(n_new, "not in its batch"), (n_twice, "returned already")]
    messages = [f"{number} {what}" for number, what in faults if number]
    if messages:
        raise DataError(
            f"the function returned tickets that were {', '.join(messages)}",
            code="TG0260",
            where=where,
            hint="return each ticket of the batch at most once, with its own ticket_id",
        )


def _changed(before: pa.RecordBatch, after: pa.Table) -> int:
    """Count the rows that were returned with another value."""
    places = pc.index_in(after["ticket_id"], value_set=before["ticket_id"])
    same_rows = pa.Table.from_batches([before]).take(places)
    differs = pa.chunked_array([pa.repeat(pa.scalar(False), after.num_rows)])
    for name in before.schema.names:
        one, two = same_rows[name], after[name]
        unequal = pc.fill_null(pc.not_equal(one, two), pc.xor(pc.is_null(one), pc.is_null(two)))
        differs = pc.or_(differs, unequal)
    return int(pc.sum(differs, min_count=0).as_py())


def _not_a_batch(message: str, where: str) -> DataError:
    return DataError(
        message,
        code="TG0260",
        where=where,
        hint="return a pyarrow RecordBatch or Table with the columns of the given one; `.cast(batch.schema)` helps",
    )


def _place(error: BaseException, root: Path) -> str:
    """Return `file:line` of the innermost frame in the user's folder, or just the file's name outside it."""
    frames = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    inside = [
        (file.relative_to(root.resolve()), line)
        for file, line in zip(frames, lines, strict=True)
        if file.is_relative_to(root.resolve()) and file != Path(__file__).resolve()
    ]
    file, line = inside[-1] if inside else (Path(frames[-1].name), lines[-1])
    return f"{file}:{line}"


@contextmanager
def entry_point(name: str, *, root: Path, where: str) -> Iterator[Callable[[Any], Any]]:
    """Import the function `package.module:function` for the duration of the block.

    Inside the block the folder is first on `sys.path`, as for `python script.py` in it, so that imports inside the
    function work too; afterwards `sys.path` and `sys.modules` are restored.

    Raises:
        ConfigError: TG0128, there is no such module or function in the folder, or importing it fails.
    """
    module_name, _, function_name = name.partition(":")
    sources = module_sources(name, root=root, where=where)
    own = {found.partition(".")[0] for found in sources} - _OURS - sys.stdlib_module_names
    before = (list(sys.path), sys.dont_write_bytecode)
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] in own}
    sys.path.insert(0, str(root.resolve()))
    sys.dont_write_bytecode = True  # a stale cache next to the file could run instead of it
    importlib.invalidate_caches()
    try:
        yield _function(module_name, function_name, sources[module_name], where)
    finally:
        sys.path[:], sys.dont_write_bytecode = before
        for key in [key for key in sys.modules if key.partition(".")[0] in own]:
            del sys.modules[key]
        sys.modules.update(hidden)


def module_sources(name: str, *, root: Path, where: str) -> dict[str, Path]:
    """Return dotted name -> file of the module, its parent packages, and every module of the folder that these import.

    Raises:
        ConfigError: TG0128, the module is not in the folder, or a file is not Python.
    """
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    if top in _OURS or top in sys.stdlib_module_names:
        raise _unusable(f"`{top}` is taken: Python or tunegate itself has a module of that name", where)
    found: dict[str, Path] = {}
    waiting = list(_files_of(module, root))
    if module not in dict(waiting):
        path = module.replace(".", "/")
        raise _unusable(f"there is no {path}.py in the folder of pipelines.yaml", where)
    while waiting:
        dotted, file = waiting.pop()
        if dotted in found:
            continue
        found[dotted] = file
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
            raise _unusable(f"{file.relative_to(root)}{line} cannot be read: {type(error).__name__}", where) from error
        package = dotted if file.name == "__init__.py" else dotted.rpartition(".")[0]
        for imported in _imported(tree, package):
            waiting.extend(_files_of(imported, root))
    return found


def _files_of(dotted: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the module of this name in the folder and its parent packages, if they exist."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        return
    for length in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:length])
        # A package wins over a module of the same name, as in Python's own import.
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                yield ".".join(parts[:length]), file
                break


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            # Each name may be a submodule; `_files_of` finds out.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _function(module_name: str, function_name: str, file: Path, where: str) -> Callable[[Any], Any]:
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _unusable(f"importing {module_name} raised {type(error).__name__}", where) from error
    if module.__file__ is None or Path(module.__file__).resolve() != file.resolve():
        raise _unusable(f"Python finds another {module_name}, outside the folder of pipelines.yaml", where)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise _unusable(f"{module_name} has no function {function_name}", where)
    return function  # type: ignore[no-any-return]


def _unusable(message: str, where: str) -> ConfigError:
    return ConfigError(
        message,
        code="TG0128",
        where=where,
        hint="`steps.clean:keep` is the function `keep` in `steps/clean.py` next to pipelines.yaml",
    )
