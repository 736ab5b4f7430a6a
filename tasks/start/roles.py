"""Assign a role to each column of a file: suggested by its name and confirmed by its values, with the evidence.

A name alone never decides: a `date` that does not parse, or an `id` that repeats, is left out, with the reason. The
names, and the formats of help desks, are in `columns.yaml`. Evidence consists of counts; it quotes no value.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator
from ruamel.yaml import YAML

from schemas.errors import ConfigError
from schemas.file_reading import EXCEL_DAYS, TurnsSpec
from schemas.spec import Spec
from schemas.tables import Shape, TicketColumn
from tasks.sources.readers.headers import did_you_mean, is_plain, listing, shown
from tasks.sources.readers.layouts import CANONICAL
from tasks.sources.readers.paths import MISSING, parse_path, walk
from tasks.sources.readers.shapes import RowShape, detect_shape, shape_keys
from tasks.start.file_profile import ColumnFacts, Profile, facts_at
from tasks.start.turn_lists import TurnList, find_turn_list

NONE = "none"
"""Names no column."""
MAX_LABELS = 200
"""Maximum number of distinct values of a routing field."""
_MAX_PATHS = 12
"""Unread paths to name."""
_COULD_BE = "could be a label"
_FIELD_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)

Words = Annotated[tuple[str, ...], BeforeValidator(str.split)]
"""Separated by spaces in `columns.yaml`."""


class Desk(Spec):
    """A help desk's ticket format with nested rows; `columns.yaml` explains each key."""

    name: str
    keys: Words
    columns: dict[TicketColumn, Words]
    first_answer: str
    answer_is: tuple[str, bool | str]
    by_customer: tuple[str, str] | None = None


class KnownNames(Spec):
    """The content of `columns.yaml`."""

    names: dict[TicketColumn, Words]
    language_names: Words
    other_times: Words
    never_labels: Words
    answered_names: Words
    speaker_names: Words
    speakers: Words
    agents: Words
    no_labels: Words
    desks: tuple[Desk, ...]


KNOWN = KnownNames.model_validate(YAML(typ="safe").load(Path(__file__).with_name("columns.yaml")))


_NO_LABELS = (*KNOWN.never_labels, *KNOWN.speaker_names, *KNOWN.answered_names)


@dataclass(frozen=True)
class Role:
    """A ticket column and the file's column that it is read from."""

    column: TicketColumn
    name: str
    evidence: str
    guessed: bool = False
    """Only its values suggest it."""


@dataclass(frozen=True)
class Roles:
    """The roles of a file's columns."""

    shape: Shape
    summary: str
    """Describes the rows."""
    found: tuple[Role, ...]
    left_out: tuple[str, ...] = ()
    """A reason for each unused column that needs one."""
    turns: TurnsSpec | None = None
    """Who speaks in the lists of turns that `messages` is read from."""
    without: frozenset[str] = frozenset()
    """Ticket columns that the user wants left out."""

    @property
    def other_labels(self) -> tuple[str, ...]:
        """The reasons of columns that could be the label instead."""
        return tuple(line for line in self.left_out if _COULD_BE in line)

    def of(self, column: str) -> Role | None:
        return next((role for role in self.found if role.column == column), None)


def time_format(profile: Profile, roles: Roles) -> str | None:
    """The format to declare for the file's times; None for none, or if it is not certain."""
    for column in ("created_at", "updated_at"):
        formats = _time_formats(profile, roles.of(column))
        if len(formats) == 1:
            return formats[0]
    return None


def assign_roles(
    profile: Profile, named: Mapping[TicketColumn, str] | None = None, *, label: str | None = None
) -> Roles:
    """Propose a ticket column for each suitable column of the file.

    Args:
        named: Ticket column -> column or path that the user names, or `none` to leave it out. With a body or reply each
            row is a ticket.
        label: The column that is the best label, if the user names none.

    Raises:
        ConfigError: TG0167, no row has a named column.
    """
    given = dict(named or {})
    without = frozenset(column for column, name in given.items() if name == NONE and name not in profile.top)
    roles = _assigned(profile, {column: name for column, name in given.items() if column not in without}, label)
    found = tuple(role for role in roles.found if role.column not in without)
    roles = replace(roles, found=found, without=without)
    updated = roles.of("updated_at")
    formats, declared = _time_formats(profile, updated), time_format(profile, roles)
    if updated is None or not formats or formats == (declared,):
        return roles
    # One format holds for both columns of times.
    reason = f"{shown(updated.name)}: no updated_at: its times are {formats[0]}, those of created_at {declared}"
    found = tuple(role for role in roles.found if role is not updated)
    return replace(roles, found=found, left_out=(*roles.left_out, reason))


