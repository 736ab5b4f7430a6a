"""Doubts about a file's rows that a proposal cannot settle, in words with counts and without a value of a column."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping

from tasks.sources.readers.headers import shown
from tasks.start.file_profile import Profile
from tasks.start.roles import KNOWN, Roles, percent, plain_form, text_columns

MAX_SPEAKERS = 5
"""Different values of a column that says who wrote a message."""
_REPLY_CHARS = 30
"""Median length below which a text is hardly a reply, but a name or a code."""
_DOMINANT = 0.9
"""Share of the tickets from which on a label leaves little to learn."""
JOIN_MESSAGES = (
    "make one row of each ticket by a query: a `duckdb` source, as in docs/reference/configuration.md, Several tables"
)
_COMBINED = 0.1
"""Share of the tickets from which on labels that are combined from others count as the file's habit."""
_MIN_THREADS = 5
"""Tickets with several rows below which nothing is said about them."""


def unread_replies(profile: Profile, roles: Roles) -> str:
    """What to name if a pipeline would learn labels alone though one more column may be the replies; else empty."""
    used = {role.name for role in roles.found}
    texts = [
        facts
        for facts in text_columns(profile)
        if facts.name not in used
        and facts.median_chars >= _REPLY_CHARS
        and 2 * facts.n_distinct >= facts.n_filled
        and facts.personal_share <= 0.5
    ]
    if roles.of("reply") or len(texts) != 1:
        return ""
    name = texts[0].name
    return (
        f"no answers are learned, only labels: no column is known as the agent's reply; {shown(name)} holds texts of "
        f"its own (median {texts[0].median_chars:,} characters): if those are the replies, name it: "
        f"--reply {shlex.quote(name)}"
    )


def label_doubts(labels: Mapping[str, int]) -> Iterator[str]:
    """What is doubtful about labels: their spelling, and one that nearly all tickets have.

    Args:
        labels: Value -> tickets.
    """
    alike = {label: " ".join(label.casefold().split()) for label in labels}
    n_alike = len(set(alike.values()))
    if n_alike < len(labels):
        yield (
            f"{len(labels):,} labels are {n_alike:,} if case and blanks do not count, and each spelling is learned as "
            "a label of its own: write them alike"
        )
    n_empty = sum(n for label, n in labels.items() if alike[label] in KNOWN.no_labels)
    if n_empty:
        yield (
            f"{n_empty:,} of {sum(labels.values()):,} tickets have a label that says there is none (such as n/a), and "
            "it is learned as one: leave those cells empty"
        )
    n_bracketed = sum(not set("[]\n").isdisjoint(label) for label in labels)
    if n_bracketed:
        yield (
            f"{n_bracketed:,} of {len(labels):,} labels have square brackets or line breaks, so that no answer "
            "can name them in brackets: rename them"
        )
    for mark in ";|,":
        n_combined = sum(
            n
            for label, n in labels.items()
            if mark in label and any(part.strip() in labels for part in label.split(mark))
        )
        if n_combined >= max(1, _COMBINED * sum(labels.values())):
            yield (
                f"{n_combined:,} of {sum(labels.values()):,} tickets have several labels in one, joined by {mark!r}, "
                "and each combination is learned as a label of its own: keep one label for each ticket"
            )
    if labels and all(label.strip().isdigit() for label in labels):
        yield (
            "the labels are numbers, and no prompt says what they mean, so that the baselines are weak: write their "
            "names"
        )
    commonest, n_tickets = max(labels.values(), default=0), sum(labels.values())
    if n_tickets and commonest >= _DOMINANT * n_tickets:
        yield (
            f"{percent(commonest, n_tickets)} of the tickets have the same label: always naming it is right as often, "
            f"and a model can gain at most {1 - commonest / n_tickets:.2f}"
        )


def rows_are_messages(profile: Profile) -> str:
    """Why the rows look like single messages of tickets; empty if they do not.

    A column says which message a row answers; or the ids of tickets repeat, and within most tickets that repeat a
    column that says who wrote differs.
    """
    for name, facts in profile.columns.items():
        if facts.is_top and facts.n_filled and plain_form(name) in KNOWN.answered_names:
            return f"rows are messages, not tickets: {shown(name)} says in {facts.n_filled:,} which message they answer"
    speakers = list(speaker_columns(profile))
    for name in profile.top:
        if plain_form(name) not in (*KNOWN.names["ticket_id"], *KNOWN.names["thread_id"]):
            continue
        threads = defaultdict(list)
        for row in profile.rows:
            if isinstance(row.get(name), str | int) and row[name] != "":
                threads[row[name]].append(row)
        several = [rows for rows in threads.values() if len(rows) > 1]
        for speaker in speakers if len(several) >= _MIN_THREADS else ():
            n_mixed = sum(len({row.get(speaker) for row in rows}) > 1 for rows in several)
            if 2 * n_mixed > len(several):
                n_rows = sum(map(len, threads.values()))
                return (
                    f"rows are messages, not tickets: {n_rows:,} rows have {len(threads):,} different values of "
                    f"{shown(name)}, and {shown(speaker)} differs within {n_mixed:,} of the {len(several):,} that "
                    "repeat"
                )
    return ""


def speaker_columns(profile: Profile) -> Iterator[str]:
    """Columns with few values, of which the name or all values are those of who wrote a message."""
    for name in profile.top:
        if name in profile.columns and 2 <= profile.columns[name].n_distinct <= MAX_SPEAKERS:
            values = {plain_form(value) for row in profile.rows if isinstance(value := row.get(name), str)} - {""}
            if plain_form(name) in KNOWN.speaker_names or (values and values.issubset(KNOWN.speakers)):
                yield name
