"""Check for train/test leakage: the gate's own check, whatever curation did.

Compares the encoded examples, which training really read, with the held-out items: by id, text, customer, thread and
time. Texts are compared as in decontamination (`tasks/curate/leaks.py`). Of a model that was trained elsewhere it reads
the files that are declared as its examples. `measured_checks.py` judges the counts.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import CheckEvidence, DatasetRef, EvalSet, Splits
from schemas.checks import ContaminationSpec
from schemas.curation import DecontaminateSpec
from schemas.errors import GateError
from schemas.source import FilesSource
from schemas.training import PromptSpec
from tasks.curate.extract import extract_tickets
from tasks.sources.registry import fingerprint_source, place_of
from tasks.step import as_step
from tasks.tickets.prompts import messages_for, parse_messages

if TYPE_CHECKING:
    from tasks.curate.leaks import LeakReport

REASONS = {
    "leak_unknown": "trained on, but not in the train split",
    "leak_item": "is a held-out item itself",
    "leak_exact": "has the words of a held-out question",
    "leak_near": "has nearly the words of a held-out question",
    "leak_quote": "quotes a held-out question",
    "leak_paraphrase": "shares several rare pieces with a held-out question",
    "leak_customer_id": "has the customer of a held-out item",
    "leak_thread_id": "is in the thread of a held-out item",
    "leak_time": "was not written before the cut, or has no time",
}
"""Code -> description, in the order of the checks; a ticket is listed under the first that applies."""
N_EXAMPLES = 5


@as_step("contamination", libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"))
def check_contamination(
    out: Path,
    *,
    dataset: DatasetRef,
    splits: Splits,
    items: EvalSet,
    spec: ContaminationSpec,
    decontaminate: DecontaminateSpec,
    planted_ids: tuple[str, ...] = (),
    calibration: EvalSet | None = None,
) -> CheckEvidence:
    """Write `evidence.parquet` (ticket_id, code, kept_id: the held-out ticket, score; no text) and count the tickets.

    Args:
        dataset: The training examples.
        splits: Has the texts of their tickets, and the columns that the split keeps apart.
        decontaminate: Lengths of n-grams and what counts as boilerplate; its thresholds are not used.
        planted_ids: Ids of examples that are not tickets.
        calibration: Tickets of `evaluate.abstain`, which are held out too: a certificate is worth nothing if the model
            learned them.

    Raises:
        GateError: TG0603, the encoded examples cannot be read, or their number is wrong.
    """
    trained = frozenset(_trained_ids(dataset)) - frozenset(planted_ids)
    held_out = _held_out(items, calibration)
    rows = _rows_of(splits, trained)
    found: dict[str, tuple[str, str | None, float]] = {}

    def note(ticket_id: str, code: str, kept_id: str | None = None, score: float = 1.0) -> None:
        found.setdefault(ticket_id, (code, kept_id, score))

    for name in trained & set(held_out["item_id"].to_pylist()):
        note(name, "leak_item", name)
    for name in trained - set(rows["ticket_id"].to_pylist()):
        note(name, "leak_unknown")
    # The same pool as in decontamination, since it decides how rare an n-gram is; untrained tickets are left out below.
    pool = [splits.train, splits.validation]
    with tempfile.TemporaryDirectory(prefix="tunegate-held-out-") as aside:
        report = _text_leaks(pool, _written(held_out, Path(aside)), spec, decontaminate)
    for leak in report.leaks:
        if leak.ticket_id in trained:
            note(leak.ticket_id, leak.code, leak.kept_id, leak.score)
    for column in splits.group_by if spec.same is None else spec.same:
        for name, kept in _shared(rows, held_out, column):
            note(name, f"leak_{column}", kept)
    for name in _late(rows, splits, spec):
        note(name, "leak_time")
    values = {"trained": float(len(trained)), "unprotected": float(report.n_unprotected)}
    return _evidence(out, found, items, values)


@as_step(
    "contamination", libraries=("datasets", "duckdb", "numba", "numpy", "orjson", "pyarrow", "scipy"),
    context=("root",),
)  # fmt: skip
def check_declared_examples(
    out: Path,
    *,
    trained_on: tuple[str, ...],
    splits: Splits,
    items: EvalSet,
    spec: ContaminationSpec,
    decontaminate: DecontaminateSpec,
    prompt: PromptSpec,
    root: Path,
    calibration: EvalSet | None = None,
) -> CheckEvidence:
    """The same of a model that was trained elsewhere, by the files that are said to be its examples.

    All questions of a conversation are compared, with the held-out questions and with the prompts made of them. Rows
    need no customer, thread or time; those that have them are compared by them. `unread` counts rows that could not be
    read. Without files only `unknown` is counted, 1.

    Args:
        trained_on: Paths or globs.
        prompt: How the pipeline asks: examples may have its words around a ticket.
        root: Folder of pipelines.yaml.
        calibration: As in `check_contamination`.

    Raises:
        DataError: TG0201 to TG0221, the files cannot be read (`tasks/curate/extract.py`).
    """
    if not trained_on:
        return _evidence(out, {}, items, {"unknown": 1.0})
    source = FilesSource(kind="files", paths=trained_on)
    held_out = _held_out(items, calibration)
    found: dict[str, tuple[str, str | None, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tunegate-trained-on-") as aside:
        extracted, pool = Path(aside) / "extracted", Path(aside) / "pool.parquet"
        extracted.mkdir()
        table = extract_tickets(
            extracted, source=source, fingerprint=fingerprint_source(source, root=root),
            place=place_of(source, root=root, landed=None),
        )  # fmt: skip
        rows = pq.read_table(table.tickets)
        pq.write_table(_every_question(rows), pool)
        ids = set(held_out["item_id"].to_pylist())
        for name in sorted(ids.intersection(rows["ticket_id"].to_pylist())):
            found.setdefault(name, ("leak_item", name, 1.0))
        n_unprotected = 0
        for questions in (_written(held_out, Path(aside)), *_as_asked(held_out, prompt, Path(aside))):
            report = _text_leaks([pool], questions, spec, decontaminate)
            n_unprotected = n_unprotected or report.n_unprotected
            for leak in report.leaks:
                found.setdefault(leak.ticket_id, (leak.code, leak.kept_id, leak.score))
    for column in splits.group_by if spec.same is None else spec.same:
        for name, kept in _shared(rows, held_out, column):
            found.setdefault(name, (f"leak_{column}", kept, 1.0))
    dated = rows.filter(pc.is_valid(rows["created_at"]))
    for name in _late(dated, splits, spec):
        found.setdefault(name, ("leak_time", None, 1.0))
    unread = float(table.rows.n_quarantined)
    values = {"trained": float(rows.num_rows), "unprotected": float(n_unprotected), "unread": unread, "declared": 1.0}
    return _evidence(out, found, items, values)


def _evidence(
    out: Path, found: dict[str, tuple[str, str | None, float]], items: EvalSet, values: dict[str, float]
) -> CheckEvidence:
    order = sorted(found)
    table = pa.table(
        {
            "ticket_id": pa.array(order, pa.string()),
            "code": pa.array([found[name][0] for name in order], pa.string()),
            "kept_id": pa.array([found[name][1] for name in order], pa.string()),
            "score": pa.array([found[name][2] for name in order], pa.float64()),
        }
    )
    pq.write_table(table, out / "evidence.parquet", compression="zstd")
    codes = Counter(code for code, _, _ in found.values())
    return CheckEvidence(
        root=out,
        check="contamination",
        n_items=items.n_items,
        values=values | {code: float(codes[code]) for code in REASONS},
        examples=tuple(order[:N_EXAMPLES]),
    )


def _held_out(items: EvalSet, calibration: EvalSet | None) -> pa.Table:
    """The gate's items, and the tickets that calibrate."""
    sets = [each for each in (items, calibration) if each is not None]
    return pa.concat_tables([pq.read_table(each.root / "items.parquet") for each in sets], promote_options="default")


