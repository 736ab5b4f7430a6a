"""Which column of a file is for what: proposed by its name and borne out by its values, each with the evidence.

A name alone never decides: a `date` that does not parse, or an `id` that repeats, is left out, with the reason. The
names, and the forms of help desks, are in `columns.yaml`. Evidence is made of counts; it repeats no value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from schemas.columns import Shape, TicketColumn
from schemas.source import FilesSource
from tasks.curate.readers.headers import shown
from tasks.curate.readers.layouts import CANONICAL
from tasks.curate.readers.paths import parse_path, walk
from tasks.curate.readers.shapes import detect_shape, shape_keys
from tasks.start.look import ColumnFacts, Look

_KNOWN: Any = YAML(typ="safe").load(Path(__file__).with_name("columns.yaml"))
NAMES: Mapping[TicketColumn, tuple[str, ...]] = {
    column: tuple(names.split()) for column, names in _KNOWN["names"].items()
}
"""Ticket column -> names that speak for it, in `plain_form`, the best first."""
LANGUAGE_NAMES = frozenset({"language", "lang", "locale", "language_code"})
MAX_LABELS = 100
"""Most different values of a routing field."""


@dataclass(frozen=True)
class Desk:
    """A help desk's form of a ticket, whose rows are nested."""

    name: str
    keys: tuple[str, ...]
    """Keys at the top of each row, all of which must be there."""
    columns: Mapping[TicketColumn, tuple[str, ...]]
    """Ticket column -> paths that may hold it, the best first."""
    first_answer: str
    """Path of the item after the customer's own, whoever wrote it."""
    by_agent: tuple[str, object]
    """Path inside `first_answer`, and the value it has when an agent wrote it."""


DESKS = tuple(
    Desk(
        name=desk["name"],
        keys=tuple(desk["keys"].split()),
        columns={column: tuple(paths.split()) for column, paths in desk["columns"].items()},
        first_answer=desk["first_answer"],
        by_agent=tuple(desk["by_agent"]),
    )
    for desk in _KNOWN["desks"]
)


@dataclass(frozen=True)
class Role:
    """A ticket column and what it is read from."""

    column: TicketColumn
    name: str
    evidence: str
    guessed: bool = False
    """Only its values speak for it."""


@dataclass(frozen=True)
class Roles:
    """What the columns of a file are for."""

    shape: Shape
    summary: str
    """What the rows are, in words."""
    found: tuple[Role, ...]
    left_out: tuple[str, ...] = ()
    """A sentence for each column that is not used and deserves one."""

    def of(self, column: str) -> Role | None:
        return next((role for role in self.found if role.column == column), None)

    def source(self, path: str) -> FilesSource:
        """How a run would read the file."""
        return FilesSource(
            kind="files", paths=(path,), shape=self.shape, columns={role.column: role.name for role in self.found}
        )


def assign_roles(look: Look) -> Roles:
    """Propose a ticket column for each column of the file that is fit for one."""
    desk = next((desk for desk in DESKS if all(key in look.top for key in desk.keys)), None)
    if desk is not None:
        return Roles("ticket", f"rows look like {desk.name}", tuple(_of_desk(desk, look)))
    found = _by_name(look)
    shape = detect_shape(look.top)
    if shape != "ticket":
        # Keys of a shape may be names of columns too (`instruction`, `output`): the shape reads them.
        keys = set(shape_keys(shape))
        found = [role for role in found if role.name not in keys and role.column not in ("body", "reply")]
        summary = f"rows are of shape {shape} by their keys: {', '.join(k for k in shape_keys(shape) if k in look.top)}"
        return Roles(shape, summary, tuple(found), _left_out(look, found, keys))
    for column in ("body", "category"):
        if not any(role.column == column for role in found):
            found += _guess(look, column, {role.name for role in found})
    return Roles("ticket", "each row is a ticket", tuple(found), _left_out(look, found, set()))


def _of_desk(desk: Desk, look: Look) -> list[Role]:
    found = []
    for column, paths in desk.columns.items():
        fit = (_role(column, look.columns[path], look) for path in paths if path in look.columns)
        found += [role for role in fit if role is not None][:1]
    inner, agent = desk.by_agent
    said = [walk(row, parse_path(f"{desk.first_answer}.{inner}") or ()) for row in look.rows]
    known = [value for value in said if isinstance(value, bool | str)]
    if not known:
        return found
    share = percent(sum(value == agent for value in known), len(known))
    by_agent = f"; {share} of {len(known):,} have {inner} {str(agent).lower()}"
    return [Role(r.column, r.name, r.evidence + by_agent) if r.column == "reply" else r for r in found]


def _by_name(look: Look) -> list[Role]:
    """For each ticket column the best-named column that its values bear out; none is taken twice."""
    by_form: dict[str, ColumnFacts] = {}
    for name, facts in look.columns.items():
        by_form.setdefault(plain_form(name), facts)
    found: dict[str, Role] = {}
    for column, forms in NAMES.items():
        for facts in (by_form[form] for form in forms if form in by_form):
            # `columns` of pipelines.yaml reads a column of the top, or a path of the form that it knows.
            readable = facts.name in look.top or parse_path(facts.name) is not None
            if readable and facts.name not in found and (role := _role(column, facts, look)):
                found[facts.name] = role
                break
    return list(found.values())


