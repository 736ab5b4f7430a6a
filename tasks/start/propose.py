"""Propose a pipeline for a file of tickets: its columns' roles, and sizes and a gate that suit its rows.

The gate's arithmetic is that of `tunegate plan` (`tasks/assess/power.py`). `tasks/start/pipeline_yaml.py` writes the
text.
"""

import math
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.curation import SplitSpec, TableSpec
from schemas.curation_card import FEW
from schemas.errors import ConfigError
from schemas.evaluation import ANSWERING_ARMS
from schemas.file_reading import RowReading
from schemas.gates import MAX_MARGIN, ChangeThreshold, GateRule, GatesSpec, PowerSpec
from schemas.metrics import traits_by_name, traits_of
from schemas.tables import TicketColumn
from tasks.assess.plan_gate import RulePower, plan_gate
from tasks.assess.power import ASSUMED_DISCORDANCE, items_needed
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS
from tasks.sources.formats import ending_of
from tasks.sources.readers.headers import listing, shown
from tasks.sources.readers.row_kinds import preference_pair
from tasks.sources.readers.shapes import detect_shape, shape_keys
from tasks.start.champion_rule import choose_comparison
from tasks.start.doubts import JOIN_MESSAGES, label_doubts, rows_are_messages, unread_replies
from tasks.start.file_profile import (
    ColumnFacts,
    Profile,
    filled_share,
    is_by_columns,
    is_conversation,
    is_own_value,
    wrapped_rows,
)
from tasks.start.guards import NO_GUARDS, Guards, as_counted, propose_guards
from tasks.start.held_out import PLACING, SplitShares, estimate_parts, read_placing
from tasks.start.labels import best_label, label_findings, wrong_labels
from tasks.start.origin import Origin, TableChoice, open_origin
from tasks.start.probe import answers_per_minute
from tasks.start.roles import (
    KNOWN,
    Role,
    Roles,
    assign_roles,
    label_columns,
    percent,
    plain_form,
    text_columns,
    time_format,
)
from tasks.start.row_lists import refuse_row_lists
from tasks.start.tickets import Tickets, read_tickets

MIN_TICKETS = 20
"""With fewer, one side of a split would be empty."""
MIN_ITEMS = 50
"""As `gates.min_items`: with fewer no verdict is better than HOLD."""
MAX_EXAMPLES = 1000
_FRACTIONS = (0.2, 0.25, 0.3)
_VALIDATION = 0.05
_CONFIDENCE = 0.95
_ECHOES = 0.02
"""Share of replies equal to the customer's text from which on there is a warning."""
_NAMED = 0.9
"""Share of the texts that have their label's words from which on there is a warning."""
_CUT = 0.1
"""Share of replies over the limit from which on there is a warning."""
_DATED = 0.95
"""Share of the rows with a time from which on a row without one is faulty."""
_MAX_PROBED = 6
"""Columns that could be the label that are probed; each takes a fraction of a second."""
_CHARS_PER_TOKEN = 3.0
"""Of the embedded model on English. Few texts have fewer, so few examples are too long."""
ANSWER_MINUTES = 15
"""`evaluate.answer_minutes`: a verdict that takes longer than a break is not waited for."""
BASE_PARAMETERS = 134.5e6
"""Of the base model in the template."""
_USUAL_CHARS = 4.0
"""Of a token of English: a mean, where `_CHARS_PER_TOKEN` is a limit."""
_PROMPT_TOKENS = 50
"""Of the system message and the chat format."""
_LABEL_TOKENS = 8
"""Of a label in brackets and the end of the answer."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of a proposed pipeline."""

    n_tickets: int
    """Estimated number of usable tickets in the file."""
    test_fraction: float
    validation_fraction: float
    n_held_out: int
    max_items: int
    """Held-out tickets that an arm answers: all, or as many as two arms answer in `ANSWER_MINUTES`."""
    answers_per_minute: float
    max_examples: int
    max_length: int
    max_new_tokens: int
    smallest_loss: float
    """Smallest loss that the held-out tickets can show."""
    n_dropped: int
    """Tickets that the split drops, of customers or threads on both sides of the cut."""
    n_least: int
    """Held-out tickets below which no verdict is better than HOLD."""

    @property
    def gate_works(self) -> bool:
        """Whether there are enough held-out tickets for a verdict better than HOLD."""
        return self.n_held_out >= self.n_least

    @property
    def summary(self) -> str:
        """What the gate can show, in a sentence."""
        if self.gate_works:
            answered = "all" if self.max_items == self.n_held_out else f"{self.max_items:,}"
            return (
                f"{answered} of {self.n_held_out:,} held-out tickets are answered by candidate and champion in "
                f"{ANSWER_MINUTES} minutes or less, and can show a loss of {self.smallest_loss:g}"
            )
        share = self.n_held_out / self.n_tickets if self.n_dropped else _FRACTIONS[-1]
        wanted = math.ceil(self.n_least / share)
        lost = f" ({self.n_dropped:,} are dropped, of customers on both sides of the cut)" if self.n_dropped else ""
        return (
            f"too little data for a gate: about {self.n_held_out:,} held-out tickets{lost}, and below {self.n_least:,} "
            f"every verdict is HOLD; about {wanted:,} usable tickets are needed, there are {self.n_tickets:,}"
        )