def _time_formats(profile: Profile, role: Role | None) -> tuple[str, ...]:
    facts = None if role is None else facts_at(profile, role.name)
    return facts.time_formats if facts else ()


def _assigned(profile: Profile, named: Mapping[TicketColumn, str], label: str | None) -> Roles:
    chosen = _named_roles(profile, named)
    if label is not None and "category" not in named:
        facts = profile.columns[label]
        is_known = plain_form(label) in KNOWN.names["category"]
        chosen.append(Role("category", label, evidence_for("category", facts)[1], guessed=not is_known))
    if any(role.column in ("body", "reply") for role in chosen):
        return _of_tickets(profile, chosen, "each row is a ticket, by the columns that you name")
    for desk in KNOWN.desks:
        if set(desk.keys).issubset(profile.top):
            of_desk = [role for role in _of_desk(desk, profile) if not _is_taken(role, chosen)]
            return Roles("ticket", f"rows look like {desk.name}", (*chosen, *of_desk))
    shape = _shape(profile)
    if shape in ("ticket", "messages") and (turns := _turn_list(profile, shape)):
        found = [role for role in _by_name(profile, chosen) if role.column not in ("body", "reply", "subject")]
        held = Role("messages", turns.name, turns.evidence)
        summary = "each row is a conversation, of which all answers are learned"
        found = [held, *(role for role in found if _root(role.name) != turns.name)]
        return Roles("messages", summary, tuple(found), _left_out(profile, found, (turns.name,)), turns.turns)
    if shape == "ticket":
        return _of_tickets(profile, chosen, "each row is a ticket")
    keys = shape_keys(shape)
    summary = f"rows are of shape {shape} by their keys: {', '.join(key for key in keys if key in profile.top)}"
    # Keys of a shape may also be column names (`instruction`, `output`): the shape reads them.
    found = [role for role in _by_name(profile, chosen) if role.name not in keys]
    found = [role for role in found if role.column not in ("body", "reply")]
    return Roles(shape, summary, tuple(found), _left_out(profile, found, keys))


def _shape(profile: Profile) -> RowShape:
    """By the keys of the rows, and by the values: ids in a column `conversation` are no conversations."""
    shape = detect_shape(profile.top)
    keys = [key for key in shape_keys(shape)[:2] if key in profile.top] if shape == "sharegpt" else []
    values = [value for row in profile.rows for key in keys if (value := row.get(key)) is not None]
    if not keys or any(isinstance(value, list) for value in values):
        return shape
    return detect_shape([name for name in profile.top if name not in keys])


def _turn_list(profile: Profile, shape: RowShape) -> TurnList | None:
    """Lists of turns, but not the messages that the shape reads as they are."""
    found = find_turn_list(profile, speakers=(*KNOWN.speaker_names, "from"), agents=KNOWN.agents)
    return None if found and shape == "messages" and found.turns.speaker in ("role", "from") else found


def label_columns(profile: Profile, roles: Roles) -> dict[str, str]:
    """Top-level columns that could be the label -> the counts that show it; names of queues and labels first.

    The column that is the label is among them.
    """
    used = {role.name for role in roles.found if role.column != "category"}
    others = (name for column, names in KNOWN.names.items() if column != "category" for name in names)
    no_labels = {*KNOWN.language_names, *_NO_LABELS, *others}
    found = {}
    for name in profile.top:
        facts = profile.columns.get(name)
        if facts is None or name in used or shown(name).strip("'") != name or plain_form(name) in no_labels:
            continue
        fits, evidence = evidence_for("category", facts)
        if fits and facts.personal_share <= 0.2:
            found[name] = evidence
    order = {name: place for place, name in enumerate(KNOWN.names["category"])}
    return dict(sorted(found.items(), key=lambda pair: order.get(plain_form(pair[0]), len(order))))


