"""Which column of a file is for what: proposed by its name and borne out by its values, each with the evidence.

A name alone never decides: a `date` that does not parse, or an `id` that repeats, is left out and said so. It writes
nothing. Called by `tasks/start/propose.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from schemas.columns import Shape, TicketColumn
from schemas.source import FilesSource
from tasks.curate.readers.headers import shown
from tasks.curate.readers.layouts import CANONICAL
from tasks.curate.readers.paths import parse_path, walk
from tasks.curate.readers.shapes import detect_shape, shape_keys
from tasks.start.desks import Desk, desk_of
from tasks.start.evidence import evidence_for, percent, personal_share
from tasks.start.look import ColumnFacts, Look

NAMES: Mapping[TicketColumn, str] = {
    "ticket_id": "ticket_id id ticketid ticket_number ticket_no ticket case_id case_number issue_id request_id "
    "conversation_id display_id number key",
    "customer_id": "customer_id customerid requester_id user_id userid contact_id client_id account_id submitter_id "
    "author_id customer requester client customer_email requester_email user_email email from",
    "thread_id": "thread_id conversation_id parent_id",
    "created_at": "created_at created created_on created_date creation_date date_created opened_at opened submitted_at "
    "received_at sent_at date_of_creation timestamp datetime date time",
    "updated_at": "updated_at updated modified_at last_modified updated_on last_update",
    "product": "product product_name product_purchased brand app service",
    "channel": "channel ticket_channel via_channel via origin source_type",
    "subject": "subject ticket_subject title summary headline",
    "body": "body description_text description body_text plain_body question message customer_message ticket_text "
    "ticket_description ticket_body text query request content utterance instruction comment",
    "reply": "reply agent_reply first_reply response agent_response answer resolution solution output target_text",
    "category": "category ticket_category label intent topic issue_type ticket_type type queue department group class "
    "routing route",
    "priority": "priority ticket_priority urgency severity",
    "rating": "rating csat satisfaction_rating satisfaction_score customer_satisfaction_rating satisfaction score",
    "reference": "order_number order_id order_no case_reference reference",
}  # fmt: skip
LANGUAGE_NAMES = frozenset({"language", "lang", "locale", "language_code"})


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
    told: str
    """What the rows are, in words."""
    found: tuple[Role, ...]
    left_out: tuple[str, ...]
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
    desk = desk_of(look.top)
    if desk is not None:
        return _of_desk(desk, look)
    named = _by_name(look, taken=set())
    shape = detect_shape(look.top)
    if shape == "ticket":
        return _tickets(look, named)
    # Keys of a shape may be names of columns too (`instruction`, `output`): the shape reads them.
    keys = set(shape_keys(shape))
    others = tuple(role for role in named if role.name not in keys and role.column not in ("body", "reply"))
    told = f"rows are of shape {shape} by their keys: {', '.join(key for key in shape_keys(shape) if key in look.top)}"
    return Roles(shape, told, others, _left_out(look, others, keys))


def _tickets(look: Look, named: tuple[Role, ...]) -> Roles:
    found = named
    for column in ("body", "category"):
        if not any(role.column == column for role in found):
            guess = _guess(look, column, {role.name for role in found})
            found = (*found, *([guess] if guess else []))
    return Roles("ticket", "each row is a ticket", found, _left_out(look, found, set()))


def _of_desk(desk: Desk, look: Look) -> Roles:
    found = []
    for column, paths in desk.columns.items():
        for path in paths:
            facts = look.columns.get(path)
            evidence = facts and evidence_for(column, facts, look.n_looked)
            if facts and evidence and evidence.fits:
                found.append(Role(column, path, evidence.told + _by_agent(desk, look, column)))
                break
    return Roles("ticket", f"rows look like {desk.name}", tuple(found), ())


def _by_agent(desk: Desk, look: Look, column: str) -> str:
    """How often the first answer really is an agent's, where the export says so."""
    place = parse_path(desk.first_answer) or (desk.first_answer,)
    if column != "reply" or desk.by_agent is None:
        return ""
    inner = desk.by_agent[0]
    said = [walk(row, (*place, *(parse_path(inner) or (inner,)))) for row in look.rows]
    known = [value for value in said if isinstance(value, bool | str)]
    if not known:
        return ""
    n_agent = sum(value == desk.by_agent[1] for value in known)
    return f"; {percent(n_agent, len(known))} of {len(known):,} have {inner} {str(desk.by_agent[1]).lower()}"