@dataclass(frozen=True)
class ProposedGate:
    """The rules of a proposed gate, and what each needs."""

    confidence: float
    rules: tuple[GateRule, ...]
    power: tuple[RulePower, ...]


@dataclass(frozen=True)
class Proposal:
    """Everything that a proposed pipeline is based on."""

    name: str
    origin: Origin
    """What the rows are read from."""
    profile: Profile
    roles: Roles
    tickets: Tickets
    time_format: str | None
    """The format of its times, to declare."""
    table: TableSpec
    """What a valid ticket is."""
    sizes: Sizes
    gate: ProposedGate
    has_reply: bool
    routing: Role | None
    """The column whose value an answer starts with; None for no column."""
    guards: Guards = NO_GUARDS

    @property
    def metric(self) -> str:
        """The metric that the gate decides by."""
        return self.gate.rules[0].metric

    @property
    def needs_key(self) -> bool:
        """Whether ids become pseudonyms, under a key from the environment."""
        return any("pseudonymise" in each.step for each in self.tickets.steps)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What these tickets cannot teach, with numbers."""
        return tuple(_cannot_teach(self))

    @property
    def faulty_share(self) -> float:
        """Share of the file's rows that a run would quarantine, 0-1."""
        unreadable = sum(self.profile.unreadable.values()) / self.profile.n_rows
        return unreadable + (1 - unreadable) * sum(self.tickets.faults.values()) / self.profile.n_sampled

    @property
    def faulty_percent(self) -> str:
        """`faulty_share` with a decimal, because the limit is small; never rounded down to 0."""
        return f"{max(0.1, 100 * self.faulty_share):.1f} %"

    @property
    def stops(self) -> bool:
        """Whether a run stops because too many rows are faulty."""
        return self.faulty_share > self.table.fail_above

    @property
    def undated(self) -> str | None:
        """Share of the rows without a time, if those are not faulty; None without a column of times."""
        role = self.roles.of("created_at")
        if role is None or "created_at" in self.table.required:
            return None
        return percent(1 - filled_share(self.profile, role.name), 1)


