"""Join the tables of a database to rows of tickets, where keys make it certain.

A link between two tables is certain if the database declares it, or if its names agree and the values bear it out: they
are unique in one table, which has all of those looked up in the other. The SQL is what DuckDB, SQLite and Postgres have
in common. Evidence consists of names and counts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from schemas.spec import Spec
from schemas.tables import TicketColumn
from tasks.sources.tables import SourceDatabase, SourceTable
from tasks.start.doubts import speaker_columns
from tasks.start.file_profile import ColumnFacts, Profile
from tasks.start.roles import KNOWN, MAX_LABELS, Roles, Words, assign_roles, plain_form
from tasks.storage.warehouse import quote_identifier, quote_text

MAX_LOOKED_UP = 2000
"""Different values of a column that are looked up in another table."""
_MAX_UNNAMED = 20
"""Tables up to which links between columns whose names do not agree are searched."""
_MIN_UNNAMED = 20
"""Different values below which such a link may be chance."""
_MIXED = 0.5
"""Share of the tickets with several messages in which both sides must have written."""
_FIRST_IS_CUSTOMER = 0.9
_KEY_ENDING = re.compile(r"_?(id|key|nr|no|number|nummer|ref|uuid|guid)$")
_FEW = 10
"""Different values up to which a column may say what kind of message a row is."""


class MessageWords(Spec):
    """The content of `joins.yaml`."""

    customers: Words
    agents: Words
    neither: Words
    customer_if_true: Words
    agent_if_true: Words
    hidden_if_true: Words
    shown_if_true: Words
    deleted_if_true: Words
    author_ids: Words
    texts: Words
    hidden_values: Words

    def side_of(self, value: str) -> str | None:
        """`customer`, `agent`, or an empty text for neither; None for an unknown word."""
        word = plain_form(value)
        sides = {"customer": self.customers, "agent": self.agents, "": self.neither}
        return next((side for side, words in sides.items() if word in words), None)


WORDS = MessageWords.model_validate(YAML(typ="safe").load(Path(__file__).with_name("joins.yaml")))


@dataclass(frozen=True)
class Link:
    """A column of one table with the values of a unique column of another."""

    child: SourceTable
    column: str
    parent: SourceTable
    to: str
    reason: str
    is_unique: bool
    """No value repeats in the child: it has at most one row for each of the parent."""

    @property
    def evidence(self) -> str:
        return f"{self.child.name}.{self.column} is {self.parent.name}.{self.to}: {self.reason}"


@dataclass(frozen=True)
class Join:
    """A SELECT that makes one row of each ticket."""

    table: SourceTable
    """That of the tickets."""
    before: str
    """Its common table expressions; empty for none."""
    columns: Mapping[str, str]
    """Column of the result -> SQL."""
    tables: str
    """From FROM on."""
    evidence: tuple[str, ...]
    """What each part of it is based on, and what is left out."""
    times: tuple[str, ...]
    """SQL of times at which the ticket, or a message of it, was written."""
    key: str = "ticket_id"
    """The column of the result that is unique."""

    @property
    def sql(self) -> str:
        return self.with_columns({})

    def with_columns(self, more: Mapping[str, str]) -> str:
        """The SELECT with further columns of the result."""
        selected = ",\n".join(f"  {sql} AS {quote_identifier(name)}" for name, sql in {**self.columns, **more}.items())
        return f"{self.before}SELECT\n{selected}\n{self.tables}"


@dataclass(frozen=True)
class _Messages:
    """A table of messages, and how its rows are told apart."""

    link: Link
    """To the tickets."""
    text: str
    order: tuple[str, ...]
    side: str
    """SQL with the value `customer` or `agent`."""
    where: tuple[str, ...]
    """Conditions of messages that a customer may see."""
    evidence: tuple[str, ...]


def looks_like_tickets(roles: Roles) -> bool:
    """Whether each row has a customer's text, and an answer or a label."""
    if roles.shape != "ticket":
        return True
    found = {role.column for role in roles.found if not role.guessed}
    return "body" in found and not found.isdisjoint(("reply", "category", "priority"))


def propose_join(database: SourceDatabase, profiles: Mapping[str, Profile]) -> Join | None:
    """The one join that keys make certain; None if there is none, or one table alone is as good.

    Args:
        profiles: Table -> profile of its first rows; tables without rows are left out.
    """
    links = list(find_links(database, profiles))
    messages = list(_find_messages(database, profiles, links))
    if len(messages) > 1:
        return None
    name = messages[0].link.parent.name if messages else _alone(profiles)
    table = next((table for table in database.tables if table.name == name), None)
    if table is None:
        return None
    return _Writer(database, profiles, links, table).write(messages[0] if messages else None)


