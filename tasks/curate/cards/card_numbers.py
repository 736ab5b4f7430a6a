"""The numbers of a curation card, counted in SQL over the Parquet files of the steps.

All that is counted is a whole number or a value of some ticket, so that threads and row order change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.artifacts import Splits, TicketTable
from schemas.curation_card import (
    QUANTILES,
    CardNumbers,
    Cluster,
    ColumnShift,
    Corrections,
    Distribution,
    Drift,
    Duplicates,
    FunnelStep,
    LabelConflicts,
    PersonalData,
    PersonalLabels,
    Reason,
    ReplyVariety,
    Score,
    ValueCounts,
)
from schemas.curation_steps import RedactStep
from schemas.tables import SCORE_COLUMNS
from tasks.curate.cards.card_drift import shift_of
from tasks.curate.redact import masked_value, redact_strings
from tasks.curate.redaction.name_rules import may_be_name
from tasks.curate.redaction.personal import ID_COLUMNS, LABEL_COLUMNS, PERSONAL_ID, is_personal_id
from tasks.storage.warehouse import connect, quote_text

if TYPE_CHECKING:
    import duckdb

Step = tuple[str, TicketTable | Splits]
PARTS = ("train", "validation", "test")
CATEGORICAL = ("category", "priority", "product", "channel", "language")
MAX_VALUES = 20
"""Values of a column that are named; the others are counted together."""
MAX_VALUE = 60
"""Characters; a longer value is no category, and might be a text, so it is never named."""
MAX_CLUSTERS = 10
LENGTH_EDGES = (0, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
"""Characters at which the bins of body and reply begin."""
CLUSTER_EDGES = (2, 3, 4, 5, 6, 11, 21, 51, 101, 1001)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SOME_WORDS = r"^[^\d@\s]+ [^\d@]+$"
_BARE_NUMBER = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){6,10}")
"""As many digits as phone numbers have without a country code; most article numbers have more."""
_SCORES = tuple(name for name in SCORE_COLUMNS if name not in ("language", "label_conflict"))
_PER_PART = ", ".join(f"count(*) FILTER (part = '{part}')::BIGINT" for part in PARTS)


def count_all(*, steps: Sequence[Step], clean: Splits, reference: CardNumbers | None) -> CardNumbers:
    """Count everything that a card shows.

    Args:
        steps: Name and result of each step, the split and decontamination included.
        clean: The splits that are trained and tested on.
        reference: The last card's numbers, to compare with.
    """
    files = {"train": clean.train, "validation": clean.validation, "test": clean.test}
    readable = (*files.values(), *(step.removed for _, step in steps))
    replaced = _personal_data(steps)
    with connect(readable=readable) as connection:
        _load(connection, steps, files={part: str(path.resolve()) for part, path in files.items()})
        distributions = {name: distribution(connection, name) for name in CATEGORICAL}
        for name in ("body_length", "reply_length"):
            distributions[name] = distribution(connection, name, fixed=band_names(LENGTH_EDGES))
        distributions["weekday"] = distribution(connection, "weekday", fixed=WEEKDAYS)
        distributions["hour"] = distribution(connection, "hour", fixed=tuple(f"{hour:02}" for hour in range(24)))
        newest, n_undated = _rows(
            connection, "SELECT strftime(max(created_at), '%Y-%m-%dT%H:%M:%S'), count(*) - count(created_at) FROM facts"
        )[0]
        return CardNumbers(
            n_read=steps[0][1].rows.n_in,
            n_train=clean.n_train,
            n_validation=clean.n_validation,
            n_test=clean.n_test,
            newest=newest,
            funnel=tuple(FunnelStep(step=name, rows=step.rows) for name, step in steps),
            reasons=_reasons(connection),
            distributions=distributions,
            weeks=_weeks(connection),
            n_undated=n_undated,
            duplicates=_duplicates(connection),
            personal_data=replaced,
            personal_ids=_personal_ids(connection, tuple(map(str, files.values())), replaced),
            personal_labels=tuple(_personal_labels(connection, steps, is_redacted=replaced is not None)),
            scores=_scores(connection),
            label_conflicts=_label_conflicts(connection),
            corrections=_corrections(steps),
            replies=_replies(connection, tuple(map(str, files.values()))),
            drift=_drift(connection, distributions, reference) if reference else None,
        )


def band_names(edges: Sequence[int]) -> tuple[str, ...]:
    """
    >>> band_names((0, 25, 50)), band_names((2, 3, 6))
    (('0-24', '25-49', '50+'), ('2', '3-5', '6+'))
    """
    names = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return (*names, f"{edges[-1]}+")


def distribution(
    connection: duckdb.DuckDBPyConnection, column: str, *, fixed: tuple[str, ...] | None = None
) -> Distribution:
    """Tickets per value of a column of `facts` and split.

    Args:
        connection: With the table `facts`.
        column: Of type VARCHAR.
        fixed: All values in their order; None takes the commonest.
    """
    rows = _rows(
        connection,
        f"SELECT {column}, {_PER_PART} FROM facts WHERE {column} IS NOT NULL "
        f"AND length({column}) <= {MAX_VALUE} GROUP BY {column} ORDER BY count(*) DESC, {column}"
        + ("" if fixed else f" LIMIT {MAX_VALUES}"),
    )
    # A label that is personal data counts among the other values: pipelines without `redact` have them.
    found = {row[0]: _counts(*row) for row in rows if fixed or not is_personal(row[0])}
    values = tuple(found.get(value, _counts(value)) for value in fixed) if fixed else tuple(found.values())
    missing = _counts("", *_rows(connection, f"SELECT {_PER_PART} FROM facts WHERE {column} IS NULL")[0])
    total = _counts("", *_rows(connection, f"SELECT {_PER_PART} FROM facts")[0])
    other = {part: getattr(total, part) - getattr(missing, part) for part in PARTS}
    for counts in values:
        other = {part: other[part] - getattr(counts, part) for part in PARTS}
    return Distribution(values=values, other=ValueCounts(value="", **other), missing=missing)


def is_personal(value: str) -> bool:
    """Return whether redaction would replace anything in the value.

    >>> is_personal("billing"), is_personal("ann@example.org")
    (False, True)
    """
    return masked_value(value) != value


def _replies(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> ReplyVariety:
    sql = "SELECT count(reply), count(DISTINCT hash(reply)) FROM read_parquet($files)"
    n, n_distinct = _rows(connection, sql, {"files": list(files)})[0]
    return ReplyVariety(n=n, n_distinct=n_distinct)


def _personal_ids(
    connection: duckdb.DuckDBPyConnection, files: Sequence[str], replaced: PersonalData | None
) -> dict[str, int]:
    """Tickets per column with an id that is an e-mail address or the like; with a name, too, if names are redacted."""
    names = replaced is not None and "name" in replaced.n_values
    found: dict[str, int] = {}
    for name in ID_COLUMNS:
        rows = _rows(
            connection,
            f"SELECT {name}, count(*) FROM read_parquet($files) WHERE regexp_matches({name}, $pattern) GROUP BY {name}",
            {"files": list(files), "pattern": f"{PERSONAL_ID}|{_SOME_WORDS}" if names else PERSONAL_ID},
        )
        n = sum(n for value, n in rows if is_personal_id(value) or (names and may_be_name(value)))
        found |= {name: n} if n else {}
    return found


def _personal_labels(
    connection: duckdb.DuckDBPyConnection, steps: Sequence[Step], *, is_redacted: bool
) -> Iterator[PersonalLabels]:
    """Yield the columns of labels in which redaction replaced something, or in which personal data may be left.

    In a column no word says what a number or a name is. Products look like names, but a name of a customer is on the
    tickets of that customer alone.
    """
    for name in LABEL_COLUMNS:
        n_replaced, n_lost = (
            sum(step.notes.get(f"labels_{what}_{name}", 0) for _, step in steps) for what in ("redacted", "merged")
        )
        rows = _rows(
            connection,
            f"SELECT {name}, count(*), count(DISTINCT customer_id) + count(*) FILTER (customer_id IS NULL) FROM facts "
            f"WHERE {name} IS NOT NULL GROUP BY {name}",
        )
        values = [value for value, _, _ in rows]
        found = [False] * len(values) if is_redacted else _found_by_redaction(values)
        n_left = sum(
            n
            for (value, n, n_customers), is_found in zip(rows, found, strict=True)
            if is_found or _BARE_NUMBER.fullmatch(value.strip()) or (n_customers == 1 and may_be_name(value))
        )
        if n_replaced or n_left:
            yield PersonalLabels(column=name, n_replaced=n_replaced, n_lost=n_lost, n_left=n_left)


def _found_by_redaction(values: list[str]) -> list[bool]:
    redacted, _ = redact_strings(pa.array(values, pa.string()), RedactStep(uses="redact"))
    return [before != after for before, after in zip(values, redacted.to_pylist(), strict=True)]


def _load(connection: duckdb.DuckDBPyConnection, steps: Sequence[Step], *, files: dict[str, str]) -> None:
    """Tables `facts` (a row per ticket of the splits, without its texts) and `removed` (all steps')."""
    scores = ", ".join(f"CASE WHEN isfinite({name}::DOUBLE) THEN {name}::DOUBLE END AS {name}" for name in _SCORES)
    rows = " UNION ALL ".join(
        f"SELECT '{part}' AS part, * FROM read_parquet({quote_text(path)})" for part, path in files.items()
    )
    connection.execute(
        f"CREATE TEMP TABLE facts AS SELECT part, customer_id, created_at, {', '.join(CATEGORICAL)}, label_conflict, "
        f"{_band('length(body)', LENGTH_EDGES)} AS body_length, "
        f"{_band('length(reply)', LENGTH_EDGES)} AS reply_length, "
        f"[{', '.join(map(quote_text, WEEKDAYS))}][isodow(created_at)] AS weekday, "
        f"strftime(created_at, '%H') AS hour, {scores} FROM ({rows})"
    ).fetchall()
    removed = " UNION ALL ".join(
        f"SELECT {place} AS place, {quote_text(name)} AS step, outcome, code, cluster_id, kept_id "
        f"FROM read_parquet({quote_text(str(step.removed.resolve()))})"
        for place, (name, step) in enumerate(steps)
    )
    connection.execute(f"CREATE TEMP TABLE removed AS {removed}").fetchall()


def _band(number: str, edges: Sequence[int]) -> str:
    """The SQL expression of the name of the band that the number is in; null for null."""
    below = zip(band_names(edges), edges[1:], strict=False)
    cases = " ".join(f"WHEN {number} < {high} THEN '{name}'" for name, high in below)
    return f"CASE {cases} WHEN {number} IS NOT NULL THEN '{edges[-1]}+' END"


def _reasons(connection: duckdb.DuckDBPyConnection) -> tuple[Reason, ...]:
    rows = _rows(
        connection,
        "SELECT step, outcome, code, count(*) FROM removed "
        "GROUP BY place, step, outcome, code ORDER BY place, count(*) DESC, outcome, code",
    )
    return tuple(Reason(step=step, outcome=outcome, code=code, n=n) for step, outcome, code, n in rows)


def _weeks(connection: duckdb.DuckDBPyConnection) -> tuple[ValueCounts, ...]:
    """Weeks begin on Monday; those without a ticket are rows too, so that a gap is seen."""
    rows = _rows(
        connection,
        "WITH weeks AS (SELECT unnest(generate_series(date_trunc('week', min(created_at)), max(created_at), "
        "INTERVAL 7 DAY)) AS week FROM facts WHERE created_at IS NOT NULL) "
        f"SELECT strftime(w.week, '%G-W%V'), {_PER_PART} FROM weeks w "
        "LEFT JOIN facts f ON date_trunc('week', f.created_at) = w.week GROUP BY w.week ORDER BY w.week",
    )
    return tuple(_counts(*row) for row in rows)


def _duplicates(connection: duckdb.DuckDBPyConnection) -> Duplicates:
    connection.execute(
        "CREATE TEMP TABLE clusters AS WITH kept AS (SELECT cluster_id, kept_id, count(*) AS n FROM removed "
        "WHERE outcome = 'merged' AND cluster_id IS NOT NULL GROUP BY cluster_id, kept_id) "
        "SELECT cluster_id, (sum(n) + count(kept_id))::BIGINT AS size, sum(n)::BIGINT AS n_merged, "
        "arg_min(kept_id, (-n, kept_id)) AS kept_id FROM kept GROUP BY cluster_id"
    ).fetchall()
    sizes = dict(
        _rows(connection, f"SELECT {_band('size', CLUSTER_EDGES)} AS band, count(*) FROM clusters GROUP BY band")
    )
    n_clusters, n_merged = _rows(connection, "SELECT count(*), coalesce(sum(n_merged), 0)::BIGINT FROM clusters")[0]
    largest = _rows(
        connection,
        f"SELECT cluster_id, size, kept_id FROM clusters ORDER BY size DESC, cluster_id LIMIT {MAX_CLUSTERS}",
    )
    return Duplicates(
        n_clusters=n_clusters,
        n_merged=n_merged,
        sizes={name: sizes[name] for name in band_names(CLUSTER_EDGES) if name in sizes},
        largest=tuple(
            Cluster(cluster_id=_shown_id(cluster), size=size, kept_id=_shown_id(kept))
            for cluster, size, kept in largest
        ),
    )


def _shown_id(value: str) -> str:
    return masked_value(value) if is_personal_id(value) else value


def _scores(connection: duckdb.DuckDBPyConnection) -> tuple[Score, ...]:
    columns = ", ".join(f"count({name}), quantile_disc({name}, {list(QUANTILES)})" for name in _SCORES)
    row = _rows(connection, f"SELECT {columns} FROM facts")[0]
    return tuple(
        Score(column=name, n=row[2 * place], quantiles=tuple(row[2 * place + 1]))
        for place, name in enumerate(_SCORES)
        if row[2 * place]
    )


def _label_conflicts(connection: duckdb.DuckDBPyConnection) -> LabelConflicts | None:
    n_checked, n_conflicting = _rows(
        connection, "SELECT count(label_conflict), count(*) FILTER (label_conflict > 0) FROM facts"
    )[0]
    return LabelConflicts(n_checked=n_checked, n_conflicting=n_conflicting) if n_checked else None


def _corrections(steps: Sequence[Step]) -> Corrections | None:
    notes = next((step.notes for name, step in steps if name == "corrections"), None)
    if notes is None:
        return None
    return Corrections(
        n_applied=notes["applied"],
        n_stale=notes["stale"],
        n_unknown=notes["unknown"],
        n_corrected=notes["corrected"],
        n_dropped=notes["dropped_correction"],
    )


def _personal_data(steps: Sequence[Step]) -> PersonalData | None:
    notes = [step.notes for _, step in steps if "redacted_tickets" in step.notes]
    if not notes:
        return None
    values: dict[str, int] = {}
    for name, n in sorted((name, n) for note in notes for name, n in note.items()):
        if name.startswith("redacted_") and name != "redacted_tickets":
            kind = name.removeprefix("redacted_")
            values[kind] = values.get(kind, 0) + n
    return PersonalData(n_tickets=sum(note["redacted_tickets"] for note in notes), n_values=values)


def _drift(
    connection: duckdb.DuckDBPyConnection, distributions: dict[str, Distribution], reference: CardNumbers
) -> Drift:
    shifts: list[ColumnShift] = []
    for name, current in distributions.items():
        if name not in reference.distributions:
            continue
        then = reference.distributions[name]
        counts = _rows(
            connection,
            f"SELECT {name}, count(*) FROM facts WHERE list_contains($values::VARCHAR[], {name}) GROUP BY {name}",
            {"values": [bin.value for bin in then.values]},
        )
        shift = shift_of(name, counts=dict(counts), n_missing=current.missing.n, n=current.n, reference=then)
        shifts += [shift] if shift else []
    new_tickets, new_customers = _rows(
        connection,
        "SELECT (SELECT avg((created_at > $newest::TIMESTAMP)::INTEGER) FROM facts), (SELECT avg((first > "
        "$newest::TIMESTAMP)::INTEGER) FROM (SELECT min(created_at) AS first FROM facts WHERE customer_id <> '' "
        "GROUP BY customer_id))",
        {"newest": reference.newest},
    )[0]
    return Drift(
        shifts=tuple(shifts),
        n_previous=reference.n_train + reference.n_validation + reference.n_test,
        new_tickets=None if new_tickets is None else round(new_tickets, 6),
        new_customers=None if new_customers is None else round(new_customers, 6),
    )


def _counts(value: str, train: int = 0, validation: int = 0, test: int = 0) -> ValueCounts:
    return ValueCounts(value=value, train=train, validation=validation, test=test)


def _rows(
    connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, object] | None = None
) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values or {}).fetchall()