def _by_name(look: Look, *, taken: set[str]) -> tuple[Role, ...]:
    by_form: dict[str, str] = {}
    for name in look.columns:
        by_form.setdefault(plain_form(name), name)
    found = []
    for column, forms in NAMES.items():
        for form in forms.split():
            facts = look.columns.get(by_form.get(form, ""))
            facts = None if facts is not None and facts.name in taken else facts
            if facts is None or not _may_be_named(look, facts.name):
                continue
            evidence = evidence_for(column, facts, look.n_looked)
            if evidence.fits:
                found.append(Role(column, facts.name, evidence.told))
                taken.add(facts.name)
                break
    return tuple(found)


def _may_be_named(look: Look, name: str) -> bool:
    """A column of the top, or a path of the form that `columns` reads."""
    return name in look.top or parse_path(name) is not None


def _guess(look: Look, column: TicketColumn, taken: Collection[str]) -> Role | None:
    """The one column that is fit by its values alone; null where there is none, or several."""
    fit = []
    for name, facts in look.columns.items():
        if name in taken or name not in look.top or shown(name) != name or plain_form(name) in LANGUAGE_NAMES:
            continue
        evidence = evidence_for(column, facts, look.n_looked)
        if evidence.fits and not personal_share(facts) > 0.5 and facts.n_times < facts.n_filled / 2:
            fit.append(Role(column, name, evidence.told, guessed=True))
    return fit[0] if len(fit) == 1 else None


def _left_out(look: Look, found: tuple[Role, ...], keys: set[str]) -> tuple[str, ...]:
    used = {role.name for role in found}
    roots = {str(path[0]) for name in used if (path := parse_path(name)) and name not in look.top}
    told = []
    for name, facts in look.columns.items():
        if name in used or name in keys or name.partition(".")[0].partition("[")[0] in {*roots, *keys}:
            continue
        if said := _why_left(name, facts, look):
            told.append(f"{shown(name)}: {said}")
    return tuple(told)


def _why_left(name: str, facts: ColumnFacts, look: Look) -> str:
    if not facts.n_filled:
        return "empty in every row looked at"
    if personal_share(facts) >= 0.2:
        return f"personal data ({_kinds(facts)}); a run does not read it"
    if plain_form(name) in LANGUAGE_NAMES:
        return f"{facts.n_distinct:,} languages; a run tells languages from the text itself (step `language`)"
    if facts.n_distinct == 1:
        return "one value in every row"
    wanted = next((column for column, forms in NAMES.items() if plain_form(name) in forms.split()), None)
    if wanted is not None:
        evidence = evidence_for(wanted, facts, look.n_looked)
        if not evidence.fits:
            own = f"; CHECK: a run takes it as {name} by its own name" if name in CANONICAL else ""
            return f"no {wanted}: {evidence.told}{own}"
    if name not in look.top:
        return ""
    label = evidence_for("category", facts, look.n_looked)
    return f"no ticket column by its name; could be a label ({label.told})" if label.fits else "no ticket column"


def _kinds(facts: ColumnFacts) -> str:
    kinds = {"e-mail": facts.n_emails, "phone": facts.n_phones}
    return ", ".join(f"{kind} in {percent(n, facts.n_filled)}" for kind, n in kinds.items() if n)


def plain_form(name: str) -> str:
    """The name in lower case with underscores.

    >>> plain_form("Ticket ID"), plain_form("createdAt"), plain_form("requester.id")
    ('ticket_id', 'created_at', 'requester_id')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")
