"""Apply people's corrections (`curate.corrections`) to tickets as they were read; list those that do not apply.

A correction names a ticket, a field, its old and its new value. It applies where the ticket still has the old value:
when the source has changed, the person judged another value. The file is read where it is used and kept nowhere; its
digest is part of the step's key. Ids and values are compared in the form that `validate` gives them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson
from pydantic import ValidationError

from schemas.artifacts import EvalSet, TicketTable
from schemas.corrections import Correction
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, DataError
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.step import as_step
from tasks.storage.files import inside, sha256_file

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.curate.drop import Judged

CODE = "TG0127"
DROPPED = "correction"
"""Rule under which a person drops a ticket."""
WHERE = "curate.corrections"
DIGEST = "sha256:"
State = Literal["applied", "stale", "unknown"]
"""stale: no row of the ticket has the old value. unknown: there is no such ticket."""


def digest_of_value(value: str) -> str:
    """How a text or personal data is named in the file: not readable, and a change is noticed.

    A short value can be guessed and tried, such as a telephone number.

    >>> digest_of_value("On its way.")
    'sha256:3b6c4790408612bc'
    """
    return DIGEST + hashlib.sha256(value.encode()).hexdigest()[:16]


def corrections_file(path: str, root: Path) -> Path:
    """Return the file.

    Raises:
        SecurityError: TG0818, it is outside the folder of pipelines.yaml.
        ConfigError: TG0110, there is no such file.
    """
    file = inside(path, root, where=WHERE)
    if not file.is_file():
        raise ConfigError(
            "the corrections cannot be read: no such file", code="TG0110", where=str(file),
            hint="restore it from git; before the first correction make an empty one",
        )  # fmt: skip
    return file


def fingerprint_corrections(path: str, root: Path) -> str:
    """Return the digest of the file; raises as `corrections_file`."""
    return sha256_file(corrections_file(path, root))


def read_corrections(file: Path) -> tuple[Correction, ...]:
    """Return the corrections, in the order of the file.

    Raises:
        ConfigError: TG0110, it cannot be read; TG0127, a line is no correction, or two lines contradict each other.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise ConfigError(f"it cannot be read ({type(error).__name__})", code="TG0110", where=str(file)) from None
    found: list[Correction] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(_parse(line, number, file))
            numbers.append(number)
    for one, other in contradictions(found):
        first, second = found[one], found[other]
        raise ConfigError(
            f"lines {numbers[one]:,} and {numbers[other]:,} contradict each other: {describe_pair(first, second)}",
            code=CODE, where=str(file), hint="agree, and take one of the lines out",
        )  # fmt: skip
    return tuple(found)


def _parse(line: bytes, number: int, file: Path) -> Correction:
    hint = '{"ticket_id": "T-17", "do": "drop", "by": "ada", "at": "2026-12-01"} is one; git keeps the earlier lines'
    try:
        return Correction.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError:
        what = "a conflict of git" if line[:7] in (b"<<<<<<<", b"=======", b">>>>>>>") else "no JSON"
        raise ConfigError(f"line {number:,} is {what}", code=CODE, where=str(file), hint=hint) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = str(first["msg"]).removeprefix("Value error, ")
        what = f"line {number:,}: {place + ': ' if place else ''}{message}"
        raise ConfigError(what, code=CODE, where=str(file), hint=hint) from None


def contradictions(corrections: Sequence[Correction]) -> Iterator[tuple[int, int]]:
    """Yield pairs of places of corrections that cannot both be meant.

    Two new values for one old value of a field, or a ticket that is dropped and also corrected or kept.
    """
    by_ticket: dict[str, list[int]] = defaultdict(list)
    for place, each in enumerate(corrections):
        by_ticket[each.ticket_id].append(place)
    for places in by_ticket.values():
        for number, one in enumerate(places):
            for other in places[number + 1 :]:
                first, second = corrections[one], corrections[other]
                drops = {first.do, second.do}
                if ("drop" in drops and len(drops) > 1) or (
                    first.about == second.about and first.says != second.says and first.old == second.old
                ):
                    yield one, other


def describe_pair(one: Correction, other: Correction) -> str:
    """What two people said of a ticket; without texts."""
    return f"of ticket {one.ticket_id}, {_describe(one)}, {_describe(other)}"


def _describe(each: Correction) -> str:
    if each.do == "drop":
        return f"{each.by} drops it"
    if each.do == "keep":
        return f"{each.by} keeps it in spite of {each.rule}"
    new = "another text" if each.field == "reply" else repr((each.new or "")[:40])
    return f"{each.by} sets {each.field} to {new}"