def text_columns(profile: Profile, *, below: str | None = None) -> list[ColumnFacts]:
    """Columns and paths with a text of its own in most rows, the longest first: what a body or reply may be.

    Args:
        below: Only this column, or paths into it.
    """
    found = []
    for name, facts in profile.columns.items():
        is_readable = (facts.is_top or parse_path(name) is not None) and _is_plain_path(name)
        if is_readable and (below is None or _root(name) == below):
            fits, _ = evidence_for("body", facts)
            fits = fits and not facts.is_codes and 2 * facts.n_filled >= facts.n_rows and not facts.n_dates
            found += [facts] if fits else []
    return sorted(found, key=lambda facts: -facts.median_chars)


def _of_tickets(profile: Profile, chosen: list[Role], summary: str) -> Roles:
    """Roles of rows that are tickets by their columns."""
    found = _by_name(profile, chosen)
    if all(role.column != "created_at" for role in found):
        found += _time_by_values(profile, taken={role.name for role in found})
    for column in ("body", "category"):
        if all(role.column != column for role in found):
            found += _guess(column, profile, taken={role.name for role in found})
    found += _incomplete_ids(profile, found)
    return Roles("ticket", summary, tuple(found), _left_out(profile, found, ()))


def _by_name(profile: Profile, chosen: list[Role]) -> list[Role]:
    """The named roles, and those that the columns' names suggest."""
    by_form: dict[str, ColumnFacts] = {}
    for name, facts in profile.columns.items():
        by_form.setdefault(plain_form(name), facts)
    return chosen + [role for role in _first_fit(KNOWN.names, by_form) if not _is_taken(role, chosen)]


def _is_taken(role: Role, chosen: list[Role]) -> bool:
    return any(role.column == other.column or role.name == other.name for other in chosen)


def _named_roles(profile: Profile, named: Mapping[TicketColumn, str]) -> list[Role]:
    found = []
    for column, name in named.items():
        facts = facts_at(profile, name)
        if facts is None or not facts.n_filled:
            near = did_you_mean(name, profile.columns)
            texts = ", ".join(each.name for each in text_columns(profile)[:6])
            hint = f"texts are in: {texts}" if texts else f"columns: {listing(profile.top)}"
            hint = f"{near} {hint}" if near else hint
            raise ConfigError(f"no row has a value at {shown(name)}", code="TG0167", where=str(profile.path), hint=hint)
        fits, evidence = evidence_for(column, facts)
        if column == "ticket_id" and not fits:
            found.append(_thread_of(name, evidence))
            continue
        found.append(Role(column, name, f"named by you; {'' if fits else 'CHECK: '}{evidence}"))
    return found


def _incomplete_ids(profile: Profile, found: list[Role]) -> list[Role]:
    """A column `ticket_id` that some rows lack, or that repeats, groups the rows as threads.

    A run would read it by its name, and quarantine the rows without one.
    """
    facts = profile.columns.get("ticket_id")
    taken = {role.column for role in found} | {role.name for role in found}
    if facts is None or not facts.n_filled or not taken.isdisjoint(("ticket_id", "thread_id")):
        return []
    _, evidence = evidence_for("ticket_id", facts)
    return [_thread_of("ticket_id", evidence)]


def _thread_of(name: str, evidence: str) -> Role:
    """The role of a column of ids that some rows lack, or that repeats."""
    return Role("thread_id", name, f"CHECK: no id of a row: {evidence}; each row gets one from file and line")


def _left_out(profile: Profile, found: list[Role], keys: Collection[str]) -> tuple[str, ...]:
    used = {role.name for role in found}
    roots = {*keys, *(_root(name) for name in used if name not in profile.top)}
    unused = [facts for name, facts in profile.columns.items() if name not in used and _root(name) not in roots]
    reasons = {facts.name: reason for facts in unused if (reason := _why_left_out(facts))}
    lines = [f"{shown(name)}: {reason}" for name, reason in reasons.items()]
    if paths := _unread_paths(profile, {*used, *reasons}, keys):
        more = f" and {len(paths) - _MAX_PATHS:,} more" if len(paths) > _MAX_PATHS else ""
        lines.append(f"paths into nested rows that are not read: {', '.join(paths[:_MAX_PATHS])}{more}")
    return tuple(lines)


def _unread_paths(profile: Profile, known: Collection[str], keys: Collection[str]) -> list[str]:
    """The nested paths in most rows that are not known, a list by its own path; rare keys may be personal data."""
    paths = dict.fromkeys(
        name.partition("[")[0]
        for name, facts in profile.columns.items()
        if not facts.is_top and _root(name) not in keys and name not in known and 2 * facts.n_filled >= facts.n_rows
    )
    read = {name.partition("[")[0] for name in known}
    return [path for path in paths if path not in read and _FIELD_PATH.fullmatch(path)]