def _cannot_teach(proposal: Proposal) -> Iterator[str]:
    tickets, sizes = proposal.tickets, proposal.sizes
    if proposal.roles.shape == "ticket" and (doubt := rows_are_messages(proposal.profile)):
        yield f"{doubt}; {JOIN_MESSAGES}"
    if (
        not proposal.has_reply
        and "reply" not in proposal.roles.without
        and (doubt := unread_replies(proposal.profile, proposal.roles))
    ):
        yield doubt
    if proposal.has_reply and tickets.replies.warning:
        yield tickets.replies.warning
    if proposal.has_reply and tickets.n_echoes > _ECHOES * tickets.replies.n:
        yield (
            f"in {tickets.n_echoes:,} of {tickets.replies.n:,} tickets the reply is the customer's own text: the "
            "column of the reply holds what the customer wrote"
        )
    n_labelled = sum(tickets.labels.values())
    if n_labelled and tickets.n_named >= _NAMED * n_labelled:
        yield (
            f"in {tickets.n_named:,} of {n_labelled:,} tickets the customer's text has the label's own words, and to "
            "find them there may be all that is learned"
        )
    if proposal.routing is not None:
        yield from label_findings(tickets, proposal.routing, has_reply=proposal.has_reply)
    if proposal.routing is None and (label := proposal.roles.of("category")):
        yield (
            f"{shown(label.name)} is a slice and not learned: in a conversation a label could belong to any turn, so "
            f"the gate compares the wording of answers ({proposal.metric})"
        )
    yield from label_doubts(tickets.labels)
    if n_labels := len(tickets.labels):
        share = sizes.max_examples / max(1, n_labelled)
        n_rare = sum(n * share < FEW for n in tickets.labels.values())
        if n_rare:
            yield (
                f"{n_rare:,} of {n_labels:,} labels have fewer than {FEW} tickets among {sizes.max_examples:,} "
                "examples, too few to learn from"
            )
    longest = _CHARS_PER_TOKEN * sizes.max_new_tokens
    n_cut = sum(length > longest for length in tickets.reply_lengths) if proposal.has_reply else 0
    if n_cut > _CUT * len(tickets.reply_lengths):
        yield (
            f"about {percent(n_cut, len(tickets.reply_lengths))} of the replies are longer than max_new_tokens "
            f"{sizes.max_new_tokens}: answers of this length are cut"
        )


def propose_pipeline(
    path: Path,
    *,
    name: str | None,
    root: Path,
    named: Mapping[TicketColumn, str] | None = None,
    choice: TableChoice | None = None,
    pace: float | None = None,
) -> Proposal:
    """Profile the rows and propose a pipeline.

    Args:
        path: CSV, JSON lines or Parquet, also .gz and .zst; a DuckDB or SQLite file; or `env:NAME`, the variable with
            the address of a Postgres database.
        name: Name of the pipeline; None derives it from the file's name.
        root: Folder of the future pipelines.yaml.
        named: Ticket column -> column or path in the file that the user names.
        choice: Of a table or query, in a database.
        pace: Answers of one arm per minute; None measures the processor.

    Raises:
        ConfigError: TG0130, the file has no known format; TG0167, no column is the customer's text, there is nothing to
            learn, or there are too few tickets; and as `open_origin`.
        DataError: as the readers: the file is missing, damaged, or mixes shapes.
    """
    with open_origin(path, root=root, choice=choice) as origin:
        return _propose(origin, name, named, pace)