def _written(table: pa.Table, aside: Path) -> Path:
    file = aside / "held_out.parquet"
    pq.write_table(table, file)
    return file


def _every_question(rows: pa.Table) -> pa.Table:
    """The question of each row, and of a conversation every earlier one, under the row's id."""
    names, subjects, bodies = (rows[name].to_pylist() for name in ("ticket_id", "subject", "body"))
    questions = list(zip(names, subjects, bodies, strict=True))
    for name, stored in zip(names, rows["messages"].to_pylist(), strict=True):
        turns = parse_messages(stored)[:-2] if stored else []
        questions += [(name, None, turn["content"]) for turn in turns if turn["role"] == "user"]
    return _questions(questions)


def _as_asked(held_out: pa.Table, prompt: PromptSpec, aside: Path) -> list[Path]:
    """The held-out questions as the prompt shows them; nothing if it adds no words of its own."""
    if prompt.user == "{body}" or prompt.shows_passages:
        return []
    asked = [messages_for(prompt, row)[-1]["content"] for row in held_out.to_pylist()]
    pairs, file = zip(held_out["item_id"].to_pylist(), asked, strict=True), aside / "asked.parquet"
    pq.write_table(_questions([(name, None, text) for name, text in pairs]), file)
    return [file]


def _questions(rows: Sequence[tuple[str, str | None, str | None]]) -> pa.Table:
    columns = zip(("ticket_id", "subject", "body"), zip(*rows, strict=True), strict=True)
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns})


