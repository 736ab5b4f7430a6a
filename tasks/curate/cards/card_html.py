"""Draw a curation card as one HTML fragment for the report, without scripts and external resources.

Every value is escaped, because names of categories and ids come from tickets. `card_marks.py` has the elements.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.curation_card import QUANTILES, CardNumbers, Distribution, Drift, FunnelStep, LabelBalance
from tasks.curate.cards.card_drift import MAJOR, MODERATE
from tasks.curate.cards.card_marks import (
    STYLE,
    Bar,
    cell,
    columns,
    legend,
    number,
    panel,
    percent,
    stacked,
    table,
    text,
    tile,
    trimmed,
)

_REMOVED = ("merged", "dropped", "quarantined")
_PARTS = ("train", "validation", "test")
_COLUMNS = ("category", "priority", "language", "product", "channel")
_LEAST_SHARE = {"language": 0.01}
"""Rarer values are shown together (0-1): most rare languages are short texts that were taken for another one."""
MAX_COLUMNS = 60
"""Columns of the chart of weeks; over longer times several weeks share a column."""


def draw_card(numbers: CardNumbers) -> str:
    """Return the fragment: one `section`, readable in light and dark mode."""
    shown = [name for name in _COLUMNS if _is_filled(numbers.distributions[name])]
    parts = [
        _tiles(numbers),
        _funnel(numbers),
        _reasons(numbers),
        _weeks(numbers),
        *_lengths(numbers),
        *(_balance(name, folded(numbers.distributions[name], least=_LEAST_SHARE.get(name, 0.0))) for name in shown),
        _encoded(numbers.encoded),
        _duplicates(numbers),
        _personal_data(numbers),
        _personal_ids(numbers),
        _personal_labels(numbers),
        _conflicts(numbers),
        _checks(numbers),
        _scores(numbers),
        _drift(numbers.drift),
    ]
    body = "\n".join(part for part in parts if part)
    return f'<section class="tg-card" aria-label="Curation card">\n<style>{STYLE}</style>\n{body}\n</section>\n'


def _tiles(numbers: CardNumbers) -> str:
    n_kept = numbers.n_train + numbers.n_validation + numbers.n_test
    tiles = [
        tile("rows read", number(numbers.n_read), "from the source"),
        tile("kept", number(n_kept), f"{percent(n_kept, numbers.n_read)} of the rows read"),
        tile("train", number(numbers.n_train), percent(numbers.n_train, n_kept)),
        tile("validation", number(numbers.n_validation), percent(numbers.n_validation, n_kept)),
        tile("test", number(numbers.n_test), percent(numbers.n_test, n_kept)),
    ]
    return f'<h2>Curation</h2>\n<div class="tiles">{"".join(tiles)}</div>'


def _funnel(numbers: CardNumbers) -> str:
    kinds = [kind for kind in _REMOVED if any(_taken(step, kind) for step in numbers.funnel)]
    rows: list[list[object]] = []
    for step in numbers.funnel:
        taken = {kind: _taken(step, kind) for kind in kinds}
        bars = [Bar("out", step.rows.n_out, "kept"), *(Bar(kind, n, kind) for kind, n in taken.items())]
        counts = (step.rows.n_in, *(n or cell("", "n") for n in taken.values()), step.rows.n_out)
        rows.append([step.step, stacked(bars, numbers.n_read), *counts])
    head = ("step", "drawn", "in", *kinds, "out")
    outcomes = legend([("out", "kept"), *((kind, kind) for kind in kinds)])
    return panel("What each step did to the rows", outcomes + table(head, rows), wide=True)


def _taken(step: FunnelStep, kind: str) -> int:
    return int(getattr(step.rows, f"n_{kind}"))


def _reasons(numbers: CardNumbers) -> str:
    if not numbers.reasons:
        return ""
    most = max(reason.n for reason in numbers.reasons)
    rows = [
        [each.step, each.code, each.outcome, stacked([Bar(each.outcome, each.n, each.outcome)], most), each.n]
        for each in numbers.reasons
    ]
    return panel("Why rows were removed", table(("step", "code", "outcome", "drawn", "rows"), rows), wide=True)


def _weeks(numbers: CardNumbers) -> str:
    n_together = -(-len(numbers.weeks) // MAX_COLUMNS)
    bins = []
    for start in range(0, len(numbers.weeks), max(n_together, 1)):
        group = numbers.weeks[start : start + n_together]
        name = group[0].value if len(group) == 1 else f"{group[0].value} to {group[-1].value}"
        bins.append((name, [Bar(part, sum(getattr(week, part) for week in group), part) for part in _PARTS]))
    note = f"<p>{number(numbers.n_undated)} tickets have no time.</p>" if numbers.n_undated else ""
    span = "ISO week" if n_together <= 1 else f"{n_together} ISO weeks"
    if not bins:
        return panel("Tickets over time", note, wide=True)
    return panel(
        f"Tickets per {span}", legend([(part, part) for part in _PARTS]) + columns(bins, wide=True) + note, wide=True
    )


def _lengths(numbers: CardNumbers) -> Iterator[str]:
    for name, title in (("body_length", "Characters of the body"), ("reply_length", "Characters of the reply")):
        distribution = numbers.distributions[name]
        bins = [(value.value, [Bar("out", value.n, "tickets")]) for value in distribution.values]
        note = f"<p>{number(distribution.missing.n)} tickets have none.</p>" if distribution.missing.n else ""
        if name == "reply_length" and numbers.replies is not None and numbers.replies.warning:
            note += f"<p>{text(numbers.replies.warning)}.</p>"
        yield panel(title, columns(bins) + "<p>Each column is labelled with its lower bound.</p>" + note)


def _is_filled(distribution: Distribution) -> bool:
    return distribution.missing.n < distribution.n


def folded(distribution: Distribution, *, least: float) -> Distribution:
    """Add the values of less than this share (0-1) of the tickets to the other values."""
    rare = [counts for counts in distribution.values if counts.n < least * distribution.n]
    other = distribution.other.model_copy(
        update={part: sum(getattr(counts, part) for counts in (distribution.other, *rare)) for part in _PARTS}
    )
    kept = tuple(counts for counts in distribution.values if counts not in rare)
    return distribution.model_copy(update={"values": kept, "other": other})


def _balance(name: str, distribution: Distribution) -> str:
    """Draw the shares within each split side by side, which shows a label that test has and train lacks."""
    everything = (*distribution.values, distribution.other, distribution.missing)
    totals = {part: n for part in _PARTS if (n := sum(getattr(counts, part) for counts in everything))}
    listed = [(cell(trimmed(counts.value)), counts) for counts in distribution.values]
    listed += [(cell("other values", "dim"), distribution.other)] if distribution.other.n else []
    listed += [(cell("no value", "dim"), distribution.missing)] if distribution.missing.n else []
    shares = [getattr(counts, part) / total for _, counts in listed for part, total in totals.items()]
    longest = max(shares, default=0.0) or 1.0
    rows: list[list[object]] = []
    for label, counts in listed:
        row: list[object] = [label]
        for part, total in totals.items():
            n = getattr(counts, part)
            row += [stacked([Bar(part, n, part)], longest * total), cell(percent(n, total), "n")]
        rows.append([*row, counts.n])
    head = (name, *(title for part in totals for title in (part, "share")), "tickets")
    return panel(f"Balance of {name}", table(head, rows), wide=True)


def _encoded(balance: LabelBalance | None) -> str:
    """Draw what training takes of each label; nothing to draw if it takes all and misses none."""
    if balance is None or (balance.n_used == balance.n_train and balance.warning is None):
        return ""
    rows = [
        [
            *(trimmed(name), counts.train, counts.used),
            stacked([Bar("train", counts.used, "encoded")], max(1, balance.n_used)),
            *(cell(percent(counts.used, balance.n_used), "n"), counts.validation, counts.test),
        ]
        for name, counts in balance.rows
    ]
    note = f"<p>{text(balance.sentence)}</p>"
    if balance.warning:
        note += f"<p>{text(balance.warning)}.</p>"
    head = (balance.column, "train", "encoded", "drawn", "share", "validation", "test")
    return panel("What training takes", note + table(head, rows), wide=True)


def _duplicates(numbers: CardNumbers) -> str:
    found = numbers.duplicates
    if not found.n_clusters:
        return ""
    note = f"<p>{number(found.n_merged)} tickets of {number(found.n_clusters)} clusters were merged into kept ones.</p>"
    sizes = columns([(size, [Bar("merged", n, "clusters")]) for size, n in found.sizes.items()])
    rows = [
        [cell(trimmed(cluster.cluster_id), "id"), cluster.size, cell(trimmed(cluster.kept_id), "id")]
        for cluster in found.largest
    ]
    largest = table(("largest clusters", "tickets", "kept ticket"), rows)
    return panel("Duplicates", f"{note}<h4>Clusters per size</h4>{sizes}{largest}")


def _conflicts(numbers: CardNumbers) -> str:
    found = numbers.label_conflicts
    if found is None:
        return ""
    share = percent(found.n_conflicting, found.n_checked)
    n_of = f"{number(found.n_conflicting)} of {number(found.n_checked)} tickets ({share})"
    note = f"<p>{n_of} have a label that other tickets contradict or make unlikely.</p>"
    return panel("Suspect labels", note, wide=True)


def _personal_data(numbers: CardNumbers) -> str:
    found = numbers.personal_data
    if found is None:
        return ""
    most = max([1, *found.n_values.values()])
    rows = [[kind.replace("_", " "), stacked([Bar("out", n, kind)], most), n] for kind, n in found.n_values.items()]
    with_names = "name" in found.n_values
    names = "many names inside sentences" if with_names else "people's names, which need <code>redact.names</code>"
    summary = (
        f"<p>In {number(found.n_tickets)} tickets values were replaced by placeholders. Not covered: {names}; values "
        "that neither their form nor a word before them reveals; postal addresses of other countries than the United "
        "States, Great Britain, Germany, France, Spain, Italy, Portugal, Brazil and the Netherlands; attachments.</p>"
    )
    return panel("Personal data replaced", summary + table(("type", "drawn", "values"), rows))


def _personal_ids(numbers: CardNumbers) -> str:
    if not numbers.personal_ids:
        return ""
    note = "<p>These ids are e-mail addresses or the like; `redact.pseudonymise` replaces them.</p>"
    return panel("Personal ids", note + table(("column", "tickets"), tuple(numbers.personal_ids.items())))


def _personal_labels(numbers: CardNumbers) -> str:
    rows = [(each.column, each.n_replaced, each.n_lost, each.n_left) for each in numbers.personal_labels]
    if not rows:
        return ""
    note = (
        "<p>Reports and MLflow show labels. What may be left: bare numbers of 7 to 11 digits, what looks like a name "
        "and is on tickets of one customer alone, and, without redaction, what it would replace.</p>"
    )
    return panel("Personal data in labels", note + table(("column", "replaced", "labels lost", "may be left"), rows))


def _scores(numbers: CardNumbers) -> str:
    if not numbers.scores:
        return ""
    head = ("score", "tickets", *("least" if at == 0 else "most" if at == 1 else f"{at:.0%}" for at in QUANTILES))
    rows = [
        [score.column, score.n, *(cell(f"{value:.4g}", "n") for value in score.quantiles)] for score in numbers.scores
    ]
    return panel("Scores: quantiles over the tickets", table(head, rows), wide=True)


def _checks(numbers: CardNumbers) -> str:
    if not numbers.checks:
        return ""
    kinds = {"passed": "out", "failed": "quarantined", "error": "quarantined", "timed": "none"}
    rows = [
        [
            *(check.name, check.checked_table, check.severity),
            stacked([Bar(kinds[check.status], 1, check.status)], 1),
            *(check.status, check.message),
        ]
        for check in numbers.checks
    ]
    head = ("check", "table", "severity", "drawn", "status", "result")
    return panel("Checks of the data", table(head, rows), wide=True)


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return panel("Compared with the last card", "<p>There is no earlier card to compare with.</p>", wide=True)
    most = max([2 * MAJOR, *(shift.index for shift in drift.shifts)])
    kinds = {"stable": "out", "moderate": "dropped", "major": "quarantined"}
    rows = [
        [
            shift.column.replace("_", " "),
            stacked([Bar(kinds.get(shift.verdict, "none"), shift.index, shift.verdict)], most),
            cell(f"{shift.index:.3f}", "n"),
            cell(f"{shift.chance:.3f}", "n"),
            shift.verdict,
        ]
        for shift in drift.shifts
    ]
    facts = [f"compared with {number(drift.n_previous)} tickets"]
    facts += [f"{drift.new_tickets:.1%} of the tickets are newer"] if drift.new_tickets is not None else []
    facts += [f"{drift.new_customers:.1%} of the customers are new"] if drift.new_customers is not None else []
    note = (
        f"<p>{'; '.join(facts)}. Population stability index: below {MODERATE} stable, from {MAJOR} on major "
        "(Siddiqi 2006). By chance: its mean for this number of tickets without any change.</p>"
    )
    head = ("column", "drawn", "index", "by chance", "verdict")
    return panel("Compared with the last card", note + table(head, rows), wide=True)