def _of_desk(desk: Desk, profile: Profile) -> list[Role]:
    found = _first_fit(desk.columns, profile.columns)
    inner, expected = desk.answer_is
    known = [value for value in _values(profile, f"{desk.first_answer}.{inner}") if isinstance(value, bool | str)]
    notes = ""
    if known:
        share = percent(sum(value == expected for value in known), len(known))
        notes += f"; {share} of {len(known):,} have {inner} {str(expected).lower()}"
    if desk.by_customer:
        author, customer = desk.by_customer
        pairs = zip(_values(profile, f"{desk.first_answer}.{author}"), _values(profile, customer), strict=True)
        if n_own := sum(one == other and one not in (None, MISSING) for one, other in pairs):
            notes += (
                f"; CHECK: in {n_own:,} of {profile.n_sampled:,} rows the customer wrote it ({author} is {customer})"
            )
    return [replace(role, evidence=role.evidence + notes) if role.column == "reply" else role for role in found]


def _values(profile: Profile, name: str) -> list[object]:
    """The value in this column or at this path, in each sampled row."""
    path = parse_path(name) or (name,)  # a name alone is no path
    return [walk(row, path) for row in profile.rows]


def _first_fit(wanted: Mapping[TicketColumn, Words], by_name: Mapping[str, ColumnFacts]) -> list[Role]:
    """For each ticket column, the best-named column that its values confirm; none is used twice."""
    found: dict[str, Role] = {}
    for column, names in wanted.items():
        for facts in (by_name[name] for name in names if name in by_name and by_name[name].name not in found):
            # `columns` in pipelines.yaml reads a top-level column, or a path in the supported syntax.
            readable = facts.is_top or parse_path(facts.name) is not None
            fits, evidence = evidence_for(column, facts)
            if readable and fits:
                found[facts.name] = Role(column, facts.name, evidence)
                break
    return list(found.values())


def _guess(column: TicketColumn, profile: Profile, *, taken: Collection[str]) -> list[Role]:
    """The one column whose values alone suit the role; none if there are several."""
    fit = []
    for name, facts in profile.columns.items():
        known = {*KNOWN.language_names, *(_NO_LABELS if column == "category" else ())}
        says_else = name in taken or shown(name) != name or plain_form(name) in known
        if says_else or not facts.is_top or facts.personal_share > 0.5 or facts.n_dates >= facts.n_filled / 2:
            continue
        if column == "body" and facts.is_codes:
            continue
        fits, evidence = evidence_for(column, facts)
        fit += [Role(column, name, evidence, guessed=True)] if fits else []
    return fit if len(fit) == 1 else []


def _time_by_values(profile: Profile, *, taken: Collection[str]) -> list[Role]:
    """The one column whose values are all times, whatever its name; none if there are several.

    Numbers may be anything, unless they can only be Excel's times. Names such as `due_date` say another time than that
    of writing.
    """
    others = {*KNOWN.other_times, *KNOWN.names["updated_at"]}
    fit = [
        facts
        for name, facts in profile.columns.items()
        if facts.is_top and name not in taken and shown(name) == name and plain_form(name) not in others
        if facts.is_excel_time or (facts.kinds["time"] == facts.n_filled and not facts.kinds["number"])
        if facts.n_filled == facts.n_rows
        if facts.n_distinct > 1 and len(facts.time_formats) <= 1
    ]
    if len(fit) != 1:
        return []
    return [Role("created_at", fit[0].name, evidence_for("created_at", fit[0])[1], guessed=True)]


def _is_plain_path(name: str) -> bool:
    """True if a message may show the path: keys of JSON may be personal data."""
    return all(is_plain(part) for part in re.split(r"[.\[\]]+", name) if part and not part.lstrip("-").isdigit())