def _propose(
    origin: Origin, name: str | None, named: Mapping[TicketColumn, str] | None, pace: float | None
) -> Proposal:
    profile = origin.profile
    if not profile.rows:
        codes = ", ".join(profile.unreadable)
        message = f"no row of the file can be read ({codes}): {profile.why_unreadable.rstrip('.')}"
        raise _too_little(profile, message, hint=f"`tunegate explain {next(iter(profile.unreadable))}` says more")
    if is_by_columns(profile):
        hint = 'write it by rows: df.to_json("tickets.jsonl", orient="records", lines=True)'
        raise _too_little(profile, "the file holds columns, as pandas writes them, and not rows", hint)
    refuse_row_lists(profile)
    if detect_shape(profile.top) == "ticket" and (wrapped := wrapped_rows(profile)):
        raise _wrapped(profile, *wrapped)
    # Names such as an address or a date are a row of data; as keys of pipelines.yaml they would be ticket text.
    values = {name for name in profile.top if is_own_value(profile, name)}
    n_odd = sum(shown(name) != name or name in values for name in profile.top)
    if 2 * n_odd > len(profile.top) or values:
        is_csv = ending_of(profile.path.name).startswith((".csv", ".tsv"))
        what = "the first row does not look like a header" if is_csv else "the columns' names do not look like names"
        raise _too_little(
            profile,
            f"{what}: {n_odd} of {len(profile.top)} are not names, or are values in rows{' below' if is_csv else ''}",
            hint="put the column names in the first row" if is_csv else "rename the columns in the file",
        )
    if not named and (pair := preference_pair(profile.top)):
        raise _preference(profile, pair)
    read = _read_best(profile, origin.source, named or {})
    roles, source, table, tickets, routing = read.roles, read.source, read.table, read.tickets, read.routing
    columns = source.columns
    n_tickets = (profile.n_rows - sum(profile.unreadable.values())) * tickets.n_usable // profile.n_sampled
    if n_tickets < MIN_TICKETS:
        raise _too_little(
            profile,
            f"{n_tickets} usable tickets are too few; at least {MIN_TICKETS} are needed",
            hint=_why_unusable(profile, roles, tickets)
            or "a usable ticket has a text, an answer (or a label), and no near duplicate; provide more of them",
        )
    is_placed = not columns.keys().isdisjoint(PLACING)  # else a split depends on the number of tickets alone
    placing = read_placing(origin.batches(source), source, needed=read.needed) if is_placed else None
    continuous = routing is None

    @cache
    def parts(fraction: float) -> SplitShares:
        if placing is None:
            return _nothing_dropped(fraction)
        by_time = "created_at" in columns
        split = SplitSpec(test_fraction=fraction, validation_fraction=_VALIDATION, by_time=by_time)
        return estimate_parts(placing, split)

    sizes = choose_sizes(
        n_tickets,
        continuous=continuous,
        example_chars=tickets.example_chars,
        reply_chars=tickets.reply_chars,
        answers_per_minute=pace or _answers_per_minute(tickets, has_reply=read.has_reply),
        parts=lambda fraction: as_counted(parts(fraction), n_tickets, continuous=continuous),
    )
    wrong = wrong_labels(tickets, routing)
    return Proposal(
        name=name or pipeline_name(Path(origin.name)),
        origin=origin,
        profile=profile,
        roles=roles,
        tickets=tickets,
        time_format=source.time_format,
        table=table,
        sizes=sizes,
        gate=gate_of(f"field_{routing.column}" if routing else "chrf", sizes, wrong=wrong.rate if wrong else 0.0),
        has_reply=read.has_reply,
        routing=routing,
        guards=propose_guards(
            tickets.replies_apart if read.has_reply else None,
            parts(sizes.test_fraction),
            tickets.slice_sizes,
            learned=(read.has_reply, not continuous),
            n_tickets=n_tickets,
            n_items=sizes.max_items,
        ),
    )


@dataclass(frozen=True)
class _Read:
    """The sample as tickets, under these roles."""

    roles: Roles
    has_reply: bool
    routing: Role | None
    source: RowReading
    table: TableSpec
    needed: tuple[str, ...]
    tickets: Tickets


def _read_best(profile: Profile, source: RowReading, named: Mapping[TicketColumn, str]) -> _Read:
    """Under the roles that names and values suggest, with the label that the texts predict."""
    roles = assign_roles(profile, named)
    label = roles.of("category")
    if "category" in named or roles.shape != "ticket" or roles.of("body") is None:
        return _read(profile, source, roles)
    if label is not None:
        read, first = _read(profile, source, roles), label.name
        best = best_label(read.tickets.probes, first, is_guess=label.guessed)
    else:  # of several columns without the name of a label, one that the texts predict
        first = next(iter(label_columns(profile, roles)), "")
        if not first or roles.of("priority"):
            return _read(profile, source, roles)
        read = _read(profile, source, assign_roles(profile, named, label=first))
        best = best_label(read.tickets.probes, first, is_guess=True)
        if best not in read.tickets.probes or not read.tickets.probes[best].is_predictable:
            return _read(profile, source, roles)
    return read if best == first else _read(profile, source, assign_roles(profile, named, label=best))