def _alone(profiles: Mapping[str, Profile]) -> str | None:
    """The one table with a customer's text and an answer or label, or with a text alone; None if there are several."""
    roles = {name: assign_roles(profile) for name, profile in profiles.items()}
    for fits in (looks_like_tickets, lambda found: _named(found, "body") is not None):
        found = [name for name, each in roles.items() if fits(each)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _named(roles: Roles, column: TicketColumn) -> str | None:
    """The column with this role by its name."""
    role = roles.of(column)
    return role.name if role is not None and not role.guessed else None


def find_links(database: SourceDatabase, profiles: Mapping[str, Profile]) -> Iterator[Link]:
    """All certain links; a column that fits several tables by its values alone has none."""

    @cache
    def is_unique(table: SourceTable, column: str) -> bool:
        name = quote_identifier(column)
        n = database.select(f"SELECT count({name}) AS n, count(DISTINCT {name}) AS u, count(*) AS a FROM {table.sql}")
        return len(set(n[0].values())) == 1 and table.n_rows > 0

    tables = [table for table in database.tables if table.name in profiles]
    keys = [
        (table, facts)
        for table in tables
        for facts in profiles[table.name].columns.values()
        if facts.is_top and facts.n_distinct == facts.n_filled == facts.n_rows and not facts.n_dates
        if _is_key(facts, table)
    ]
    for child in tables:
        declared = {key.column: (key.table, key.to) for key in child.foreign_keys}
        for facts in profiles[child.name].columns.values():
            if not facts.is_top or not facts.n_filled:
                continue
            fit = []
            for parent, key in keys:
                if parent == child or not _are_alike(profiles, (child, facts), (parent, key)):
                    continue
                is_declared = declared.get(facts.name) == (parent.name, key.name)
                agrees = is_declared or _names_agree(facts.name, parent, key.name)
                is_named = agrees and _is_of(plain_form(facts.name), parent)
                if not agrees and (facts.n_distinct < _MIN_UNNAMED or len(tables) > _MAX_UNNAMED or not key.is_codes):
                    continue
                if not is_unique(parent, key.name) or not (n := _looked_up(database, child, facts, parent, key)):
                    continue
                reason = f"{'declared, and ' if is_declared else ''}unique in {parent.n_rows:,} rows, which have all "
                reason += f"{n:,} values looked up"
                link = Link(child, facts.name, parent, key.name, reason, is_unique(child, facts.name))
                fit.append(((is_declared, is_named, agrees), link))
            best = [link for rank, link in fit if rank == max(rank for rank, _ in fit)]
            if len(best) == 1:
                yield best[0]


def _is_key(facts: ColumnFacts, table: SourceTable) -> bool:
    return table.primary_key == (facts.name,) or facts.is_codes or bool(_KEY_ENDING.search(plain_form(facts.name)))


def _are_alike(
    profiles: Mapping[str, Profile], one: tuple[SourceTable, ColumnFacts], other: tuple[SourceTable, ColumnFacts]
) -> bool:
    """Whether the values of both columns have one type, so that the database can compare them."""
    kinds, types = [], []
    for table, facts in (one, other):
        values = (row.get(facts.name) for row in profiles[table.name].rows)
        kinds.append({type(value) for value in values if value is not None})
        types.append(_family(table.types[facts.name]))
    return kinds[0] == kinds[1] and len(kinds[0]) == 1 and types[0] == types[1]


def _family(type_: str) -> str:
    """The type, or what compares with it.

    >>> _family("BIGINT"), _family("character varying"), _family("uuid")
    ('int', 'text', 'uuid')
    """
    name = type_.lower()
    return "int" if "int" in name else "text" if "char" in name or name == "text" else name


def _names_agree(column: str, parent: SourceTable, key: str) -> bool:
    """Whether a column is named for the table that it points to, or as its key.

    `customer_id` points to `customers.id`, and `kundennr` to `kunden.kundennr`.
    """
    form, key_form = plain_form(column), plain_form(key)
    if form == key_form:
        return _KEY_ENDING.sub("", form) != ""
    if key_form != "key" and _KEY_ENDING.sub("", key_form) and not _is_of(key_form, parent):
        return False
    return bool(_KEY_ENDING.search(form)) and _is_of(form, parent)


def _is_of(form: str, table: SourceTable) -> bool:
    stem, names = _KEY_ENDING.sub("", form), {plain_form(table.stem), singular(plain_form(table.stem))}
    return stem in names


def singular(name: str) -> str:
    """An English plural as its singular, near enough for names of tables.

    >>> singular("tickets"), singular("categories"), singular("status"), singular("inboxes")
    ('ticket', 'category', 'status', 'inbox')
    """
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if name.endswith(("ses", "xes", "ches", "shes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "us", "is")) else name


def _looked_up(
    database: SourceDatabase, child: SourceTable, facts: ColumnFacts, parent: SourceTable, key: ColumnFacts
) -> int:
    """The number of different values looked up in the parent; 0 if one is missing there."""
    column, to = quote_identifier(facts.name), quote_identifier(key.name)
    values = f"SELECT DISTINCT {column} AS v FROM {child.sql} WHERE {column} IS NOT NULL LIMIT {MAX_LOOKED_UP}"
    found = database.select(
        f"SELECT count(*) AS n, count(p.{to}) AS found FROM ({values}) AS c LEFT JOIN {parent.sql} AS p ON p.{to} = c.v"
    )[0]
    return int(str(found["n"])) if found["n"] == found["found"] else 0


def _find_messages(
    database: SourceDatabase, profiles: Mapping[str, Profile], links: Sequence[Link]
) -> Iterator[_Messages]:
    """Tables with several messages of a ticket, where it is certain who wrote each."""
    for table in database.tables:
        if table.name not in profiles:
            continue
        profile = profiles[table.name]
        texts = (
            name for name in profile.top if plain_form(name) in WORDS.texts and profile.columns[name].kinds["text"]
        )
        text, order = _named(assign_roles(profile), "body") or next(texts, None), _order(table, profile)
        if text is None or not order:
            continue
        shown = _conditions(database, table, profile, "m", (*WORDS.hidden_if_true, *WORDS.deleted_if_true))
        found = []
        for link in links if shown is not None else ():
            if link.child == table and not link.is_unique:
                sides = _sides(database, profile, link, profiles[link.parent.name], order)
                if shown is not None and sides and _is_mixed(database, link, sides[0]):
                    found.append(_Messages(link, text, order, sides[0], shown[0], (sides[1], *shown[1])))
        # Messages may name their customer as well as their ticket, which names its customer.
        above = {link.parent.name for link in links for each in found if link.child == each.link.parent}
        below = [each for each in found if each.link.parent.name not in above]
        if len(below) == 1:
            yield below[0]


def _order(table: SourceTable, profile: Profile) -> tuple[str, ...]:
    """Columns that order the messages of a ticket: their time, then their key; a number alone if there is no time."""
    roles = assign_roles(profile)
    time, number = _named(roles, "created_at"), _named(roles, "ticket_id")
    key = table.primary_key or ((number,) if number else ())
    if time is not None:
        return (time, *(name for name in key if name != time))
    numbers = [name for name in key if all(type(row.get(name)) is int for row in profile.rows)]
    return (*numbers,) if len(numbers) == len(key) else ()


def _sides(
    database: SourceDatabase, profile: Profile, link: Link, tickets: Profile, order: Sequence[str]
) -> tuple[str, str] | None:
    """SQL that is `customer` or `agent` for a message `m` of a ticket `t`, with its evidence; None if not certain."""
    flags = (*WORDS.customer_if_true, *WORDS.agent_if_true)
    names = dict.fromkeys((*speaker_columns(profile), *(name for name in profile.top if plain_form(name) in flags)))
    for name in names:
        column, form = f"m.{quote_identifier(name)}", plain_form(name)
        if form in flags and (flag := _flag(_distinct(database, link.child, name))):
            first, second = ("customer", "agent") if form in WORDS.customer_if_true else ("agent", "customer")
            side = f"CASE WHEN {column} = {flag[0]} THEN '{first}' WHEN {column} = {flag[1]} THEN '{second}' END"
            return side, f"the customer's messages have {name} {flag[first == 'agent']}"
        values = {value: WORDS.side_of(value) for row in profile.rows if isinstance(value := row.get(name), str)}
        if None in values.values() or not {"customer", "agent"} <= set(values.values()):
            continue
        listed = {
            side: ", ".join(sorted(quote_text(value) for value, of in values.items() if of == side))
            for side in ("customer", "agent")
        }
        cases = " ".join(f"WHEN {column} IN ({of}) THEN '{side}'" for side, of in listed.items())
        return f"CASE {cases} END", f"{name} is {listed['customer']} for customers, {listed['agent']} for agents"
    return _by_author(database, profile, link, tickets, order)


def _by_author(
    database: SourceDatabase, profile: Profile, link: Link, tickets: Profile, order: Sequence[str]
) -> tuple[str, str] | None:
    """The same by the ids of authors: whoever wrote a ticket's first message and is named as its customer."""
    customer = _named(assign_roles(tickets), "customer_id")
    authors = [name for name in profile.top if plain_form(name) in WORDS.author_ids]
    if customer is None or len(authors) != 1:
        return None
    author, asks = f"m.{quote_identifier(authors[0])}", f"t.{quote_identifier(customer)}"
    if {type(row.get(authors[0])) for row in profile.rows} != {type(row.get(customer)) for row in tickets.rows}:
        return None
    first = (
        f"SELECT {author} AS a, {asks} AS c, row_number() OVER (PARTITION BY m.{quote_identifier(link.column)} "
        f"ORDER BY {_ordered(order)}) AS place FROM {_messages_of(link)}"
    )
    found = database.select(
        f"SELECT count(*) AS n, sum(CASE WHEN a = c THEN 1 ELSE 0 END) AS own FROM ({first}) AS f WHERE place = 1"
    )[0]
    n, own = int(str(found["n"])), int(str(found["own"] or 0))
    if not n or own < _FIRST_IS_CUSTOMER * n:
        return None
    side = f"CASE WHEN {author} = {asks} THEN 'customer' WHEN {author} <> {asks} THEN 'agent' END"
    return (
        side,
        f"in {own:,} of {n:,} tickets {authors[0]} of the first message is {customer}: whoever else writes is an agent",
    )


def _ordered(order: Sequence[str]) -> str:
    return ", ".join(f"m.{quote_identifier(name)}" for name in order)


def _messages_of(link: Link) -> str:
    on = f"t.{quote_identifier(link.to)} = m.{quote_identifier(link.column)}"
    return f"{link.child.sql} AS m JOIN {link.parent.sql} AS t ON {on}"


def _is_mixed(database: SourceDatabase, link: Link, side: str) -> bool:
    """Whether in most tickets with several messages both sides wrote: those of one customer are all the customer's."""
    column = f"m.{quote_identifier(link.column)}"
    groups = (
        f"SELECT count(DISTINCT {side}) AS sides FROM {_messages_of(link)} GROUP BY {column} "
        f"HAVING count(*) > 1 LIMIT {MAX_LOOKED_UP}"
    )
    found = database.select(
        f"SELECT count(*) AS n, sum(CASE WHEN sides = 2 THEN 1 ELSE 0 END) AS mixed FROM ({groups}) AS g"
    )[0]
    return int(str(found["n"])) > 0 and int(str(found["mixed"] or 0)) >= _MIXED * int(str(found["n"]))


def _distinct(database: SourceDatabase, table: SourceTable, name: str) -> set[object]:
    """Some of a column's values, all if they are few: a rare kind of message may not be among the first rows."""
    sql = f"SELECT DISTINCT {quote_identifier(name)} AS v FROM {table.sql} LIMIT {2 * _FEW}"
    return {row["v"] for row in database.select(sql)} - {None}


def _flag(values: set[object]) -> tuple[str, str] | None:
    """How SQL writes that a column with these values is true and false; None if it is no flag."""
    if values and all(type(value) is bool for value in values):
        return "TRUE", "FALSE"
    return ("1", "0") if values and all(type(value) is int and value in (0, 1) for value in values) else None


def _conditions(
    database: SourceDatabase, table: SourceTable, profile: Profile, alias: str, hidden: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Conditions that leave out internal notes and deleted rows, and what they are; None if one cannot be written."""
    where, notes = [], []
    is_message = alias == "m"
    for name, facts in profile.columns.items():
        column, form = f"{alias}.{quote_identifier(name)}", plain_form(name)
        is_flag = form in hidden or (is_message and form in WORDS.shown_if_true)
        if not facts.is_top or not (is_flag or (is_message and facts.n_distinct <= _FEW and facts.kinds["text"])):
            continue
        values = _distinct(database, table, name)
        if flag := _flag(values) if is_flag else None:
            left = flag[form in hidden]
            where.append(f"coalesce({column}, {flag[1]}) = {left}")
            notes.append(f"not read: rows of {table.name} with {name} {flag[form not in hidden]}")
        found = sorted(value for value in values if isinstance(value, str) and plain_form(value) in WORDS.hidden_values)
        if found and len(values) <= _FEW:
            listed = ", ".join(map(quote_text, found))
            where.append(f"coalesce({column}, '') NOT IN ({listed})")
            notes.append(f"not read: rows of {table.name} with {name} {listed}")
        elif is_flag and values and not flag:
            return None
    return tuple(where), tuple(notes)


class _Writer:
    """Writes the SELECT for a table of tickets."""

    def __init__(
        self, database: SourceDatabase, profiles: Mapping[str, Profile], links: Sequence[Link], tickets: SourceTable
    ) -> None:
        self._database, self._profiles, self._links, self._tickets = database, profiles, links, tickets
        self._columns: dict[str, str] = {}
        self._joins: list[str] = []
        self._evidence: list[str] = []

    def write(self, messages: _Messages | None) -> Join | None:
        """The SELECT; None if no other table adds to the tickets."""
        tickets, profile = self._tickets, self._profiles[self._tickets.name]
        roles = assign_roles(profile)
        key = messages.link.to if messages else self._key()
        if key is None:
            return None
        self._columns["ticket_id"] = f"t.{quote_identifier(key)}"
        asked = messages is not None and _named(roles, "body") is None
        replied = messages is not None and _named(roles, "reply") is None
        taken = {"ticket_id", *(["body"] if asked else []), *(["reply"] if replied else [])}
        for name, facts in profile.columns.items():
            if facts.is_top and name != key and name.lower() not in taken and self._is_read(roles, facts):
                self._columns[name] = f"t.{quote_identifier(name)}"
        before = len(self._columns)
        self._add_lookups("t", tickets)
        self._add_single_rows()
        said = ""
        if messages is not None and (asked or replied):
            said = self._add_messages(messages, asked=asked, replied=replied)
            if asked and _named(roles, "created_at") is None and self._is_free("created_at"):
                self._columns["created_at"] = "asked.written"
        shown = _conditions(self._database, tickets, profile, "t", WORDS.deleted_if_true)
        if len(self._columns) == before or shown is None:
            return None
        self._evidence += shown[1]
        own_times = (_named(roles, "updated_at"), _named(roles, "created_at"))
        said_at = [f"{table}.written" for table, is_read in (("asked", asked), ("replied", replied)) if is_read]
        return Join(
            table=tickets,
            before=said,
            columns=self._columns,
            tables="\n".join(
                [
                    f"FROM {tickets.sql} AS t",
                    *self._joins,
                    *([f"WHERE {' AND '.join(shown[0])}"] if shown[0] else []),
                ]
            ),
            evidence=tuple(self._evidence),
            times=(*(f"t.{quote_identifier(name)}" for name in own_times if name), *said_at),
        )

    def _key(self) -> str | None:
        """The column that other tables, or the table itself, name rows by."""
        linked = [link.to for link in self._links if link.parent == self._tickets]
        single = self._tickets.primary_key if len(self._tickets.primary_key) == 1 else ()
        named = _named(assign_roles(self._profiles[self._tickets.name]), "ticket_id")
        return next((name for name in (*single, *linked, named) if name), None)

    def _is_free(self, name: str) -> bool:
        """Whether the result has no column of this name; case does not count in SQL."""
        return name.lower() not in map(str.lower, self._columns)

    def _is_read(self, roles: Roles, facts: ColumnFacts) -> bool:
        """Personal data is left out, unless it says which customer wrote."""
        used = {role.name for role in roles.found}
        return facts.name in used or (facts.n_filled > 0 and facts.personal_share < 0.2)

    def _add_lookups(self, alias: str, table: SourceTable) -> None:
        """The names that ids of a table stand for, such as that of a queue."""
        customer = _named(assign_roles(self._profiles[table.name]), "customer_id")
        for link in self._links:
            if link.child != table or link.parent == self._tickets:
                continue
            name = _KEY_ENDING.sub("", plain_form(link.column)) or singular(plain_form(link.parent.stem))
            names = self._label_columns(link.parent, link.to)
            if link.column == customer:
                self._evidence.append(f"{link.evidence}; no other column of {link.parent.name} is read")
            elif len(names) == 1 and self._is_free(name) and name not in KNOWN.never_labels:
                other = f"l{len(self._joins) + 1}"
                self._columns[name] = f"{other}.{quote_identifier(names[0])}"
                on = f"{other}.{quote_identifier(link.to)} = {alias}.{quote_identifier(link.column)}"
                self._joins.append(f"LEFT JOIN {link.parent.sql} AS {other} ON {on}")
                self._evidence.append(f"{name} is {link.parent.name}.{names[0]}; {link.evidence}")

    def _label_columns(self, table: SourceTable, key: str) -> list[str]:
        """The columns of a small table that name its rows."""
        profile = self._profiles[table.name]
        return [
            name
            for name, facts in profile.columns.items()
            if facts.is_top and name != key and table.n_rows <= MAX_LABELS and not facts.n_dates
            if facts.kinds["text"] == facts.n_filled == facts.n_distinct == facts.n_rows
            if facts.personal_share < 0.2 and facts.median_chars <= 60
        ]

    def _add_single_rows(self) -> None:
        """Tables with at most one row for each ticket, such as one of labels."""
        for link in self._links:
            if link.parent != self._tickets or not link.is_unique:
                continue
            profile = self._profiles[link.child.name]
            added = [
                name
                for name, facts in profile.columns.items()
                if facts.is_top and name not in (link.column, *link.child.primary_key) and self._is_free(name)
                if self._is_read(replace(assign_roles(profile), found=()), facts)
            ]
            other = f"l{len(self._joins) + 1}"
            self._joins.append(
                f"LEFT JOIN {link.child.sql} AS {other} ON {other}.{quote_identifier(link.column)} = "
                f"t.{quote_identifier(link.to)}"
            )
            self._columns |= {name: f"{other}.{quote_identifier(name)}" for name in added}
            self._evidence.append(f"{link.child.name} has one row for a ticket; {link.evidence}")
            self._add_lookups(other, link.child)

    def _add_messages(self, messages: _Messages, *, asked: bool, replied: bool) -> str:
        """The first message of the customer, and the first of an agent after it."""
        link, text = messages.link, quote_identifier(messages.text)
        ticket, to = f"m.{quote_identifier(link.column)}", f"t.{quote_identifier(link.to)}"
        where = f"\n  WHERE {' AND '.join(messages.where)}" if messages.where else ""
        said = (
            f"WITH said AS (\n  SELECT {ticket} AS ticket, m.{text} AS words,\n"
            f"    m.{quote_identifier(messages.order[0])} AS written,\n"
            f"    {messages.side} AS side,\n"
            f"    row_number() OVER (PARTITION BY {ticket} ORDER BY {_ordered(messages.order)}) AS place\n"
            f"  FROM {_messages_of(link)}{where}\n), first_asked AS (\n"
            "  SELECT ticket, min(place) AS place FROM said WHERE side = 'customer' GROUP BY ticket\n)"
        )
        if asked:
            self._columns["body"] = "asked.words"
            self._joins += [
                f"LEFT JOIN first_asked ON first_asked.ticket = {to}",
                f"LEFT JOIN said AS asked ON asked.ticket = {to} AND asked.place = first_asked.place",
            ]
        if replied:
            said += (
                ", first_replied AS (\n  SELECT said.ticket, min(said.place) AS place FROM said\n"
                "  JOIN first_asked ON first_asked.ticket = said.ticket AND said.place > first_asked.place\n"
                "  WHERE said.side = 'agent' GROUP BY said.ticket\n)"
                if asked
                else ""
            )
            if not asked:  # the ticket itself is what the customer wrote first
                said = said.replace("first_asked", "first_replied").replace("side = 'customer'", "side = 'agent'")
            self._columns["reply"] = "replied.words"
            self._joins += [
                f"LEFT JOIN first_replied ON first_replied.ticket = {to}",
                f"LEFT JOIN said AS replied ON replied.ticket = {to} AND replied.place = first_replied.place",
            ]
        what = " and ".join(
            each
            for each, is_read in (
                ("body is the customer's first message", asked),
                (f"reply the first of an agent{' after it' if asked else ''}", replied),
            )
            if is_read
        )
        self._evidence.append(f"{what}, in the order of {', '.join(messages.order)}; {link.evidence}")
        self._evidence += messages.evidence
        return f"{said}\n"