def corrections_text(corrections: Iterable[Correction]) -> bytes:
    """Return the file: a line each, ordered by ticket and field, so that git shows and merges single corrections."""
    lines = []
    for each in sorted(corrections, key=lambda each: (*each.about, each.do, each.by, each.at)):
        given = {name: value for name, value in each.model_dump().items() if value not in (None, "")}
        lines.append(orjson.dumps(given) + b"\n")
    return b"".join(dict.fromkeys(lines))


@as_step("corrections", libraries=("pyarrow",), context=("root",))
def apply_corrections(
    out: Path,
    *,
    tickets: TicketTable,
    path: str,
    digest: str,
    redact: RedactStep | None,
    root: Path,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Set fields, and drop tickets under the rule `correction`; every other row passes.

    All rows of a ticket_id that have the old value are corrected: a source may list a ticket several times.
    `corrections.parquet` has a line per correction with its state; `kept.parquet` the tickets that a rule must not
    drop: rule, ticket_id (also as the pseudonym that it will be).
    Notes: `corrected` (rows), `dropped_correction`, and corrections that `applied`, or are `stale` or `unknown`.

    Args:
        path: `curate.corrections`.
        digest: `fingerprint_corrections` when the run began.
        redact: The step that makes pseudonyms of ticket_ids; None if none does.
        root: Folder of pipelines.yaml.

    Raises:
        ConfigError: as `read_corrections`; TG0190, the key of the pseudonyms is missing.
        DataError: TG0203, the file changed since the run began; TG0220, more rows raise than `limit` allows.
    """
    file = corrections_file(path, root)
    corrections = read_corrections(file)
    if sha256_file(file) != digest:
        raise DataError(
            f"{path} changed while it was read, or since the run began", code="TG0203", where=WHERE,
            hint="run again; a file that is written aside and renamed is never half there",
        )  # fmt: skip
    return keep_sound_rows(
        lambda rows, folder: _apply(rows, corrections, redact, folder), tickets, step="corrections", out=out,
        limit=limit,
    )  # fmt: skip


@dataclass
class _Decisions:
    """The corrections of one ticket, and what became of each."""

    mine: list[Correction]
    applied: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.applied = [False] * len(self.mine)


def _apply(
    tickets: TicketTable, corrections: Sequence[Correction], redact: RedactStep | None, out: Path
) -> TicketTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.curate.drop import drop_rows
    from tasks.curate.rows import read_batches

    work = _Work(corrections, redact)
    judged = (work.judge(batch.combine_chunks()) for batch in read_batches(tickets.tickets))
    notes: dict[str, int] = {}
    done = drop_rows(judged, out=out, notes=notes, possible=(DROPPED,))
    states = work.states()
    listed = [
        {
            "ticket_id": each.ticket_id, "do": each.do, "field": each.field, "rule": each.rule, "state": state,
            "by": each.by, "at": each.at,
        }
        for each, state in zip(corrections, states, strict=True)
    ]  # fmt: skip
    columns = ("ticket_id", "do", "field", "rule", "state", "by", "at")
    schema = pa.schema([pa.field(name, pa.string()) for name in columns])
    pq.write_table(pa.Table.from_pylist(listed, schema=schema), out / "corrections.parquet", compression="zstd")
    kept = pa.schema(
        [pa.field("rule", pa.string(), nullable=False), pa.field("ticket_id", pa.string(), nullable=False)]
    )
    rows = [{"rule": rule, "ticket_id": id_} for rule, id_ in sorted(work.kept)]
    pq.write_table(pa.Table.from_pylist(rows, schema=kept), out / "kept.parquet", compression="zstd")
    counts = Counter(states)
    return done.model_copy(
        update={
            "notes": {
                **done.notes, "corrected": work.n_corrected,
                **{state: counts[state] for state in ("applied", "stale", "unknown")},
            }
        }
    )  # fmt: skip


class _Work:
    """Applies the corrections batch by batch."""

    def __init__(self, corrections: Sequence[Correction], redact: RedactStep | None) -> None:
        from tasks.curate.redaction.pseudonyms import load_pseudonyms

        self._tickets: dict[str, _Decisions] = {}
        self._corrections = corrections
        by_ticket: dict[str, list[Correction]] = defaultdict(list)
        for each in corrections:
            by_ticket[each.ticket_id].append(each)
        self._tickets = {id_: _Decisions(mine) for id_, mine in by_ticket.items()}
        self._seen: set[str] = set()
        self._pseudonyms = None if redact is None else load_pseudonyms(redact)
        self.kept: set[tuple[str, str]] = set()
        self.n_corrected = 0

    def judge(self, batch: pa.Table) -> Judged:
        """Return the batch as corrected, and which of its rows people drop."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from tasks.curate.drop import Judged
        from tasks.curate.validate import clean_texts

        ids, _ = clean_texts(batch.column("ticket_id").combine_chunks(), messages=False)
        shown = ids if self._pseudonyms is None else pa.array(self._pseudonyms.of_all(ids.to_pylist()), pa.string())
        mine = pc.is_in(shown, value_set=pa.array(sorted(self._tickets), pa.string()), skip_nulls=True)
        places = pc.indices_nonzero(mine).to_pylist()
        if not places:
            nothing = pa.nulls(batch.num_rows, pa.string())
            return Judged(batch, nothing, nothing)
        codes: list[str | None] = [None] * batch.num_rows
        reasons: list[str | None] = [None] * batch.num_rows
        values: dict[str, dict[int, str]] = defaultdict(dict)
        for place in places:
            self._decide(batch, place, ids[place].as_py(), shown[place].as_py(), values, codes, reasons)
        for name, changed in values.items():
            at = batch.schema.get_field_index(name)
            mask = pa.array([place in changed for place in range(batch.num_rows)], pa.bool_())
            new = pa.array([changed[place] for place in sorted(changed)], batch.schema.field(at).type)
            column = pc.replace_with_mask(batch.column(at).combine_chunks(), mask, new)
            batch = batch.set_column(at, batch.schema.field(at), column)
        self.n_corrected += len({place for changed in values.values() for place in changed})
        return Judged(batch, pa.array(codes, pa.string()), pa.array(reasons, pa.string()))

    def _decide(
        self, batch: pa.Table, place: int, id_: str, shown: str, values: dict[str, dict[int, str]],
        codes: list[str | None], reasons: list[str | None],
    ) -> None:  # fmt: skip
        decisions = self._tickets[shown]
        self._seen.add(shown)
        for number, each in enumerate(decisions.mine):
            if each.do == "drop":
                codes[place], reasons[place] = DROPPED, f"{each.by} dropped it on {each.at[:10]}"
            elif each.do == "keep" and each.rule is not None:
                self.kept |= {(each.rule, id_), (each.rule, shown)}
            elif each.field is not None and each.new is not None:
                now = batch.column(each.field)[place].as_py()
                if not same_value(now, each.old):
                    continue
                values[each.field][place] = each.new
            decisions.applied[number] = True

    def states(self) -> list[State]:
        """Return what became of each correction."""
        given: dict[str, Iterator[bool]] = {id_: iter(each.applied) for id_, each in self._tickets.items()}
        found: list[State] = []
        for each in self._corrections:
            applied = next(given[each.ticket_id])
            found.append("applied" if applied else "stale" if each.ticket_id in self._seen else "unknown")
        return found


def same_value(now: str | None, old: str | None) -> bool:
    """Whether a field still has the value that a person saw, in the form that `validate` gives texts.

    >>> same_value("Cafe\\u0301 ", "Caf\\u00e9"), same_value("billing", "refund"), same_value(" ", None)
    (True, False, True)
    """
    now, old = plain_value(now), plain_value(old)
    if now is not None and old is not None and old.startswith(DIGEST):
        return digest_of_value(now) == old
    return now == old


def plain_value(value: str | None) -> str | None:
    """A value without what editors and spreadsheets change: composed, one kind of line break, no blanks around it."""
    from tasks.curate.validate import clean_text

    return None if value is None else clean_text(value).replace("\u00a0", " ").strip() or None


def count_corrected(corrections: TicketTable, items: EvalSet) -> int:
    """Return how many held-out items a correction has changed."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    listed = pq.read_table(corrections.root / "corrections.parquet", columns=["ticket_id", "do", "state"])
    changed = listed.filter(pc.and_(pc.equal(listed["do"], "set"), pc.equal(listed["state"], "applied")))["ticket_id"]
    ids = pq.read_table(items.root / "items.parquet", columns=["item_id"])["item_id"]
    return int(pc.sum(pc.is_in(ids, value_set=changed.combine_chunks()), min_count=0).as_py())
