"""A file of tickets -> a pipeline: what was found in it, and the sizes and the gate that follow from its rows.

The arithmetic of the gate is that of `tunegate plan` (`tasks/assess/power.py`). Called by `flows/cli/weekly.py`;
`tasks/start/pipeline_yaml.py` writes the text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError
from schemas.gates import ChangeThreshold, GateRule, GatesSpec, PowerSpec
from schemas.metrics import traits_by_name
from schemas.source import FilesSource
from tasks.assess.plan_gate import ASSUMED_DISCORDANCE, RulePower, plan_gate
from tasks.assess.power import items_needed
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS
from tasks.curate.readers.headers import listing, shown
from tasks.start.look import Look, look_at
from tasks.start.roles import Role, Roles, assign_roles
from tasks.start.tickets import Tickets, read_tickets

MARGIN = 0.05
"""Loss that is tolerated where there are items enough to see it."""
MIN_TICKETS = 20
"""Below this no split leaves anything on both sides."""
MIN_ITEMS = 50
"""As `gates.min_items`: with fewer no verdict is better than HOLD."""
MAX_EXAMPLES = 1000
_FRACTIONS = (0.2, 0.25, 0.3)
_VALIDATION = 0.05
_CONFIDENCE = 0.95
_CHARS_PER_TOKEN = 3.0
"""Of the embedded model on English; few texts have less, so that few examples are too long."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of a proposed pipeline."""

    n_tickets: int
    """Tickets of use that the file is taken to hold."""
    test_fraction: float
    validation_fraction: float
    n_held_out: int
    max_items: int
    max_examples: int
    max_length: int
    max_new_tokens: int
    margin: float
    n_least: int
    """Held-out tickets below which no verdict is better than HOLD."""

    @property
    def gate_works(self) -> bool:
        """Are there held-out tickets enough for a verdict better than HOLD?"""
        return self.n_held_out >= self.n_least

    @property
    def summary(self) -> str:
        """What is to be said of the gate."""
        if self.gate_works:
            return f"{self.n_held_out:,} held-out tickets show a loss of {self.margin:g}"
        wanted = math.ceil(self.n_least / _FRACTIONS[-1])
        return (
            f"too little data for a gate: about {self.n_held_out:,} held-out tickets, and below {self.n_least:,} every "
            f"verdict is HOLD; about {wanted:,} tickets of use are needed, there are {self.n_tickets:,}"
        )


@dataclass(frozen=True)
class Proposal:
    """Everything that a proposed pipeline follows from."""

    name: str
    path: str
    """The file as pipelines.yaml names it."""
    look: Look
    roles: Roles
    tickets: Tickets
    sizes: Sizes
    gate: tuple[tuple[GateRule, RulePower], ...]
    has_reply: bool
    routing: Role | None
    """The column whose value an answer begins with; null for none."""

    @property
    def metric(self) -> str:
        """What the gate decides by."""
        return self.gate[0][0].metric

    @property
    def faulty_share(self) -> float:
        """Share of the file's rows that a run would quarantine, 0-1."""
        unreadable = sum(self.look.unreadable.values()) / self.look.n_rows
        return unreadable + (1 - unreadable) * sum(self.tickets.faults.values()) / self.look.n_looked


def propose_pipeline(path: Path, *, name: str | None, root: Path) -> Proposal:
    """Look at the file and decide.

    Args:
        path: CSV, JSON lines or Parquet; also .gz and .zst.
        name: Of the pipeline; by the file's name if None.
        root: Folder of the pipelines.yaml to come.

    Raises:
        ConfigError: TG0130, the file is of no known format; TG0167, no column is the customer's text, or nothing is
            there to learn, or too few tickets.
        DataError: as the readers: the file is absent, damaged, or mixes shapes.
    """
    look = look_at(path)
    # Names such as an address or a date are a row of data; as keys of pipelines.yaml they would be ticket text.
    n_odd = sum(shown(name) != name for name in look.top)
    if 2 * n_odd > len(look.top):
        raise _too_little(
            look,
            f"the first row does not look like a header: {n_odd} of {len(look.top)} names are no names",
            hint="write the columns' names in the first row",
        )
    roles = assign_roles(look)
    has_reply, routing = _what_to_learn(look, roles)
    learns = (*(("reply",) if has_reply else ()), *((routing.column,) if routing else ()))
    whole = path.absolute()
    columns = {role.column: role.name for role in roles.found}
    source = FilesSource(kind="files", paths=(str(whole),), shape=roles.shape, columns=columns)
    tickets = read_tickets(look, source, learns=learns)
    n_tickets = (look.n_rows - sum(look.unreadable.values())) * tickets.n_usable // look.n_looked
    if n_tickets < MIN_TICKETS:
        raise _too_little(
            look,
            f"{n_tickets} tickets of use are too few; {MIN_TICKETS} are the least",
            hint="a ticket is of use when it has a text, an answer (or a label) and no twin; give more of them",
        )
    sizes = choose_sizes(
        n_tickets,
        continuous=routing is None,
        example_chars=tickets.example_chars,
        reply_chars=tickets.reply_chars,
    )
    return Proposal(
        name=name or pipeline_name(path),
        path=whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.as_posix(),
        look=look,
        roles=roles,
        tickets=tickets,
        sizes=sizes,
        gate=gate_of(f"field_{routing.column}" if routing else "chrf", sizes),
        has_reply=has_reply,
        routing=routing,
    )