def _read(profile: Profile, source: RowReading, roles: Roles) -> _Read:
    has_reply, routing = _what_to_learn(profile, roles)
    learns = (*(("reply",) if has_reply else ()), *((routing.column,) if routing else ()))
    source = source.model_copy(
        update={
            "shape": roles.shape,
            "columns": {role.column: role.name for role in roles.found},
            "turns": roles.turns,
            "time_format": time_format(profile, roles),
        }
    )
    table = TableSpec(required=_required(profile, roles))
    # Split by time drops tickets without one.
    needed = ("body", *learns, *(("created_at",) if "created_at" in source.columns else ()))
    others = list(label_columns(profile, roles))[:_MAX_PROBED]
    labels = () if routing is None else tuple(dict.fromkeys((*others, routing.name)))
    tickets = read_tickets(profile, source, learns=learns, needed=needed, table=table, labels=labels)
    return _Read(roles, has_reply, routing, source, table, needed, tickets)


def pipeline_name(path: Path) -> str:
    """Derive a pipeline's name from a file's.

    >>> pipeline_name(Path("in/Réclamations 2026 (Q1).csv.gz")), pipeline_name(Path("2026.csv"))
    ('reclamations-2026-q1', 'tickets-2026')
    """
    letters = "".join(char for char in unicodedata.normalize("NFKD", path.name) if not unicodedata.combining(char))
    words = re.sub(r"[^a-z0-9]+", "-", letters.lower().partition(".")[0]).strip("-")
    return (words if re.match(r"[a-z]", words) else f"tickets-{words}".strip("-"))[:63].rstrip("-")


def _required(profile: Profile, roles: Roles) -> tuple[TicketColumn, ...]:
    """The columns without which a row is faulty: a time only if nearly all rows have one."""
    created = roles.of("created_at")
    is_dated = created is not None and filled_share(profile, created.name) >= _DATED
    return ("ticket_id", "body", "created_at") if is_dated else ("ticket_id", "body")


def _what_to_learn(profile: Profile, roles: Roles) -> tuple[bool, Role | None]:
    """Whether to learn replies, and the column whose label to learn.

    Raises:
        ConfigError: TG0167, no column is the customer's text, or there are neither replies nor labels.
    """
    is_table = roles.shape == "ticket"
    reply = roles.of("reply")
    texts = [facts for facts in text_columns(profile) if reply is None or facts.name != reply.name]
    if is_table and roles.of("body") is None:
        hint = _name_them(profile, texts) or f"columns: {listing(profile.top)}; --body names the customer's words"
        raise _too_little(profile, f"no column is clearly the customer's text{_left_out(roles, 'body')}", hint)
    has_reply = "reply" not in roles.without and (not is_table or roles.of("reply") is not None)
    # A label belongs to one question and its answer; in a conversation it could belong to any turn.
    labelled = (is_table or roles.shape == "alpaca") and "messages" not in profile.top
    routing = (roles.of("category") or roles.of("priority")) if labelled and "category" not in roles.without else None
    if not has_reply and routing is None:
        used = {role.name for role in roles.found}
        if whole := [facts for facts in texts if is_conversation(profile, facts.name)]:
            message = f"{shown(whole[0].name)} holds whole conversations as one text: there is no answer to learn"
            hint = 'write them as lists: {"messages": [{"role": "user", "content": ...}, ...]}; rows with tool calls '
            raise _too_little(profile, message, f"{hint}are not trained on")
        if is_table and (doubt := rows_are_messages(profile)):
            raise _too_little(profile, f"{doubt}; there is nothing to learn", JOIN_MESSAGES)
        others = [facts for facts in texts if facts.name not in used]
        hint = _name_them(profile, others, body=roles.of("body"))
        hint = hint or (
            f"columns: {listing(profile.top)}; --reply names the agent's answer, --label a label; if rows are "
            f"messages, {JOIN_MESSAGES}"
        )
        message = f"no column holds answers or a routing label{_left_out(roles, 'category')}: there is nothing to learn"
        raise _too_little(profile, message, hint)
    return has_reply, routing


def _left_out(roles: Roles, column: TicketColumn) -> str:
    """Why a column with a name for this role does not have it, in brackets; empty if there is none."""
    lines = [line for line in roles.left_out if plain_form(line.partition(":")[0]) in KNOWN.names[column]]
    return f" ({lines[0]})" if lines else ""


