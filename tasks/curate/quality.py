"""Score body and reply by counts, and drop tickets above the thresholds.

`tasks/curate/similarity/kernels/scan.py` counts (compiled), over the classes of characters in
`quality_characters.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import Perplexities, TicketTable
from schemas.curation_steps import QualityStep
from schemas.errors import DataError
from schemas.tables import SCORES_OF
from tasks.compute.threads import in_slices
from tasks.curate.drop import Judged, Kept, Rule, drop_rows, first_rule, kept_by_people
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import count_rows, read_batches_with, read_columns
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.tickets.row_fault import CODE

if TYPE_CHECKING:
    from numpy.typing import NDArray


_BATCH_ROWS = 16_384
MAX_WORDS = 8
"""Longer replies are never stubs."""
_NOTES = """
    closed | closing | close | ticket closed | closing( this)?( ticket| case| issue)? | case closed | auto ?closed
    | done | fixed | resolved | solved | completed | handled | answered | noted | ack | acknowledged
    | wont ?fix | won t fix | not reproducible | cannot reproduce | invalid | spam | test | testing | tbd | todo
    | duplicate | dup | dupe | merged
    | (closed |closing )?(as |this is )?(a )?(duplicate|dup|dupe)( ticket| issue)?( of)? REF
    | (see|merged (with|into)|moved to|same as|as per) REF
    | (please )?(see|as) (above|below|previous|prior|earlier)( reply| answer| comment| mail| email| ticket| message)?
    | (please )?see (my|our|the) (previous|last|earlier|other)( reply| answer| comment| mail| email| message)?
    | (please )?see (attached|attachment|notes?|internal notes?|comments?)
    | no (reply|answer|response|comment|action)( needed| required| necessary)? | n ?a | none | null | nil | empty
    | ok | okay | thanks | thank you | thx | thank you for (your )?(mail|email|message|contacting us) | hi | hello
    | erledigt | geschlossen | gelöst | doppelt | duplikat | siehe oben
    | fermé | résolu | doublon | voir ci dessus | cerrado | resuelto | duplicado | ver arriba
    | fechado | resolvido | veja acima | chiuso | risolto | vedi sopra | gesloten | opgelost | zie boven
"""
_REFERENCE = r"(ticket |case |issue |order |no |number )*(\w{1,6} )?\w*\d\w*( \w*\d\w*)*"
_STUB = re.compile(" ".join(_NOTES.split()).replace(" | ", "|").replace("REF", _REFERENCE))
_BETWEEN = re.compile(r"[\W_]+")


@curation_step(QualityStep, rules=lambda step: tuple(_limits(step)))
@as_step("quality", libraries=("duckdb", "pyarrow", "numba", "numpy"))
def score_quality(
    out: Path,
    *,
    tickets: TicketTable,
    step: QualityStep,
    perplexities: Perplexities | None = None,
    kept: TicketTable | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Fill the score columns of every row, then drop a row by the first threshold that it exceeds.

    Words are runs of letters, digits and marks, in any case; in scripts without spaces each character is a word. A URL,
    a placeholder such as `[EMAIL_1]` and an unfilled one such as `{{name}}` are one word each, and count neither as
    capitals nor as symbols. A missing text has no words, and 0 in every share.

    - `n_words`, `reply_words`; `caps_share` (of cased letters), `url_share`, `symbol_share` (of all characters).
    - `repetition`: share of the body's words in a run of three words that occurs earlier in it. `reply_overlap`:
      share of the reply's words in a run of three words of the body.
    - `template_leftovers`: `{{name}}`, `{name}`, `%NAME%`, `<<name>>`, `[NAME]` in body and reply.
    - `reply_is_stub`: the reply is missing or answers nothing (`is_stub`).
    - `perplexity` from `perplexities`; null without it, and null exceeds no threshold.

    Codes: `repetition`, `caps`, `urls`, `symbols`, `template_leftovers`, `reply_overlap`, `stub_reply`, `perplexity`.
    Notes: `dropped_<code>` for each threshold that is set.

    Raises:
        ValueError: `step.perplexity` is set, but the flow passes no perplexities.
        DataError: TG0220, more rows raise than `limit` allows.
    """
    if step.perplexity and perplexities is None:
        raise ValueError("quality.perplexity is set, but no perplexities are given")
    return keep_sound_rows(
        lambda rows, folder: _score_quality(rows, step, folder, perplexities, kept_by_people(kept)),
        tickets,
        step="quality",
        out=out,
        codes=(CODE,),
        limit=limit,
    )


def _score_quality(
    tickets: TicketTable, step: QualityStep, out: Path, perplexities: Perplexities | None, kept: Kept
) -> TicketTable:
    given = _perplexities(tickets.tickets, perplexities if step.perplexity else None)
    judged = (_judge(batch, step, known, kept) for batch, known in read_batches_with(tickets.tickets, given))
    return drop_rows(judged, out=out, notes={}, possible=tuple(_limits(step)))


def _judge(table: pa.Table, step: QualityStep, perplexities: pa.ChunkedArray, kept: Kept) -> Judged:
    scores = measure(table) | {"perplexity": perplexities.combine_chunks()}
    for name in SCORES_OF["quality"]:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), scores[name])
    return Judged(table, *first_rule(_rules(step, scores), table["ticket_id"].combine_chunks(), kept))