def _role(column: TicketColumn, facts: ColumnFacts, look: Look, *, guessed: bool = False) -> Role | None:
    evidence = evidence_for(column, facts, look.n_looked)
    return Role(column, facts.name, evidence.text, guessed) if evidence.fits else None


def _guess(look: Look, column: TicketColumn, taken: Collection[str]) -> list[Role]:
    """The one column that is fit by its values alone; none where there are several."""
    fit = []
    for name, facts in look.columns.items():
        if name in taken or name not in look.top or shown(name) != name or plain_form(name) in LANGUAGE_NAMES:
            continue
        if facts.personal_share <= 0.5 and facts.n_times < facts.n_filled / 2:
            fit += [role] if (role := _role(column, facts, look, guessed=True)) else []
    return fit if len(fit) == 1 else []


def _left_out(look: Look, found: Collection[Role], keys: set[str]) -> tuple[str, ...]:
    used = {role.name for role in found}
    roots = {str(path[0]) for name in used if (path := parse_path(name)) and name not in look.top}
    reasons = []
    for name, facts in look.columns.items():
        if name in used or name in keys or re.split(r"[.\[]", name, maxsplit=1)[0] in {*roots, *keys}:
            continue
        if reason := _why_left_out(name, facts, look):
            reasons.append(f"{shown(name)}: {reason}")
    return tuple(reasons)


def _why_left_out(name: str, facts: ColumnFacts, look: Look) -> str:
    if not facts.n_filled:
        return "empty in every row looked at"
    if facts.personal_share >= 0.2:
        kinds = {"e-mail": facts.n_emails, "phone": facts.n_phones}
        shares = ", ".join(f"{kind} in {percent(n, facts.n_filled)}" for kind, n in kinds.items() if n)
        return f"personal data ({shares}); a run does not read it"
    form = plain_form(name)
    if form in LANGUAGE_NAMES:
        return f"{facts.n_distinct:,} languages; a run tells languages from the text itself (step `language`)"
    if facts.n_distinct == 1:
        return "one value in every row"
    wanted = next((column for column, forms in NAMES.items() if form in forms), None)
    if wanted is not None and not (evidence := evidence_for(wanted, facts, look.n_looked)).fits:
        own = f"; CHECK: a run takes it as {name} by its own name" if name in CANONICAL else ""
        return f"no {wanted}: {evidence.text}{own}"
    if name not in look.top:
        return ""
    label = evidence_for("category", facts, look.n_looked)
    return f"no ticket column by its name; could be a label ({label.text})" if label.fits else "no ticket column"


class Evidence(NamedTuple):
    """What speaks for or against a column."""

    fits: bool
    text: str


def evidence_for(column: TicketColumn, facts: ColumnFacts, n_rows: int) -> Evidence:
    """Are these values such a column's?

    Args:
        n_rows: Rows looked at; a nested path may be absent in some.
    """
    n, n_distinct = facts.n_filled, facts.n_distinct
    if not n:
        return Evidence(False, "empty in every row looked at")
    match column:
        case "created_at" | "updated_at":
            what = "parse as ISO 8601 or seconds since 1970" if facts.n_texts else "are times"
            return Evidence(facts.share(facts.n_times) >= 0.9, f"{percent(facts.n_times, n)} of {n:,} values {what}")
        case "rating":
            return Evidence(facts.n_numbers == n, f"{percent(facts.n_numbers, n)} of {n:,} are numbers")
        case "category" | "priority" | "product" | "channel":
            few = 2 <= n_distinct <= min(MAX_LABELS, max(3, n // 5))
            return Evidence(few and facts.median_chars <= 60, f"{n_distinct:,} different values in {n:,} rows")
        case "subject" | "body" | "reply":
            least = 3 if column == "subject" else 10
            text = f"text in {percent(facts.n_texts, n_rows)} of {n_rows:,} rows, "
            text += f"{facts.median_chars:,} characters in the middle"
            if column != "reply" and n_rows >= 10 and n_distinct <= max(2, 0.02 * n):
                return Evidence(False, f"{text}, only {n_distinct:,} different")
            return Evidence(facts.share(facts.n_texts) >= 0.95 and facts.median_chars >= least, text)
        case _:  # ticket_id, customer_id, thread_id, reference
            text = f"{n_distinct:,} different values in {n:,} of {n_rows:,} rows"
            if column == "ticket_id":
                return Evidence(n == n_rows and n_distinct >= 0.95 * n_rows, text)
            if facts.personal_share >= 0.2:
                text += "; personal data: `redact.pseudonymise` replaces it, with a key from the environment"
            return Evidence(facts.median_chars <= 120 and (n_distinct > 1 or n_rows == 1), text)


def percent(n: int, of: int) -> str:
    """A share in words, never rounded up to all or down to none.

    >>> percent(1199, 1200), percent(1200, 1200), percent(1, 3000)
    ('99.9 %', '100 %', '0.1 %')
    """
    share = 100 * n / of if of else 0.0
    value = round(share, 1 if share > 99 or share < 1 else 0)
    if n < of:
        value = min(value, 99.9)
    if n > 0:
        value = max(value, 0.1)
    return f"{value:g} %"


def plain_form(name: str) -> str:
    """The name in lower case with underscores.

    >>> plain_form("Ticket ID"), plain_form("createdAt"), plain_form("requester.id")
    ('ticket_id', 'created_at', 'requester_id')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