def _name_them(profile: Profile, texts: Sequence[ColumnFacts], body: Role | None = None) -> str:
    """A hint with the columns and paths that hold texts, and the command that names them; empty without any."""
    if not texts:
        return ""
    listed = ", ".join(f"{facts.name} (median {facts.median_chars:,} characters)" for facts in texts[:6])
    wanted = texts if body else texts[:2]  # the longest: a subject is shorter than the text
    paths = [facts.name for facts in profile.columns.values() if facts in wanted]  # in the order of the file
    names = [*([body.name] if body else []), *paths, "PATH"][:2]
    return f"texts are in: {listed}; name them: --body {shlex.quote(names[0])} --reply {shlex.quote(names[-1])}"


def _wrapped(profile: Profile, at: str, n_rows: int, is_keyed: bool) -> ConfigError:
    """The file is one object that holds its rows in a list, or by their ids."""
    if not re.fullmatch(r"(\.[A-Za-z_]\w*)*", at, re.ASCII) or len(at) > 80:  # keys of JSON may be personal data
        return _too_little(profile, "the file is one row that holds a list of rows", "write that list alone to a file")
    file, rows = shlex.quote(profile.path.name), f"{at.rpartition('.')[2] or 'rows'}.json"
    held = f"{n_rows:,} rows by their keys" if is_keyed else f"a list of {n_rows:,} rows"
    command = shlex.quote(f"[{at or '.'} | to_entries[] | {{id: .key}} + .value]") if is_keyed else at
    return _too_little(
        profile,
        f"the file is one row that holds {held}{f' in `{at[1:]}`' if at else ''}",
        f"write a list of them and start from it: jq {command} {file} > {'rows.json' if rows == file else rows}",
    )


def _preference(profile: Profile, pair: tuple[str, str]) -> ConfigError:
    """The rows hold a good and a bad answer."""
    good = [facts.name for facts in text_columns(profile, below=pair[0])] or [pair[0]]
    # Where the answer is a list of messages, its last one is the answer, and its first one the question.
    reply = re.sub(r"\[\d+\]", "[-1]", good[0])
    asked = [facts.name for facts in text_columns(profile) if re.split(r"[.\[]", facts.name)[0] not in pair]
    body = asked[0] if asked else re.sub(r"\[\d+\]", "[0]", good[0])
    return _too_little(
        profile,
        f"the rows are preferences ({', '.join(pair)}): two answers to choose from, and a pipeline learns one",
        f"to train on the better one: --body {shlex.quote(body)} --reply {shlex.quote(reply)}",
    )


def _why_unusable(profile: Profile, roles: Roles, tickets: Tickets) -> str:
    """The commonest reason for which rows are no tickets; empty if most are."""
    reason, n = next(iter(tickets.reasons.items()), ("", 0))
    n_sampled = sum(tickets.reasons.values()) + tickets.n_usable
    if 2 * n < n_sampled:
        return ""
    why = f"{n:,} of {n_sampled:,} rows: {reason}"
    code = next(iter(tickets.faults))
    if code in ("TG0214", "TG0247"):
        why += " A run reads it by its name: rename it in the file"
    if code == "TG0247":
        why += "; a path takes what an object or a list holds: --time 'NAME.KEY', --label 'NAME[0]'"
    if code == "TG0301" and roles.shape != "ticket":  # a conversation of another kind
        (key, *_) = [key for key in shape_keys(detect_shape(profile.top)) if key in profile.top]
        texts = text_columns(profile, below=key)
        why = f"{why} {_name_them(profile, texts)}" if len(texts) > 1 else why
    return why


def _too_little(profile: Profile, message: str, hint: str) -> ConfigError:
    return ConfigError(message, code="TG0167", where=str(profile.path), hint=hint)


def _nothing_dropped(fraction: float) -> SplitShares:
    return SplitShares(train=(1 - fraction) * (1 - _VALIDATION), held_out=fraction, dropped=0, customers=fraction)