def _trained_ids(dataset: DatasetRef) -> list[str]:
    """Ids in the Arrow files that training maps into memory."""
    ids: list[str] = []
    try:
        for path in sorted((dataset.root / "train").glob("*.arrow")):
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                for batch in stream:
                    ids += batch.column("ticket_id").to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise GateError(
            f"the encoded examples cannot be read ({type(error).__name__})", code="TG0603", where=str(dataset.root)
        ) from None
    if len(ids) != dataset.n_train:
        raise GateError(
            f"there are {len(ids)} encoded examples, but the training used {dataset.n_train}",
            code="TG0603",
            where=str(dataset.root),
        )
    return ids


def _rows_of(splits: Splits, trained: frozenset[str]) -> pa.Table:
    table = pq.read_table(splits.train, columns=["ticket_id", "customer_id", "thread_id", "created_at"])
    return table.filter(pc.is_in(table["ticket_id"], value_set=pa.array(sorted(trained), pa.string())))


def _text_leaks(
    pool: Sequence[Path], held_out: Path, spec: ContaminationSpec, decontaminate: DecontaminateSpec
) -> LeakReport:
    from tasks.curate.leaks import find_leaks

    limits = {
        "near_threshold": spec.near_threshold,
        "long_threshold": spec.quote_threshold,
        "short_threshold": spec.paraphrase_threshold,
    }
    return find_leaks(pool=pool, held_out=held_out, spec=decontaminate.model_copy(update=limits))


def _shared(rows: pa.Table, held_out: pa.Table, column: str) -> list[tuple[str, str]]:
    """Trained tickets that share a value of the column with an item, each with the first such item."""
    owners: dict[str, str] = {}
    for value, name in zip(held_out[column].to_pylist(), held_out["item_id"].to_pylist(), strict=True):
        if value:
            owners.setdefault(value, name)
    pairs = zip(rows["ticket_id"].to_pylist(), rows[column].to_pylist(), strict=True)
    return [(name, owners[value]) for name, value in pairs if value in owners]


def _late(rows: pa.Table, splits: Splits, spec: ContaminationSpec) -> list[str]:
    if splits.cut is None or not spec.time_order:
        return []
    cut = splits.cut.replace(tzinfo=None)
    pairs = zip(rows["ticket_id"].to_pylist(), rows["created_at"].to_pylist(), strict=True)
    return [name for name, written in pairs if written is None or not written.replace(tzinfo=None) < cut]