def pipeline_name(path: Path) -> str:
    """A pipeline's name from a file's.

    >>> pipeline_name(Path("in/Tickets 2026 (Q1).csv.gz")), pipeline_name(Path("2026.csv"))
    ('tickets-2026-q1', 'tickets-2026')
    """
    words = re.sub(r"[^a-z0-9]+", "-", path.name.lower().partition(".")[0]).strip("-")
    return (words if re.match(r"[a-z]", words) else f"tickets-{words}".strip("-"))[:63].rstrip("-")


def _what_to_learn(look: Look, roles: Roles) -> tuple[bool, Role | None]:
    """Are replies learned, and which column's label.

    Raises:
        ConfigError: TG0167, no column is the customer's text, or neither replies nor labels are there.
    """
    is_table = roles.shape == "ticket"
    columns = f"columns: {listing(look.top)}; rename"
    if is_table and roles.of("body") is None:
        hint = f"{columns} the one with the customer's words to `body`"
        raise _too_little(look, "no column is surely the customer's text", hint)
    has_reply = not is_table or roles.of("reply") is not None
    # A label belongs to one question and its answer; in a conversation it could be any turn's.
    labelled = (is_table or roles.shape == "alpaca") and "messages" not in look.top
    routing = (roles.of("category") or roles.of("priority")) if labelled else None
    if not has_reply and routing is None:
        hint = f"{columns} the agent's answer to `reply`, or a label to `category`"
        raise _too_little(look, "no column holds answers, and none a routing label: there is nothing to learn", hint)
    return has_reply, routing


def _too_little(look: Look, message: str, hint: str) -> ConfigError:
    return ConfigError(message, code="TG0167", where=str(look.path), hint=hint)


def choose_sizes(n_tickets: int, *, continuous: bool, example_chars: int, reply_chars: int) -> Sizes:
    """Sizes for so many tickets.

    The held-out share grows from a fifth to three tenths while it is too small for the usual margin; where that is
    not enough, the margin grows, by hundredths, to what the items can show.

    Args:
        n_tickets: Tickets of use.
        continuous: The metric has any value per item, not 0 or 1.
        example_chars: Characters of nearly the longest example.
        reply_chars: Of nearly the longest answer.
    """
    n_least = MIN_CONTINUOUS_ITEMS if continuous else MIN_ITEMS
    needed = max(n_least, _items_for(MARGIN, continuous))
    fraction = next((share for share in _FRACTIONS if share * n_tickets >= needed), _FRACTIONS[-1])
    n_held_out = max(1, int(fraction * n_tickets))
    n_items = min(n_held_out, needed)
    n_train = max(1, n_tickets - n_held_out - int(_VALIDATION * n_tickets))
    margins = (hundredths / 100 for hundredths in range(round(100 * MARGIN), 100))
    return Sizes(
        n_tickets=n_tickets,
        test_fraction=fraction,
        validation_fraction=_VALIDATION,
        n_held_out=n_held_out,
        max_items=n_items,
        max_examples=min(n_train, MAX_EXAMPLES),
        max_length=_rounded(example_chars / _CHARS_PER_TOKEN + 96, step=64, low=256, high=2048),
        max_new_tokens=_rounded(reply_chars / _CHARS_PER_TOKEN + 16, step=16, low=16, high=256),
        margin=next((margin for margin in margins if _items_for(margin, continuous) <= n_items), 1.0),
        n_least=n_least,
    )


def gate_of(metric: str, sizes: Sizes) -> tuple[tuple[GateRule, RulePower], ...]:
    """The rules of the gate, each with the items that it needs, as `tunegate plan` says it.

    No worse than the champion, better than the best prompt, and a floor for what is 0 or 1 of an answer's form.
    """
    no_worse = ChangeThreshold(against="champion", mode="refresh", margin=sizes.margin)
    better = ChangeThreshold(against="best_baseline", mode="improve")
    rules = (
        GateRule(metric=metric, change_threshold=no_worse),
        GateRule(metric=metric, change_threshold=better),
        GateRule(metric="finished" if metric == "chrf" else "format", value_threshold=0.9),
    )
    gates = GatesSpec(rules=rules, confidence=_CONFIDENCE, min_items=MIN_ITEMS)
    power = plan_gate(gates, traits=traits_by_name(), n_items=sizes.max_items, seen={})
    return tuple(zip(rules, power, strict=True))


def _items_for(margin: float, continuous: bool) -> int:
    """Items that show that an equal candidate is no more than `margin` worse."""
    spread = PowerSpec().spread if continuous else math.sqrt(ASSUMED_DISCORDANCE)
    return items_needed(margin, sd_null=spread, sd_true=spread, confidence=_CONFIDENCE) or 0


def _rounded(value: float, *, step: int, low: int, high: int) -> int:
    return min(high, max(low, step * math.ceil(value / step)))