def _root(name: str) -> str:
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _why_left_out(facts: ColumnFacts) -> str:
    """The reason; empty for a nested path that no user would miss."""
    if not facts.n_filled:
        return "empty in every sampled row"
    if facts.personal_share >= 0.2:
        kinds = {"e-mail": facts.kinds["email"], "phone": facts.kinds["phone"]}
        shares = ", ".join(f"{kind} in {percent(n, facts.n_filled)}" for kind, n in kinds.items() if n)
        return f"personal data ({shares}); a run does not read it"
    form = plain_form(facts.name)
    if form in KNOWN.language_names:
        return f"{facts.n_distinct:,} languages; a run detects languages from the text itself (step `language`)"
    if facts.n_distinct == 1:
        share = percent(facts.n_filled, facts.n_rows)
        return "one value in every row" if facts.n_filled == facts.n_rows else f"one value, in {share} of the rows"
    column = next((column for column, names in KNOWN.names.items() if form in names), None)
    if column is not None:
        fits, evidence = evidence_for(column, facts)
        if not fits:
            own = f"; CHECK: a run reads it as {facts.name} because of its name" if facts.name in CANONICAL else ""
            return f"not a {column}: {evidence}{own}"
    fits, evidence = evidence_for("category", facts)
    label = f" by its name; {_COULD_BE} ({evidence})" if fits else ""
    return f"no ticket column{label}" if facts.is_top else ""


def evidence_for(column: TicketColumn, facts: ColumnFacts) -> tuple[bool, str]:
    """Whether these values suit the column, and the counts that show it."""
    n, n_rows, n_distinct = facts.n_filled, facts.n_rows, facts.n_distinct
    if not n:
        return False, "empty in every sampled row"
    match column:
        case "created_at" | "updated_at":
            n_times = facts.kinds["excel" if facts.time_formats == (EXCEL_DAYS,) else "time"]
            what = f"parse as {facts.times_as}" if facts.kinds["text"] or facts.kinds["excel"] else "are times"
            if facts.kinds["date"] >= 0.5 * n and len(facts.time_formats) > 1:
                what += f"; CHECK: `time_format` may be {' or '.join(facts.time_formats[:2])}"
            if n_distinct == 1 < n:
                return False, "one time in all rows"
            if n < n_rows:
                what += f"; {n_rows - n:,} of {n_rows:,} rows have none"
            return n_times / n >= 0.9, f"{percent(n_times, n)} of {n:,} values {what}"
        case "rating":
            return facts.kinds["number"] == n, f"{percent(facts.kinds['number'], n)} of {n:,} are numbers"
        case "category" | "priority" | "product" | "channel":
            few = 2 <= n_distinct <= min(MAX_LABELS, max(3, n // 5))
            if facts.kinds["boolean"]:
                return False, f"true or false in {facts.kinds['boolean']:,} rows; a label is text or a number"
            if facts.n_dates >= n / 2:
                return False, f"dates, {n_distinct:,} different ones"
            return few and facts.median_chars <= 60, f"{n_distinct:,} different values in {_rows(n, n_rows)}"
        case "subject" | "body" | "reply":
            text = f"text in {percent(facts.kinds['text'], n_rows)} of {n_rows:,} rows, "
            text += f"median {facts.median_chars:,} characters"
            if facts.n_dates >= n / 2:
                return False, f"{text}, but dates"
            if column != "reply" and n_rows >= 10 and n_distinct <= max(2, 0.02 * n):
                return False, f"{text}, only {n_distinct:,} distinct"
            return facts.kinds["text"] / n >= 0.95 and facts.median_chars >= (3 if column == "subject" else 10), text
        case "ticket_id":
            text = f"{n_distinct:,} different values in {n:,} of {n_rows:,} rows"
            return n == n_rows and n_distinct >= 0.95 * n_rows, text
        case _:  # customer_id, thread_id, reference
            text = f"{n_distinct:,} different values in {n:,} of {n_rows:,} rows"
            if facts.personal_share >= 0.2:
                text += "; personal data: `redact.pseudonymise` replaces it, with a key from the environment"
            return facts.median_chars <= 120 and (n_distinct > 1 or n_rows == 1), text


def _rows(n: int, of: int) -> str:
    return f"{n:,} rows" if n == of else f"{n:,} of {of:,} rows"


def percent(n: float, of: float) -> str:
    """A share as a percentage, never rounded up to 100 or down to 0.

    >>> percent(1199, 1200), percent(1200, 1200), percent(1, 3000)
    ('99.9 %', '100 %', '0.1 %')
    """
    share = 100 * n / of if of else 0.0
    share = round(share, 1 if share > 99 or share < 1 else 0)
    return f"{min(max(share, 0.1), 99.9) if 0 < n < of else share:g} %"


def plain_form(name: str) -> str:
    """The name in lower case with underscores.

    >>> plain_form("Ticket ID"), plain_form("createdAt"), plain_form("requester.id")
    ('ticket_id', 'created_at', 'requester_id')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