def measure(table: pa.Table) -> dict[str, pa.Array]:
    """Return all scores but perplexity: column -> values."""
    counts = _counts(table)
    reply_words = counts["reply_words"]
    return {
        "n_words": pa.array(counts["body_words"]),
        "repetition": _share(counts["body_repeated"], counts["body_words"]),
        "caps_share": _share(counts["body_upper"], counts["body_cased"]),
        "url_share": _share(counts["body_url"], counts["body_characters"]),
        "symbol_share": _share(counts["body_symbols"], counts["body_characters"]),
        "template_leftovers": pa.array(counts["leftovers"]),
        "reply_words": pa.array(reply_words),
        "reply_overlap": _share(counts["reply_repeated"], reply_words),
        "reply_is_stub": _stubs(table["reply"], reply_words),
    }


def _counts(table: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Count in one pass over all texts, in independent ranges of rows on threads."""
    from tasks.curate.quality_characters import character_tables
    from tasks.curate.similarity.kernels.scan import COUNTS, scan_tickets, table_size

    classes, lowered = character_tables()
    counts = np.zeros((table.num_rows, len(COUNTS)), np.int64)
    batches = table.select(["body", "reply"]).to_batches(max_chunksize=_BATCH_ROWS)
    starts = np.cumsum([0, *map(len, batches)])

    def scan(low: int, _: int) -> None:
        body, reply = _buffers(batches[low]["body"]), _buffers(batches[low]["reply"])
        longest = max(int(np.diff(offsets).max(initial=1)) for _, offsets in (body, reply))
        words, places = np.empty(longest, np.uint64), np.empty(table_size(longest), np.uint64)
        rows = counts[starts[low] : starts[low + 1]]
        scan_tickets(*body, *reply, classes, lowered, words, places, np.empty(6, np.int64), rows)

    in_slices(scan, range(len(batches) + 1))
    return {name: counts[:, place].copy() for place, name in enumerate(COUNTS)}


def _buffers(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return bytes and offsets of a column; nulls are empty."""
    if texts.null_count:
        texts = texts.fill_null("")
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4) if offsets else np.zeros(1, np.int32)
    return np.frombuffer(data or b"", np.uint8), places


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> pa.Array:
    return pa.array(part / np.maximum(whole, 1))


def _stubs(replies: pa.ChunkedArray, reply_words: NDArray[np.int64]) -> pa.Array:
    """Judge only short replies, and each text once."""
    short = pa.array(reply_words <= MAX_WORDS)
    texts = pc.if_else(short, pc.fill_null(replies, ""), None).combine_chunks()
    encoded = pc.dictionary_encode(texts)
    decided = pa.array([is_stub(text) for text in encoded.dictionary.to_pylist()], pa.bool_())
    return pc.fill_null(decided.take(encoded.indices), False)


def _perplexities(path: Path, given: Perplexities | None) -> pa.ChunkedArray:
    """Return the perplexity of every row of the table."""
    if given is None:
        return pa.chunked_array([pa.nulls(count_rows(path), pa.float64())])
    known = pq.read_table(given.root / "perplexities.parquet")
    places = pc.index_in(read_columns(path, ("ticket_id",))["ticket_id"], value_set=known["ticket_id"].combine_chunks())
    if "fault" in known.column_names:
        faults = known["fault"].take(places).drop_null()
        if len(faults):
            raise DataError(f"{faults[0].as_py()} in step perplexity.", code=CODE)
    return known["perplexity"].take(places)


def _limits(step: QualityStep) -> dict[str, tuple[str, float | None]]:
    """Return code -> column and limit of each threshold that is set; the rule for stubs has no limit."""
    limits: dict[str, tuple[str, float | None]] = {
        "repetition": ("repetition", step.max_repetition),
        "caps": ("caps_share", step.max_caps_share),
        "urls": ("url_share", step.max_url_share),
        "symbols": ("symbol_share", step.max_symbol_share),
        "template_leftovers": ("template_leftovers", step.max_template_leftovers),
        "reply_overlap": ("reply_overlap", step.max_reply_overlap),
        "stub_reply": ("reply_is_stub", None),
        "perplexity": ("perplexity", step.max_perplexity),
    }
    is_set = {code: limit is not None for code, (_, limit) in limits.items()} | {"stub_reply": step.drop_stub_replies}
    return {code: limit for code, limit in limits.items() if is_set[code]}


def _rules(step: QualityStep, scores: Mapping[str, pa.Array]) -> dict[str, Rule]:
    """Return the rules of the thresholds that are set, by code."""
    rules = {}
    for code, (column, limit) in _limits(step).items():
        if limit is None:
            rules[code] = Rule(scores[column], "the reply is a stub: it answers nothing")
        else:
            above = f", above `max_{column}: {limit}`"
            rules[code] = Rule(pc.greater(scores[column], limit), f"{column} is ", scores[column], above)
    return rules


def is_stub(reply: str) -> bool:
    """Return whether a reply has no word, or is only such a note.

    >>> [is_stub(text) for text in ("Closed.", "Duplicate of #4711", "See above!", "...", "Closed your account today.")]
    [True, True, True, True, False]
    """
    words = _BETWEEN.sub(" ", reply.casefold()).strip()
    return not words or _STUB.fullmatch(words) is not None