def choose_sizes(
    n_tickets: int,
    *,
    continuous: bool,
    example_chars: int,
    reply_chars: int,
    answers_per_minute: float,
    parts: Callable[[float], SplitShares] = _nothing_dropped,
) -> Sizes:
    """Sizes for this number of tickets.

    The held-out share grows from a fifth to three tenths while it is too small to show a loss of `MAX_MARGIN`. The
    smallest loss that the items can show is found in steps of 0.01.

    Args:
        continuous: The metric can have any value per item, not just 0 or 1.
        example_chars: 95th percentile of the examples' lengths, characters.
        reply_chars: 95th percentile of the replies' lengths, characters.
        answers_per_minute: Of one arm.
        parts: The parts that a split with this held-out share makes.
    """
    n_least = MIN_CONTINUOUS_ITEMS if continuous else MIN_ITEMS
    needed = max(n_least, _items_for(MAX_MARGIN, continuous))
    tried = ((fraction, parts(fraction)) for fraction in _FRACTIONS)
    best = next((each for each in tried if each[1].held_out * n_tickets >= needed), None)
    fraction, split = best or (_FRACTIONS[-1], parts(_FRACTIONS[-1]))
    n_held_out = max(1, round(split.held_out * n_tickets))
    n_items = min(n_held_out, max(1, int(ANSWER_MINUTES * answers_per_minute / ANSWERING_ARMS)))
    n_train = max(1, round(split.train * n_tickets))
    losses = (hundredths / 100 for hundredths in range(1, 100))
    return Sizes(
        n_tickets=n_tickets,
        test_fraction=fraction,
        validation_fraction=_VALIDATION,
        n_held_out=n_held_out,
        n_dropped=round(split.dropped * n_tickets),
        max_items=n_items,
        answers_per_minute=answers_per_minute,
        max_examples=min(n_train, MAX_EXAMPLES),
        max_length=_rounded(example_chars / _CHARS_PER_TOKEN + 96, step=64, low=256, high=2048),
        max_new_tokens=_rounded(reply_chars / _CHARS_PER_TOKEN + 16, step=16, low=16, high=256),
        smallest_loss=next((loss for loss in losses if _items_for(loss, continuous) <= n_items), 1.0),
        n_least=n_least,
    )


def gate_of(metric: str, sizes: Sizes, *, wrong: float = 0.0) -> ProposedGate:
    """The rules of the gate, each with the number of items that it needs, as in `tunegate plan`.

    Compared with the champion as this many items allow, better than the best prompt, and a minimum for a 0-or-1 metric
    of the answer's form.

    Args:
        wrong: Share of wrong labels.
    """
    continuous = traits_of(metric, traits_by_name()).continuous
    change, confidence = choose_comparison(
        sizes.max_items, continuous=continuous, wrong_references=0.0 if continuous else wrong
    )
    better = ChangeThreshold(against="best_baseline", mode="improve")
    rules = (
        GateRule(metric=metric, change_threshold=change),
        GateRule(metric=metric, change_threshold=better),
        GateRule(metric="finished" if metric == "chrf" else "format", value_threshold=0.9),
    )
    gates = GatesSpec(rules=rules, confidence=confidence, min_items=MIN_ITEMS)
    return ProposedGate(confidence, rules, plan_gate(gates, traits=traits_by_name(), n_items=sizes.max_items, seen={}))


def _answers_per_minute(tickets: Tickets, *, has_reply: bool) -> float:
    """Answers of one arm of the proposed base model in a minute."""
    replies = tickets.reply_lengths if has_reply else ()
    reply_chars = sum(replies) / max(1, len(replies))
    return answers_per_minute(
        prompt_tokens=_PROMPT_TOKENS + max(0.0, tickets.mean_chars - reply_chars) / _USUAL_CHARS,
        new_tokens=_LABEL_TOKENS + reply_chars / _USUAL_CHARS,
        n_parameters=BASE_PARAMETERS,
    )


def _items_for(margin: float, continuous: bool) -> int:
    """Items needed to show that an equal candidate is no more than `margin` worse."""
    spread = PowerSpec().spread if continuous else math.sqrt(ASSUMED_DISCORDANCE)
    return items_needed(margin, sd_null=spread, sd_true=spread, confidence=_CONFIDENCE) or 0


def _rounded(value: float, *, step: int, low: int, high: int) -> int:
    return min(high, max(low, step * math.ceil(value / step)))
